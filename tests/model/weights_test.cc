// Model folders into a Gemma and out again.
#include "model/weights.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "tests/model/tiny_models.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kGolden = fs::path(GEMMA_SFT_SOURCE_DIR) / "tests" / "golden";

Gemma loaded(const fs::path& folder, c10::ScalarType storage = at::kFloat) {
  GemmaOptions options;
  options.storage_dtype = storage;
  return load_gemma(folder, options);
}

std::map<std::string, std::string> exported(const Gemma& model, const fs::path& base, const fs::path& destination,
                                            const ExportOptions& options, FileSystem& files = real_file_system()) {
  fs::create_directories(destination);
  return export_model(model, base, destination, files, options);
}

// Name, dtype and bytes of every tensor of a folder.
std::map<std::string, std::pair<TensorDtype, std::string>> tensors_of(const fs::path& folder) {
  std::map<std::string, std::pair<TensorDtype, std::string>> tensors;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsFile file(entry.path());
    for (const TensorInfo& info : file.tensors()) {
      std::string bytes(info.bytes(), '\0');
      file.read(info, bytes.data());
      tensors[info.name] = {info.dtype, bytes};
    }
  }
  return tensors;
}

TEST(Weights, AModelThatWasOnlyLoadedIsExportedAsItWas) {
  const TempDir dir;
  for (const auto& [name, dtype] : std::map<std::string, ModelDtype>{{"gemma-1-mqa", ModelDtype::kFp32},
                                                                     {"gemma-1-mha-bf16", ModelDtype::kBf16},
                                                                     {"gemma-2-sharded", ModelDtype::kFp32},
                                                                     {"gemma-3-bf16", ModelDtype::kBf16},
                                                                     {"gemma-3-image-text", ModelDtype::kFp32}}) {
    const fs::path base = kGolden / name / "model";
    EXPECT_EQ(files_dtype(base), dtype) << name;
    const auto digests = exported(loaded(base), base, dir / name, {.dtype = dtype});
    EXPECT_EQ(tensors_of(dir / name), tensors_of(base)) << name;
    EXPECT_EQ(read_file(dir / name / "config.json"), read_file(base / "config.json")) << name;
    EXPECT_TRUE(fs::exists(dir / name / "generation_config.json")) << name;
    size_t files = 0;
    for (const auto& entry : fs::directory_iterator(dir / name)) {
      EXPECT_EQ(digests.at(entry.path().filename().string()), sha256_file(entry.path()));
      ++files;
    }
    EXPECT_EQ(files, digests.size());
  }
}

TEST(Weights, ShardsOfTheExportLoadToTheSameModel) {
  const TempDir dir;
  const fs::path base = kGolden / "gemma-2-sharded" / "model";
  const auto digests =
      exported(loaded(base), base, dir / "out", {.dtype = ModelDtype::kFp32, .max_shard_bytes = 30'000});
  EXPECT_TRUE(digests.contains("model.safetensors.index.json"));
  EXPECT_GT(digests.size(), 6u);
  EXPECT_EQ(tensors_of(dir / "out"), tensors_of(base));
  const Gemma again = loaded(dir / "out"), before = loaded(base);
  for (size_t i = 0; i < before.base_parameters().size(); ++i) {
    EXPECT_TRUE(same_bits(again.base_parameters()[i].tensor, before.base_parameters()[i].tensor));
  }
}

TEST(Weights, LoadingConvertsToTheStorageDtypeByRoundingToEven) {
  const fs::path base = kGolden / "gemma-1-mqa" / "model";
  const Gemma exact = loaded(base), rounded = loaded(base, at::kBFloat16);
  for (size_t i = 0; i < exact.base_parameters().size(); ++i) {
    const at::Tensor tensor = rounded.base_parameters()[i].tensor;
    ASSERT_EQ(tensor.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(same_bits(tensor, exact.base_parameters()[i].tensor.to(at::kBFloat16)));
  }
}

TEST(Weights, AnotherDtypeChangesTheWeightsAndTheConfigsDtypeOnly) {
  const TempDir dir;
  const fs::path base = kGolden / "gemma-1-mqa" / "model";
  const Gemma model = loaded(base);
  for (const auto& [dtype, name] :
       std::map<ModelDtype, std::string>{{ModelDtype::kBf16, "bfloat16"}, {ModelDtype::kFp16, "float16"}}) {
    exported(model, base, dir / name, {.dtype = dtype});
    EXPECT_EQ(files_dtype(dir / name), dtype);
    std::string config = read_file(base / "config.json");
    config.replace(config.find("\"float32\""), 9, "\"" + name + "\"");
    EXPECT_EQ(read_file(dir / name / "config.json"), config);
    const Gemma again = loaded(dir / name);
    const c10::ScalarType type = dtype == ModelDtype::kBf16 ? at::kBFloat16 : at::kHalf;
    for (size_t i = 0; i < model.base_parameters().size(); ++i) {
      EXPECT_TRUE(
          same_bits(again.base_parameters()[i].tensor, model.base_parameters()[i].tensor.to(type).to(at::kFloat)));
    }
  }
}

TEST(Weights, AValueBeyondFp16IsRefusedByName) {
  const TempDir dir;
  const fs::path base = kGolden / "gemma-1-mqa" / "model";
  const Gemma model = loaded(base);
  {
    at::NoGradGuard no_grad;
    model.base_parameters()[3].tensor.detach().view(-1)[5].fill_(65520.0);
  }
  try {
    exported(model, base, dir / "out", {.dtype = ModelDtype::kFp16});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    EXPECT_THAT(error.what(), HasSubstr(model.base_parameters()[3].name + ": a value is beyond the range of fp16"));
  }
}

TEST(Weights, VisionTensorsOfATrainedImageTextModelAreCarriedByteForByte) {
  const TempDir dir;
  const fs::path base = kGolden / "gemma-3-image-text" / "model";
  const Gemma model = loaded(base);
  {
    at::NoGradGuard no_grad;
    for (const Parameter& parameter : model.base_parameters()) parameter.tensor.detach().add_(1.0);
  }
  exported(model, base, dir / "out", {.dtype = ModelDtype::kBf16});
  const auto before = tensors_of(base), after = tensors_of(dir / "out");
  ASSERT_EQ(before.size(), after.size());
  size_t carried = 0;
  for (const auto& [name, tensor] : before) {
    const bool vision = name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
    EXPECT_EQ(after.at(name) == tensor, vision) << name;
    EXPECT_EQ(after.at(name).first, vision ? TensorDtype::kF32 : TensorDtype::kBF16) << name;
    carried += vision;
  }
  EXPECT_GT(carried, 10u);
  EXPECT_THAT(read_file(dir / "out/config.json"), HasSubstr("\"dtype\": \"bfloat16\""));
}

TEST(Weights, TokenizerAndGenerationFilesComeFromTheBase) {
  const TempDir dir;
  fs::copy(kGolden / "gemma-1-mqa" / "model", dir / "base");
  dir.write("base/tokenizer.json", "{}\r\n");
  dir.write("base/generation_config.json", "{\"eos_token_id\": 1 }");
  exported(loaded(dir / "base"), dir / "base", dir / "out", {.dtype = ModelDtype::kFp32});
  EXPECT_EQ(read_file(dir / "out/tokenizer.json"), "{}\r\n");
  EXPECT_EQ(read_file(dir / "out/generation_config.json"), "{\"eos_token_id\": 1 }");
}

TEST(Weights, AFolderOfAnotherShapeIsRefused) {
  const TempDir dir;
  fs::copy(kGolden / "gemma-1-mha-bf16" / "model", dir.path(), fs::copy_options::recursive);
  fs::copy_file(kGolden / "gemma-1-mqa" / "model" / "config.json", dir / "config.json",
                fs::copy_options::overwrite_existing);
  try {
    load_gemma(dir.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("model.embed_tokens.weight: [96, 40], expected [96, 32]"));
    EXPECT_THAT(error.what(), HasSubstr("not known:\n    model.layers.2.input_layernorm.weight [40]"));
  }
}

TEST(Weights, EveryFailingCallOfAnExportIsReported) {
  const TempDir dir;
  const fs::path base = kGolden / "gemma-2-sharded" / "model";
  const Gemma model = loaded(base);
  const ExportOptions options{.dtype = ModelDtype::kFp32, .max_shard_bytes = 100'000};
  FailingFileSystem counting;
  exported(model, base, dir / "counted", options, counting);
  const auto calls = static_cast<int64_t>(counting.calls().size());
  ASSERT_GT(calls, 10);
  for (int64_t call = 0; call < calls; ++call) {
    FailingFileSystem failing({.call = call});
    EXPECT_THROW(exported(model, base, dir / "failed", options, failing), Error)
        << counting.journal()[static_cast<size_t>(call)];
  }
}

}  // namespace
}  // namespace gemma_sft
