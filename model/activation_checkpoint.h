// Keeps only the input of a block and runs the block again in the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace gemma_sft {

// block(x), with the same gradients to the bit as without the checkpoint: for x through autograd, for the leaves that
// the block uses straight into their .grad. Random numbers drawn by the block are drawn alike the second time (the
// default generator of x's device is put back and restored). `draws_random_numbers`: whether the block does; saving a
// generator for nothing costs time.
at::Tensor checkpointed(const at::Tensor& x, const std::function<at::Tensor(const at::Tensor&)>& block,
                        bool draws_random_numbers);

}  // namespace gemma_sft
