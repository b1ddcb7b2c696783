// Which tensors the fused kernels of model/gpu/gpu_kernels.h take, and the layers of the model made of them: the same
// functions as in rms_norm.h, rotary_embedding.h, gelu_gate.h and embedding.h, which hand over to these where
// takes_fused says so. Forward and backward are hand-written; what a backward pass keeps is said at each.
//
// On CUDA every kernel is on. GEMMA_SFT_FUSED_OFF names those to leave to LibTorch's operators, comma-separated, or
// "all": norm, head, gate, embedding, loss, attention, adamw (for comparisons and for finding a fault). It is read
// once, when the first tensor asks; a name that is not one of these is Error(kUsage).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/gpu/gpu_kernels.h"

namespace gemma_sft {

enum class FusedKernel { kNorm, kHead, kGate, kEmbedding, kLoss, kAttention, kAdamW };

// The kernels switched off by a text like that of GEMMA_SFT_FUSED_OFF. Throws Error(kUsage).
std::set<FusedKernel> parse_fused_off(const std::string& text);

// "norm, head, gate" for those that takes_fused accepts of such a tensor, "none" where there are none. For the log.
std::string describe_fused(const at::Tensor& tensor);

// True for fp32 and bf16 tensors on CUDA in a build that has the kernels, and for such tensors on the CPU while a
// HostKernels lives.
bool takes_fused(FusedKernel kernel, const at::Tensor& tensor);

// While it lives, CPU tensors go through the host's table (model/gpu/gpu_kernels_host.cc), so that the tests of the
// model run through the GPU's arithmetic. For tests. One at a time, made and destroyed where no other thread computes.
class HostKernels {
 public:
  HostKernels();
  ~HostKernels();
  HostKernels(const HostKernels&) = delete;
  HostKernels& operator=(const HostKernels&) = delete;
};

// The table for the device of a tensor, and the stream that its work goes to.
const GpuKernels& fused_kernels(const at::Tensor& tensor);
GpuStream fused_stream(const at::Tensor& tensor);

// body(kernels, T{}) with T and the kernels for the tensor's dtype; requires a dtype that takes_fused accepts.
template <typename Body>
decltype(auto) with_fused(const at::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == at::kFloat) return body(fused_kernels(tensor).wide, float{});
  return body(fused_kernels(tensor).narrow, Bf16{});
}

// Keeps x and a float per row.
at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// {x + change, rms_norm(x + change)}, the sum rounded to the dtype first. Keeps the sum, which the residual stream
// holds anyway. The two gradients meet in one kernel.
std::pair<at::Tensor, at::Tensor> fused_add_rms_norm(const at::Tensor& x, const at::Tensor& change,
                                                     const at::Tensor& weight, double eps);

// x [tokens, heads, head_dim], cos and sin [tokens, 1, head_dim / 2] in its dtype; weight [head_dim], undefined: no
// norm, and then nothing but cos and sin is kept.
at::Tensor fused_norm_rotate(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& cos,
                             const at::Tensor& sin);

at::Tensor fused_gelu_gate(const at::Tensor& gate, const at::Tensor& up);

// weight[ids] in `dtype`, times `scale`; the gradient is added straight to weight.grad(), as in model/embedding.h.
at::Tensor fused_embed(const at::Tensor& ids, const at::Tensor& weight, double scale, at::ScalarType dtype,
                       std::optional<int64_t> pad_id);

// Logits -> their gradient, in place; gives the sum of the losses, fp64 on the device.
at::Tensor fused_cross_entropy(at::Tensor& logits, const at::Tensor& targets, std::optional<double> softcap,
                               bool gradient_wanted);

}  // namespace gemma_sft
