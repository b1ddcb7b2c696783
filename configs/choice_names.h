// The names that the YAML file uses for the enumerators of configs/run_config.h.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "configs/run_config.h"

namespace gemma_sft {

// `names` stands in the order of the enumerators.
template <typename Enum>
struct Choices;
template <>
struct Choices<DataFormat> {
  static constexpr std::array<std::string_view, 4> names = {"training_example", "tunix_sft", "trace", "tokens"};
};
template <>
struct Choices<OnBadRecord> {
  static constexpr std::array<std::string_view, 2> names = {"fail", "skip"};
};
template <>
struct Choices<OnLong> {
  static constexpr std::array<std::string_view, 3> names = {"fail", "skip", "truncate"};
};
template <>
struct Choices<Precision> {
  static constexpr std::array<std::string_view, 3> names = {"fp32", "bf16_mixed", "bf16"};
};
template <>
struct Choices<Scheduler> {
  static constexpr std::array<std::string_view, 3> names = {"linear", "cosine", "constant"};
};
template <>
struct Choices<OnNonFinite> {
  static constexpr std::array<std::string_view, 2> names = {"stop", "skip"};
};
template <>
struct Choices<ActivationCheckpointing> {
  static constexpr std::array<std::string_view, 3> names = {"false", "true", "auto"};
};
template <>
struct Choices<ModelDtype> {
  static constexpr std::array<std::string_view, 3> names = {"fp32", "bf16", "fp16"};
};

// "bf16_mixed" for Precision::kBf16Mixed.
template <typename Enum>
constexpr std::string_view choice_name(Enum value) {
  return Choices<Enum>::names[static_cast<size_t>(value)];
}

}  // namespace gemma_sft
