#include "trainer/model_source.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>

#include "configs/choice_names.h"
#include "configs/error.h"
#include "model/hub_cache.h"
#include "model/model_init.h"
#include "tests/trainer/send_signal.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/stop_signal.h"
#include "trainer/stopwatch.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

TEST(ModelSourceTest, the_default_precision_is_bf16_mixed_on_a_gpu_and_fp32_on_the_cpu) {
  EXPECT_EQ(choose_precision(std::nullopt, c10::Device("cuda:0")), Precision::kBf16Mixed);
  EXPECT_EQ(choose_precision(std::nullopt, c10::Device("cpu")), Precision::kFp32);
  EXPECT_EQ(choose_precision(Precision::kBf16, c10::Device("cpu")), Precision::kBf16);
}

TEST(ModelSourceTest, what_is_trained_in_mixed_precision_is_stored_in_fp32) {
  const c10::Device cpu("cpu");
  const auto dtypes = [&](Precision precision) {
    const GemmaOptions options = model_options(precision, cpu);
    return std::pair{options.storage_dtype, options.compute_dtype};
  };
  EXPECT_EQ(dtypes(Precision::kFp32), std::pair(at::kFloat, at::kFloat));
  EXPECT_EQ(dtypes(Precision::kBf16Mixed), std::pair(at::kFloat, at::kBFloat16));
  EXPECT_EQ(dtypes(Precision::kBf16), std::pair(at::kBFloat16, at::kBFloat16));
}

TEST(ModelSourceTest, a_frozen_base_keeps_the_dtype_of_its_files) {
  const TinyRun tiny;
  for (const auto& [written, stored] :
       {std::pair(ModelDtype::kFp32, at::kFloat), std::pair(ModelDtype::kFp16, at::kHalf),
        std::pair(ModelDtype::kBf16, at::kBFloat16)}) {
    const fs::path folder = tiny.files() / choice_name(written);
    init_model_folder(tiny_config(), tiny.files() / "tokenizer", folder, written, /*seed=*/3, real_file_system());
    for (const auto& [precision, computed] :
         {std::pair(Precision::kFp32, at::kFloat), std::pair(Precision::kBf16Mixed, at::kBFloat16)}) {
      const GemmaOptions options =
          frozen_model_options(precision, c10::Device("cpu"), folder, load_gemma_config(folder));
      EXPECT_EQ(options.storage_dtype, stored);
      EXPECT_EQ(options.compute_dtype, computed);
    }
    const GemmaOptions narrow =
        frozen_model_options(Precision::kBf16, c10::Device("cpu"), folder, load_gemma_config(folder));
    EXPECT_EQ(narrow.storage_dtype, at::kBFloat16);
  }
}

TEST(ModelSourceTest, a_relative_folder_is_found_from_the_config_file_s_ancestors) {
  const TinyRun tiny;
  const fs::path config = tiny.files().write("configs/deep/run.yaml", "");
  ModelSection model;
  model.base_model = "base";
  EXPECT_EQ(find_base_model(model, config), tiny.base_model());
  model.revision = "v1.1";  // which a folder does not have
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

TEST(ModelSourceTest, the_digest_of_a_model_is_the_same_from_a_thread_of_its_own) {
  const TinyRun tiny;
  EXPECT_EQ(ModelDigest(tiny.base_model()).get(), model_sha256(tiny.base_model()));
  fs::remove(tiny.base_model() / "config.json");
  EXPECT_THROW(ModelDigest(tiny.base_model()).get(), Error);
}

// A terabyte of zeros would take many minutes.
TEST(ModelSourceTest, nobody_waits_for_the_rest_of_a_digest_that_nobody_wants_or_at_a_stop_signal) {
  const TinyRun tiny;
  fs::resize_file(tiny.base_model() / "model.safetensors", uint64_t{1} << 40);
  const Stopwatch watch;
  { const ModelDigest dropped(tiny.base_model()); }
  install_stop_signals();
  ModelDigest stopped(tiny.base_model());
  send_stop_signal(SIGTERM);
  EXPECT_THROW(stopped.get(), StopRequested);
  install_stop_signals();
  EXPECT_LT(watch.seconds(), 60);
}

}  // namespace
}  // namespace gemma_sft
