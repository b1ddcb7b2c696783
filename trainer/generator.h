// One prompt -> the tokens that follow it, decoded one by one with keys and values kept.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "model/gemma.h"
#include "trainer/run_generation.h"

namespace gemma_sft {

// Chooses the next token. The same seed and logits give the same tokens on every machine: the arithmetic is in double
// on the host. Order as in transformers: temperature, top_k, top_p.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);
  int64_t choose(const at::Tensor& logits);  // [vocab]

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
};

struct GenerationLimits {
  int64_t max_new_tokens = 256;
  std::vector<int64_t> stop_ids = {};  // generation ends with the first of these, which is part of the result
};

// Throws Error(kData) when there is no prompt token, Error(kNonFinite) when the logits are not numbers. Ends early when
// stop_signal() says so.
std::vector<int64_t> generate_tokens(Gemma& model, const std::vector<int64_t>& prompt, const GenerationLimits& limits,
                                     Sampler& sampler);

}  // namespace gemma_sft
