// Causal attention with a soft-cap or a window, block of queries by block of queries. The backward pass makes the
// scores again from the kept log-sum-exp, so memory is linear in the length.
#pragma once

#include <ATen/core/Tensor.h>

#include "model/attention.h"

namespace gemma_sft {

// query [documents, heads, queries, head_dim]; key, value [documents, kv_heads, keys, head_dim] with keys >= queries:
// the last query stands at the last key. Gives [documents, heads, queries, head_dim]. Differentiable. Softmax is fp32.
at::Tensor blockwise_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                               const AttentionOptions& options);

}  // namespace gemma_sft
