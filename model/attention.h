// Attention over the documents of a batch: no token sees another document, and no mask of tokens x tokens is ever made.
//
// Tokens lie one after the other (model/device_batch.h), and that is how flash attention takes them where it can
// (model/gpu/flash_attention.h). Elsewhere documents of similar length are laid side by side in groups [documents,
// length] with zeros to the right of each document, which under the causal mask no real token sees, and go through
// model/blockwise_attention.h. The memory of both is linear in the tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "model/device_batch.h"

namespace gemma_sft {

struct DocumentLayout {
  struct Group {
    int64_t documents = 0;
    int64_t length = 0;  // of the longest
  };
  std::vector<Group> groups;
  int64_t rows = 0;   // sum of documents * length
  at::Tensor places;  // [tokens] int64, the row that each token takes; undefined: token i takes row i and rows = tokens

  // For flash attention: where each document begins and the last one ends; padding counts as part of its document.
  std::vector<int64_t> document_offsets;
  int64_t longest = 0;
  const at::Tensor& offsets(at::Device device) const;  // int32; copied to the device at the first call
  mutable at::Tensor offsets_on_device;
};

// One group for the padded layout. Packed documents share a group while padding them to its longest wastes little.
DocumentLayout lay_out_documents(const DeviceBatch& batch);

struct AttentionOptions {
  double scale = 1.0;
  std::optional<double> softcap = {};  // scores become softcap * tanh(scores / softcap), before the mask
  int64_t window = 0;                  // key j is seen by query i when i - window < j <= i; 0: no window
  bool by_blocks = false;              // even where flash attention could take it
};

// query [tokens, heads, head_dim]; key, value [tokens, kv_heads, head_dim] -> [tokens, heads * head_dim].
// Differentiable.
at::Tensor attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const DocumentLayout& layout,
                  const AttentionOptions& options);

}  // namespace gemma_sft
