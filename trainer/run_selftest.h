// `gemma-sft selftest`: a case's logits, loss and gradients, computed by the code that trains, against the reference's.
#pragma once

#include <string>

#include "trainer/selftest_case.h"

namespace gemma_sft {

// The largest errors; NaN where one of the two numbers is not finite.
struct SelftestResult {
  std::string name;
  double logits_max_abs_err = 0;
  double loss_abs_err = 0;
  double grad_max_rel_err = 0;  // over the tensors: max |ours - theirs| / (max |theirs| + 1e-12)
  std::string worst_grad;       // its tensor, as in Hugging Face
  bool ok = false;              // every error is within its tolerance
};

// In fp32 whatever the weights are stored in, once packed and once padded; the larger error counts. Forward pass,
// chunked loss and backward pass are those of training. Throws Error(kModel), Error(kUsage) for a device that cannot be
// had, and Error(kOutOfMemory).
SelftestResult run_selftest(const SelftestCase& reference, const std::string& device);

// {"name", "logits_max_abs_err", "loss_abs_err", "grad_max_rel_err", "worst_grad", "ok"}; NaN is null.
std::string to_json(const SelftestResult& result);

}  // namespace gemma_sft
