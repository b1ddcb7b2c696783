// Causal attention, block of queries by block of queries, with or without a soft-cap and a window. The backward pass
// makes the scores again from the kept log-sum-exp, so memory is linear in the length.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/attention.h"

namespace gemma_sft {

// query [documents, queries, heads, head_dim]; key, value [documents, keys, kv_heads, head_dim] with keys >= queries:
// the last query stands at the last key. Gives [documents, queries, heads, head_dim]. Differentiable. Softmax is fp32.
at::Tensor blockwise_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const AttentionOptions& options);

}  // namespace gemma_sft
