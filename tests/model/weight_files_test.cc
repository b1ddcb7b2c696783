#include "model/weight_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

GemmaConfig tiny() {
  GemmaConfig config = *find_preset("tiny-gemma-1");
  config.vocab_size = 6;
  config.hidden_size = 4;
  config.intermediate_size = 8;
  config.num_layers = 1;
  config.layer_kinds = {LayerKind::kGlobal};
  config.num_heads = 2;
  config.head_dim = 2;
  return config;
}

// A tensor whose bytes tell its name and place apart from all others.
struct FileTensor {
  std::string name;
  std::vector<int64_t> shape;
  TensorDtype dtype = TensorDtype::kF32;
  uint8_t fill = 1;
};

TensorSource source(const FileTensor& tensor) {
  uint64_t bytes = bytes_per_element(tensor.dtype);
  for (const int64_t extent : tensor.shape) bytes *= static_cast<uint64_t>(extent);
  auto content = std::make_shared<std::vector<uint8_t>>(bytes, tensor.fill);
  return {tensor.name, tensor.dtype, tensor.shape, [content] { return static_cast<const void*>(content->data()); }};
}

void write(const fs::path& path, const std::vector<FileTensor>& tensors) {
  std::vector<TensorSource> sources;
  for (const FileTensor& tensor : tensors) sources.push_back(source(tensor));
  write_safetensors(real_file_system(), path, sources);
}

std::vector<FileTensor> all_tensors(const GemmaConfig& config, const std::string& prefix = "model.") {
  std::vector<FileTensor> tensors;
  for (const NamedShape& tensor : text_tensors(config)) {
    tensors.push_back(
        {prefix + tensor.name.substr(6), tensor.shape, TensorDtype::kF32, static_cast<uint8_t>(tensors.size())});
  }
  return tensors;
}

std::string error_of(const fs::path& folder, const GemmaConfig& config) {
  try {
    WeightFiles files(folder, config);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    return error.what();
  }
  return "";
}

class WeightFilesTest : public ::testing::Test {
 protected:
  std::string folder_name() const { return dir_.path().string(); }
  TempDir dir_;
};

TEST_F(WeightFilesTest, NamesAndShapesOfTheThreeFamilies) {
  const auto names = [](const GemmaConfig& config) {
    std::vector<std::string> layer;
    for (const NamedShape& tensor : text_tensors(config)) {
      if (tensor.name.starts_with("model.layers.0.")) layer.push_back(tensor.name.substr(15));
    }
    return layer;
  };
  EXPECT_THAT(names(tiny()),
              ElementsAre("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
                          "self_attn.o_proj.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight",
                          "mlp.down_proj.weight", "input_layernorm.weight", "post_attention_layernorm.weight"));
  EXPECT_EQ(names(*find_preset("tiny-gemma-2")).size(), 11u);
  EXPECT_EQ(names(*find_preset("tiny-gemma-3")).size(), 13u);
  for (const std::string& preset : preset_names()) {  // the two descriptions of a model agree
    const GemmaConfig config = *find_preset(preset);
    int64_t elements = 0;
    for (const NamedShape& tensor : text_tensors(config)) {
      int64_t product = 1;
      for (const int64_t extent : tensor.shape) product *= extent;
      elements += product;
    }
    EXPECT_EQ(elements, config.parameter_count()) << preset;
  }
}

TEST_F(WeightFilesTest, EveryTensorThatIsMissingExtraOrMisshapenIsNamedInOneError) {
  std::vector<FileTensor> tensors = all_tensors(tiny());
  tensors[0].shape = {5, 4};
  tensors[1].dtype = TensorDtype::kI8;
  tensors.erase(tensors.begin() + 2);
  tensors.back().name = "model.norm.bias";
  tensors.push_back({"vision_tower.x", {1}});
  write(dir_ / "model.safetensors", tensors);
  EXPECT_EQ(error_of(dir_.path(), tiny()),
            folder_name() +
                ": the weights are not those of the model that config.json describes:\n"
                "  missing:\n    model.layers.0.self_attn.k_proj.weight\n    model.norm.weight\n"
                "  not usable:\n    model.embed_tokens.weight: [5, 4], expected [6, 4]\n"
                "    model.layers.0.self_attn.q_proj.weight: dtype I8, expected BF16, F16 or F32\n"
                "  not known:\n    model.norm.bias [4]\n    vision_tower.x [1]");
}

TEST_F(WeightFilesTest, AHeadThatEqualsTheEmbeddingIsAcceptedAndAnotherIsNot) {
  std::vector<FileTensor> tensors = all_tensors(tiny());
  tensors.push_back({"lm_head.weight", {6, 4}, TensorDtype::kF32, tensors[0].fill});
  write(dir_ / "model.safetensors", tensors);
  EXPECT_EQ(error_of(dir_.path(), tiny()), "");
  tensors.back().fill = 77;
  write(dir_ / "model.safetensors", tensors);
  EXPECT_THAT(
      error_of(dir_.path(), tiny()),
      HasSubstr("\n    lm_head.weight: differs from model.embed_tokens.weight; an untied head is not supported"));
}

TEST_F(WeightFilesTest, ImageTextNamesAreMappedAndVisionTensorsCarried) {
  GemmaConfig config = tiny();
  config.image_text = true;
  for (const std::string prefix : {"language_model.model.", "model.language_model."}) {
    std::vector<FileTensor> tensors = all_tensors(config, prefix);
    tensors.push_back({"vision_tower.encoder.weight", {2, 3}, TensorDtype::kBF16});
    tensors.push_back({"multi_modal_projector.weight", {3}, TensorDtype::kI64});
    write(dir_ / "model.safetensors", tensors);
    const WeightFiles files(dir_.path(), config);
    EXPECT_EQ(files.name_in_files("model.norm.weight"), prefix + "norm.weight");
    EXPECT_EQ(files.text("model.norm.weight").info->name, prefix + "norm.weight");
    ASSERT_EQ(files.carried().size(), 2u);
    EXPECT_EQ(files.carried()[0].info->name, "vision_tower.encoder.weight");
  }
}

TEST_F(WeightFilesTest, AConfigOfTheOtherKindThanTheTensorsIsSaidPlainly) {
  GemmaConfig image_text = tiny();
  image_text.image_text = true;
  write(dir_ / "model.safetensors", all_tensors(tiny()));
  EXPECT_THAT(error_of(dir_.path(), image_text), HasSubstr("a text-only model has model_type \"gemma3_text\""));
  write(dir_ / "model.safetensors", all_tensors(tiny(), "language_model.model."));
  EXPECT_THAT(error_of(dir_.path(), tiny()), HasSubstr("expected model_type \"gemma3\" with a text_config"));
}

TEST_F(WeightFilesTest, AbsentFilesAreNamed) {
  EXPECT_EQ(error_of(dir_.path(), tiny()),
            folder_name() + ": neither model.safetensors nor model.safetensors.index.json is there");
  dir_.write("pytorch_model.bin", "x");
  EXPECT_THAT(error_of(dir_.path(), tiny()), HasSubstr("pytorch_model.bin files are pickles"));
  EXPECT_THAT(error_of(dir_ / "absent", tiny()), HasSubstr("absent: not found"));
  dir_.write("model.safetensors.index.json", R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  EXPECT_EQ(error_of(dir_.path(), tiny()), folder_name() +
                                               ": model.safetensors.index.json names files that are not there:\n"
                                               "  one.safetensors\n  two.safetensors");
}

TEST_F(WeightFilesTest, AShardNameThatLeadsOutOfTheFolderIsRefused) {
  for (const std::string name : {"../model.safetensors", "/etc/passwd", "a/b", "", "..", ".", "a\\\\b", "a\\u0000b"}) {
    dir_.write("model.safetensors.index.json", R"({"weight_map": {"a": ")" + name + R"("}})");
    EXPECT_THAT(error_of(dir_.path(), tiny()), HasSubstr("expected the name of a file in the same folder")) << name;
  }
}

TEST_F(WeightFilesTest, ABrokenIndexIsRefused) {
  const fs::path index = dir_ / "model.safetensors.index.json";
  for (const std::string text :
       {"", "[]", "{}", R"({"weight_map": {}})", R"({"weight_map": []})", R"({"weight_map": {"a": 1}})"}) {
    dir_.write("model.safetensors.index.json", text);
    EXPECT_THAT(error_of(dir_.path(), tiny()), HasSubstr(index.string())) << text;
  }
}

TEST_F(WeightFilesTest, IndexAndFilesMustAgree) {
  write(dir_ / "one.safetensors", {{"a", {1}}, {"extra", {1}}, {"moved", {1}}});
  write(dir_ / "two.safetensors", {{"b", {1}}});
  dir_.write(
      "model.safetensors.index.json",
      R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors", "moved": "two.safetensors"}})");
  EXPECT_EQ(error_of(dir_.path(), tiny()), (dir_ / "model.safetensors.index.json").string() +
                                               ": index and files disagree:\n"
                                               "  \"extra\" is in one.safetensors and not in the index\n"
                                               "  \"moved\" is in one.safetensors, the index says two.safetensors\n"
                                               "  \"c\" is not in two.safetensors");
}

TEST_F(WeightFilesTest, ShardsMayBeLinksAsInTheHubsCache) {
  const fs::path model = dir_ / "models--google--gemma-3-1b";
  const fs::path snapshot = model / "snapshots/0123";
  fs::create_directories(model / "blobs");
  fs::create_directories(snapshot);
  write(model / "blobs/abc", all_tensors(tiny()));
  fs::create_symlink("../../blobs/abc", snapshot / "model.safetensors");
  EXPECT_EQ(error_of(snapshot, tiny()), "");
}

TEST_F(WeightFilesTest, LinksOutOfTheFolderAreRefused) {
  fs::create_directory(dir_ / "model");
  write(dir_ / "elsewhere.safetensors", all_tensors(tiny()));
  fs::create_symlink("../elsewhere.safetensors", dir_ / "model/model.safetensors");
  EXPECT_THAT(error_of(dir_ / "model", tiny()), HasSubstr("outside the folder, and is not followed"));
  fs::rename(dir_ / "model/model.safetensors", dir_ / "model/shard.safetensors");
  dir_.write("model/model.safetensors.index.json", R"({"weight_map": {"a": "shard.safetensors"}})");
  EXPECT_THAT(error_of(dir_ / "model", tiny()), HasSubstr("outside the folder, and is not followed"));
}

TEST_F(WeightFilesTest, TheDtypeOfAFolderIsThatOfMostOfItsNumbers) {
  std::vector<FileTensor> tensors = all_tensors(tiny());
  tensors[0].dtype = TensorDtype::kBF16;  // 24 of 164 numbers
  write(dir_ / "model.safetensors", tensors);
  EXPECT_EQ(files_dtype(dir_.path()), ModelDtype::kFp32);
  for (FileTensor& tensor : tensors) {
    if (tensor.shape.size() == 2) tensor.dtype = TensorDtype::kBF16;  // norms stay fp32
  }
  write(dir_ / "model.safetensors", tensors);
  EXPECT_EQ(files_dtype(dir_.path()), ModelDtype::kBf16);
  EXPECT_EQ(WeightFiles(dir_.path(), tiny()).dtype(), ModelDtype::kBf16);
  for (FileTensor& tensor : tensors) tensor.dtype = TensorDtype::kF16;
  write(dir_ / "model.safetensors", tensors);
  EXPECT_EQ(files_dtype(dir_.path()), ModelDtype::kFp16);
}

TEST_F(WeightFilesTest, PartsOfATensorCanBeReadAndNothingBeyond) {
  write(dir_ / "model.safetensors", all_tensors(tiny()));
  const WeightFiles files(dir_.path(), tiny());
  const WeightFiles::Tensor tensor = files.text("model.layers.0.self_attn.q_proj.weight");
  std::vector<uint8_t> bytes(8, 99);
  tensor.read(56, 8, bytes.data());
  EXPECT_EQ(bytes, std::vector<uint8_t>(8, 1));
  EXPECT_THROW(tensor.read(57, 8, bytes.data()), Error);
  EXPECT_THROW(tensor.read(UINT64_MAX, 2, bytes.data()), Error);
}

TEST_F(WeightFilesTest, ShardsStayBelowTheLimitAndKeepTheOrder) {
  std::vector<FileTensor> tensors = all_tensors(tiny());
  std::vector<TensorSource> sources;
  for (const FileTensor& tensor : tensors) sources.push_back(source(tensor));
  const auto digests = write_weight_files(real_file_system(), dir_.path(), sources, 600);
  EXPECT_FALSE(fs::exists(dir_ / "model.safetensors"));
  EXPECT_TRUE(digests.contains("model.safetensors.index.json"));
  EXPECT_GT(digests.size(), 3u);
  uint64_t total = 0;
  for (const auto& [name, digest] : digests) {
    EXPECT_EQ(sha256_file(dir_ / name), digest);
    if (!name.ends_with(".safetensors")) continue;
    const SafetensorsFile file(dir_ / name);
    EXPECT_THAT(name, ::testing::MatchesRegex("model-0000[0-9]-of-0000[0-9].safetensors"));
    EXPECT_TRUE(file.tensors().size() == 1 || fs::file_size(dir_ / name) <= 600) << name;
    for (const TensorInfo& info : file.tensors()) total += info.bytes();
  }
  EXPECT_THAT(read_file(dir_ / "model.safetensors.index.json"), HasSubstr("\"total_size\": " + std::to_string(total)));
  EXPECT_EQ(error_of(dir_.path(), tiny()), "");
  EXPECT_EQ(WeightFiles(dir_.path(), tiny()).text("model.norm.weight").info->bytes(), 16u);
}

}  // namespace
}  // namespace gemma_sft
