// Keys and values of the tokens decoded so far, one document; sliding layers keep no more than their window.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace gemma_sft {

struct KvCache {
  struct Layer {
    at::Tensor keys;    // [kv_heads, kept, head_dim], after RoPE; undefined before the first token
    at::Tensor values;  // [kv_heads, kept, head_dim]
  };
  std::vector<Layer> layers;  // sized by the model on first use
  int64_t length = 0;         // tokens seen, including those a sliding layer no longer keeps
};

}  // namespace gemma_sft
