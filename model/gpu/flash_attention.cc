#include "model/gpu/flash_attention.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <string_view>
#include <tuple>
#include <vector>

#include "configs/error.h"
#include "model/hand_written_backward.h"

namespace gemma_sft {
namespace {

constexpr int64_t kLargestHead = 256;

// The operators are private ones of LibTorch: another build of it could have other arguments in these places.
constexpr std::array<std::string_view, 15> kForwardArguments = {"query",
                                                                "key",
                                                                "value",
                                                                "cum_seq_q",
                                                                "cum_seq_k",
                                                                "max_q",
                                                                "max_k",
                                                                "dropout_p",
                                                                "is_causal",
                                                                "return_debug_mask",
                                                                "scale",
                                                                "window_size_left",
                                                                "window_size_right",
                                                                "seqused_k",
                                                                "alibi_slopes"};
constexpr std::array<std::string_view, 17> kBackwardArguments = {"grad_out",
                                                                 "query",
                                                                 "key",
                                                                 "value",
                                                                 "out",
                                                                 "logsumexp",
                                                                 "cum_seq_q",
                                                                 "cum_seq_k",
                                                                 "max_q",
                                                                 "max_k",
                                                                 "dropout_p",
                                                                 "is_causal",
                                                                 "rng_state",
                                                                 "unused",
                                                                 "scale",
                                                                 "window_size_left",
                                                                 "window_size_right"};

template <size_t kCount>
bool has_arguments(const char* name, const std::array<std::string_view, kCount>& arguments) {
  const auto found = c10::Dispatcher::singleton().findSchema({name, ""});
  if (!found || found->schema().arguments().size() != kCount) return false;
  for (size_t i = 0; i < kCount; ++i) {
    if (found->schema().arguments()[i].name() != arguments[i]) return false;
  }
  return true;
}

bool has_expected_operators() {
  static const bool has = has_arguments("aten::_flash_attention_forward", kForwardArguments) &&
                          has_arguments("aten::_flash_attention_backward", kBackwardArguments);
  return has;
}

bool has_kernel(at::Device device) {
  const auto found = c10::Dispatcher::singleton().findSchema({"aten::_flash_attention_forward", ""});
  return found && found->hasKernelForDispatchKey(device.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU);
}

std::optional<int64_t> left_of(const AttentionOptions& options) {
  return options.window > 0 ? std::optional<int64_t>(options.window - 1) : std::nullopt;
}
std::optional<int64_t> right_of(const AttentionOptions& options) {
  return options.window > 0 ? std::optional<int64_t>(0) : std::nullopt;
}

AttentionChoice choice() {
  static const AttentionChoice made = [] {
    const char* text = std::getenv("GEMMA_SFT_ATTENTION");
    return parse_attention_choice(text == nullptr ? "" : text);
  }();
  return made;
}

}  // namespace

AttentionChoice parse_attention_choice(const std::string& text) {
  if (text.empty() || text == "auto") return AttentionChoice::kAuto;
  if (text == "flash") return AttentionChoice::kFlash;
  if (text == "blocks") return AttentionChoice::kBlocks;
  throw Error(ErrorKind::kUsage,
              fmt::format("GEMMA_SFT_ATTENTION: expected auto, flash or blocks, found \"{}\"", text));
}

std::optional<std::string> find_flash_obstacle(const at::Tensor& query, const AttentionOptions& options) {
  if (options.softcap) return "it has no soft-cap";
  if (query.scalar_type() != at::kBFloat16 && query.scalar_type() != at::kHalf)
    return "it computes in bf16 and fp16 only";
  const int64_t dim = query.size(2);
  if (dim > kLargestHead || dim % 8 != 0) return fmt::format("it has no kernel for a head dimension of {}", dim);
  if (!has_expected_operators()) return "this LibTorch's operator has other arguments";
  if (!has_kernel(query.device())) return "there is none for the CPU";
  return std::nullopt;
}

bool is_attention_left_open(const at::Tensor& query, const AttentionOptions& options) {
  return choice() == AttentionChoice::kAuto && !find_flash_obstacle(query, options);
}

bool takes_flash(const at::Tensor& query, const AttentionOptions& options) {
  if (choice() == AttentionChoice::kBlocks || options.by_blocks) return false;
  const std::optional<std::string> obstacle = find_flash_obstacle(query, options);
  if (obstacle && choice() == AttentionChoice::kFlash) {
    throw Error(ErrorKind::kUsage,
                fmt::format("GEMMA_SFT_ATTENTION=flash: flash attention cannot be used here: {}; set "
                            "it to auto or leave it out",
                            *obstacle));
  }
  return !obstacle;
}

at::Tensor flash_attention(const at::Tensor& given_query, const at::Tensor& given_key, const at::Tensor& given_value,
                           const at::Tensor& offsets, int64_t longest, const AttentionOptions& options) {
  const bool differentiable = wants_gradient({given_query, given_key, given_value});
  at::NoGradGuard no_grad;
  const at::Tensor query = given_query.detach().contiguous(), key = given_key.detach().contiguous(),
                   value = given_value.detach().contiguous();
  const auto made = at::_flash_attention_forward(
      query, key, value, offsets, offsets, longest, longest, /*dropout_p=*/0.0, /*is_causal=*/true,
      /*return_debug_mask=*/false, options.scale, left_of(options), right_of(options));
  at::Tensor output = std::get<0>(made);
  if (!differentiable) return output;
  return with_backward(
      output, {given_query, given_key, given_value},
      [query, key, value, offsets, longest, options, kept = output.detach(), log_sums = std::get<1>(made),
       random = std::get<2>(made), unused = std::get<3>(made)](const at::Tensor& gradient) -> std::vector<at::Tensor> {
        const auto [query_gradient, key_gradient, value_gradient] = at::_flash_attention_backward(
            gradient, query, key, value, kept, log_sums, offsets, offsets, longest, longest, /*dropout_p=*/0.0,
            /*is_causal=*/true, random, unused, options.scale, left_of(options), right_of(options));
        return {query_gradient, key_gradient, value_gradient};
      });
}

}  // namespace gemma_sft
