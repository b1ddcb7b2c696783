#include "model/finite.h"

#include <ATen/ops/aminmax.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <tuple>

#include "configs/error.h"

namespace gemma_sft {

// A NaN anywhere makes both of aminmax's results NaN.
bool is_finite(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return true;
  const c10::NoGradGuard no_grad;
  const auto [least, greatest] = at::aminmax(tensor.detach());
  return std::isfinite(least.item<double>()) && std::isfinite(greatest.item<double>());
}

void require_finite(const std::string& name, const at::Tensor& weight) {
  if (is_finite(weight)) return;
  throw Error(ErrorKind::kNonFinite, name +
                                         ": holds NaN or an infinite number; it is not written. Take an earlier "
                                         "checkpoint, or train anew with a lower training.learning_rate");
}

}  // namespace gemma_sft
