// A gradient formula for a result that was computed outside autograd: the one door between our hand-written backward
// passes and LibTorch's autograd engine.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

namespace gemma_sft {

// Gradient of the output -> gradients of the inputs, in their order; an undefined tensor stands for no gradient. Runs
// with grad mode off. It is dropped, with all it has captured, as soon as autograd has no more use for it. It must not
// capture the output itself (a cycle that is never freed): capture `output.detach()`.
using BackwardFormula = std::function<std::vector<at::Tensor>(const at::Tensor& output_gradient)>;

// The same for two outputs; the gradient of one may be undefined, where nothing used that output.
using BackwardFormulaOfTwo =
    std::function<std::vector<at::Tensor>(const at::Tensor& first_gradient, const at::Tensor& second_gradient)>;

// True when grad mode is on and one of them (undefined ones are skipped) requires a gradient.
bool wants_gradient(std::initializer_list<at::Tensor> tensors);

// Gives `output` (fresh, made under NoGradGuard, no view of an input) the formula as its grad_fn.
// Call it only when a gradient is wanted. The output requires a gradient even where no input does: a formula may also
// accumulate into leaves that it has captured.
at::Tensor with_backward(at::Tensor output, const std::vector<at::Tensor>& inputs, BackwardFormula formula);
std::pair<at::Tensor, at::Tensor> with_backward_of_two(std::pair<at::Tensor, at::Tensor> outputs,
                                                       const std::vector<at::Tensor>& inputs,
                                                       BackwardFormulaOfTwo formula);

}  // namespace gemma_sft
