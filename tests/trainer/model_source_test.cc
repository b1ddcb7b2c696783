#include "trainer/model_source.h"

#include <gtest/gtest.h>

#include <fstream>

#include "configs/error.h"
#include "tests/trainer/tiny_run.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

TEST(ModelSourceTest, the_default_precision_is_bf16_mixed_on_a_gpu_and_fp32_on_the_cpu) {
  EXPECT_EQ(choose_precision(std::nullopt, c10::Device("cuda:0")), Precision::kBf16Mixed);
  EXPECT_EQ(choose_precision(std::nullopt, c10::Device("cpu")), Precision::kFp32);
  EXPECT_EQ(choose_precision(Precision::kBf16, c10::Device("cpu")), Precision::kBf16);
}

TEST(ModelSourceTest, what_is_trained_in_mixed_precision_is_stored_in_fp32_and_a_frozen_base_is_not) {
  const c10::Device cpu("cpu");
  const auto dtypes = [&](Precision precision, bool lora) {
    const GemmaOptions options = model_options(precision, cpu, lora);
    return std::pair{options.storage_dtype, options.compute_dtype};
  };
  EXPECT_EQ(dtypes(Precision::kFp32, false), std::pair(at::kFloat, at::kFloat));
  EXPECT_EQ(dtypes(Precision::kBf16Mixed, false), std::pair(at::kFloat, at::kBFloat16));
  EXPECT_EQ(dtypes(Precision::kBf16Mixed, true), std::pair(at::kBFloat16, at::kBFloat16));
  EXPECT_EQ(dtypes(Precision::kBf16, false), std::pair(at::kBFloat16, at::kBFloat16));
}

TEST(ModelSourceTest, a_relative_folder_is_found_from_the_config_file_s_ancestors) {
  const TinyRun tiny;
  const fs::path config = tiny.files().write("configs/deep/run.yaml", "");
  ModelSection model;
  model.base_model = "base";
  EXPECT_EQ(find_base_model(model, config), tiny.base_model());
  model.base_model = "./absent";
  EXPECT_THROW(find_base_model(model, config), Error);
}

TEST(ModelSourceTest, the_digest_of_a_model_changes_with_its_weights_and_config_alone) {
  const TinyRun tiny;
  const std::string before = model_sha256(tiny.base_model());
  tiny.files().write("base/README.md", "x");
  EXPECT_EQ(model_sha256(tiny.base_model()), before);
  std::ofstream(tiny.base_model() / "model.safetensors", std::ios::app) << "x";
  EXPECT_NE(model_sha256(tiny.base_model()), before);
}

}  // namespace
}  // namespace gemma_sft
