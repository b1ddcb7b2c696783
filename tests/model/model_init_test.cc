#include "model/model_init.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "model/weight_files.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ModelInit : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(dir_ / "tokenizer");
    fs::copy_file(fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures/tiny_tokenizer.model",
                  dir_ / "tokenizer/tokenizer.model");
    dir_.write("tokenizer/tokenizer.json", "{\"not\": \"read\"}\n");
  }
  void init(const std::string& name, ModelDtype dtype = ModelDtype::kFp32, uint64_t seed = 1,
            FileSystem& files = real_file_system()) {
    init_model_folder(*find_preset("tiny-gemma-3"), dir_ / "tokenizer", dir_ / name, dtype, seed, files);
  }
  std::vector<float> values(const std::string& name, const std::string& tensor) {
    const WeightFiles files(dir_ / name, load_gemma_config(dir_ / name));
    const WeightFiles::Tensor found = files.text(tensor);
    std::vector<float> result(found.info->bytes() / 4);
    found.read(result.data());
    return result;
  }
  TempDir dir_;
};

TEST_F(ModelInit, MakesACompleteFolder) {
  init("model", ModelDtype::kBf16);
  EXPECT_THAT(dir_.list(), ElementsAre("model/", "model/config.json", "model/generation_config.json",
                                       "model/model.safetensors", "model/tokenizer.json", "model/tokenizer.model",
                                       "tokenizer/", "tokenizer/tokenizer.json", "tokenizer/tokenizer.model"));
  const GemmaConfig config = load_gemma_config(dir_ / "model");
  EXPECT_EQ(config.dtype, "bfloat16");
  EXPECT_GT(config.vocab_size, 256);
  EXPECT_EQ(files_dtype(dir_ / "model"), ModelDtype::kBf16);
  EXPECT_EQ(WeightFiles(dir_ / "model", config).carried().size(), 0u);
  EXPECT_EQ(sha256_file(dir_ / "model/tokenizer.model"), sha256_file(dir_ / "tokenizer/tokenizer.model"));
  EXPECT_EQ(sha256_file(dir_ / "model/tokenizer.json"), sha256_file(dir_ / "tokenizer/tokenizer.json"));
  EXPECT_THAT(read_file(dir_ / "model/generation_config.json"), HasSubstr("\"bos_token_id\": 2"));
}

TEST_F(ModelInit, TheConfigsInitializerRangeIsTheDeviation) {
  GemmaConfig config = *find_preset("tiny-gemma-3");
  config.initializer_range = 0.08;
  init_model_folder(config, dir_ / "tokenizer", dir_ / "model", ModelDtype::kFp32, 1, real_file_system());
  EXPECT_EQ(load_gemma_config(dir_ / "model").initializer_range, 0.08);
  double squares = 0;
  const std::vector<float> embedding = values("model", "model.embed_tokens.weight");
  for (const float value : embedding) squares += std::pow(value, 2);
  const auto n = static_cast<double>(embedding.size());
  EXPECT_NEAR(std::sqrt(squares / n), 0.08, 5 * 0.08 / std::sqrt(2 * n));
}

TEST_F(ModelInit, TheSameSeedGivesTheSameBytesAndAnotherOthers) {
  init("one");
  init("two");
  init("three", ModelDtype::kFp32, 2);
  EXPECT_EQ(sha256_file(dir_ / "one/model.safetensors"), sha256_file(dir_ / "two/model.safetensors"));
  EXPECT_NE(sha256_file(dir_ / "one/model.safetensors"), sha256_file(dir_ / "three/model.safetensors"));
}

TEST_F(ModelInit, WeightsAreNormalWithDeviation002AndNormsZero) {
  init("model");
  const std::vector<float> embedding = values("model", "model.embed_tokens.weight");
  double sum = 0, squares = 0, fourth = 0;
  for (const float value : embedding) {
    sum += value;
    squares += std::pow(value, 2);
    fourth += std::pow(value, 4);
  }
  const auto n = static_cast<double>(embedding.size());
  const double deviation = std::sqrt(squares / n);
  EXPECT_NEAR(sum / n, 0.0, 5 * 0.02 / std::sqrt(n));
  EXPECT_NEAR(deviation, 0.02, 5 * 0.02 / std::sqrt(2 * n));
  EXPECT_NEAR(fourth / n / std::pow(deviation, 4), 3.0,
              5 * std::sqrt(24 / n));  // the kurtosis of a normal distribution
  for (const float value : values("model", "model.layers.3.self_attn.q_norm.weight")) EXPECT_EQ(value, 0.0f);
  EXPECT_NE(values("model", "model.layers.0.mlp.up_proj.weight"),
            values("model", "model.layers.0.mlp.gate_proj.weight"));
}

TEST_F(ModelInit, TheOtherDtypesAreTheFp32ValuesRounded) {
  init("fp32");
  init("bf16", ModelDtype::kBf16);
  init("fp16", ModelDtype::kFp16);
  const std::vector<float> exact = values("fp32", "model.layers.0.mlp.up_proj.weight");
  const WeightFiles files(dir_ / "bf16", load_gemma_config(dir_ / "bf16"));
  std::vector<uint16_t> bits(exact.size());
  files.text("model.layers.0.mlp.up_proj.weight").read(bits.data());
  for (size_t i = 0; i < exact.size(); ++i) {
    const uint32_t wide = static_cast<uint32_t>(bits[i]) << 16;
    float value = 0;
    std::memcpy(&value, &wide, 4);
    ASSERT_NEAR(value, exact[i], std::abs(exact[i]) / 256);
  }
  EXPECT_EQ(files_dtype(dir_ / "fp16"), ModelDtype::kFp16);
}

TEST_F(ModelInit, RefusesAnExistingFolderTooFewRowsAndImageTextModels) {
  const auto error_of = [&](const GemmaConfig& config, const std::string& name) -> std::string {
    try {
      init_model_folder(config, dir_ / "tokenizer", dir_ / name, ModelDtype::kFp32, 1, real_file_system());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  GemmaConfig config = *find_preset("tiny-gemma-1");
  EXPECT_THAT(error_of(config, "tokenizer"), HasSubstr("already there"));
  config.vocab_size = 100;
  EXPECT_THAT(error_of(config, "new"), HasSubstr("vocab_size 100 is less than the"));
  config.vocab_size = 4096;
  EXPECT_EQ(error_of(config, "rows/"), "");  // more rows than pieces, and a folder name with a slash
  EXPECT_EQ(load_gemma_config(dir_ / "rows").vocab_size, 4096);
  config.image_text = true;
  EXPECT_THAT(error_of(config, "new"), HasSubstr("text-only"));
  EXPECT_FALSE(fs::exists(dir_ / "new"));
}

TEST_F(ModelInit, LeavesNothingBehindWhenAnyCallFails) {
  FailingFileSystem counting;
  init("counted", ModelDtype::kBf16, 1, counting);
  const auto calls = static_cast<int64_t>(counting.calls().size());
  ASSERT_GT(calls, 10);
  for (int64_t call = 0; call < calls; ++call) {
    FailingFileSystem failing({.call = call});
    const std::string name = "model" + std::to_string(call);
    EXPECT_THROW(init(name, ModelDtype::kBf16, 1, failing), Error) << call;
    // The last call is the fsync of the parent folder: by then the model is in place.
    EXPECT_EQ(fs::exists(dir_ / name), call + 1 == calls) << call;
  }
  for (const std::string& path : dir_.list()) EXPECT_FALSE(path.starts_with(".")) << path;
}

}  // namespace
}  // namespace gemma_sft
