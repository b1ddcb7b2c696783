// Is every number of a tensor finite? One pass, no copy.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace gemma_sft {

bool is_finite(const at::Tensor& tensor);  // waits for the tensor's device

// Throws Error(kNonFinite) that names the weight.
void require_finite(const std::string& name, const at::Tensor& weight);

}  // namespace gemma_sft
