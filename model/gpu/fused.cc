#include "model/gpu/fused.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cstdlib>
#include <string_view>

#include "configs/error.h"

namespace gemma_sft {
namespace {

struct Name {
  std::string_view text;
  FusedKernel kernel;
};
constexpr std::array<Name, 7> kNames = {{{"norm", FusedKernel::kNorm},
                                         {"head", FusedKernel::kHead},
                                         {"gate", FusedKernel::kGate},
                                         {"embedding", FusedKernel::kEmbedding},
                                         {"loss", FusedKernel::kLoss},
                                         {"attention", FusedKernel::kAttention},
                                         {"adamw", FusedKernel::kAdamW}}};

bool host_kernels_on = false;

const std::set<FusedKernel>& switched_off() {
  static const std::set<FusedKernel> off = [] {
    const char* text = std::getenv("GEMMA_SFT_FUSED_OFF");
    return parse_fused_off(text == nullptr ? "" : text);
  }();
  return off;
}

}  // namespace

std::set<FusedKernel> parse_fused_off(const std::string& text) {
  std::set<FusedKernel> off;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view name = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    bool known = name == "all";
    for (const Name& candidate : kNames) {
      if (name != "all" && name != candidate.text) continue;
      off.insert(candidate.kernel);
      known = true;
    }
    if (!known) {
      throw Error(ErrorKind::kUsage,
                  fmt::format("GEMMA_SFT_FUSED_OFF: \"{}\" is no kernel; known are all, norm, head, gate, embedding, "
                              "loss, attention and adamw, separated by commas",
                              name));
    }
  }
  return off;
}

bool takes_fused(FusedKernel kernel, const at::Tensor& tensor) {
  const bool has_kernels = tensor.is_cuda() ? find_cuda_kernels() != nullptr : host_kernels_on && tensor.is_cpu();
  return has_kernels && (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16) &&
         !switched_off().contains(kernel);
}

std::string describe_fused(const at::Tensor& tensor) {
  std::vector<std::string_view> names;
  for (const Name& name : kNames) {
    if (takes_fused(name.kernel, tensor)) names.push_back(name.text);
  }
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

HostKernels::HostKernels() {
  if (host_kernels_on) throw Error(ErrorKind::kInternal, "HostKernels: one at a time");
  host_kernels_on = true;
}
HostKernels::~HostKernels() { host_kernels_on = false; }

const GpuKernels& fused_kernels(const at::Tensor& tensor) {
  return tensor.is_cuda() ? *find_cuda_kernels() : host_gpu_kernels();
}

}  // namespace gemma_sft
