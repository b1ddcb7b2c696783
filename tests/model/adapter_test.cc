// PEFT folders out of a Gemma and in again, and merged exports.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/sha256.h"
#include "model/weights.h"
#include "tests/model/tiny_models.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const fs::path kGolden = fs::path(GEMMA_SFT_SOURCE_DIR) / "tests" / "golden";

// The model of a golden case with an adapter whose B is not zero.
Gemma adapted(const std::string& name, const std::vector<std::string>& targets, uint64_t seed, int64_t rank = 3) {
  const fs::path base = kGolden / name / "model";
  Gemma model = load_gemma(base);
  model.add_lora({.rank = rank, .alpha = 6, .dropout = 0, .rslora = false, .target_modules = targets}, seed);
  at::NoGradGuard no_grad;
  for (const Parameter& parameter : model.lora_parameters()) {
    if (parameter.name.ends_with("lora_B.weight")) parameter.tensor.detach().fill_(0.01 * static_cast<double>(seed));
  }
  return model;
}

std::string error_of(Gemma& model, const fs::path& folder) {
  try {
    load_adapter(model, folder);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModel);
    return error.what();
  }
  return "";
}

TEST(Adapter, SavedAndLoadedIsTheSame) {
  const TempDir dir;
  const Gemma model = adapted("gemma-2-sharded", {"q_proj", "down_proj"}, 3);
  const auto digests = export_adapter(model, {"google/gemma-2-2b"}, dir.path(), real_file_system());
  EXPECT_EQ(digests.at("adapter_model.safetensors"), sha256_file(dir / "adapter_model.safetensors"));
  EXPECT_EQ(digests.at("adapter_config.json"), sha256_file(dir / "adapter_config.json"));
  EXPECT_EQ(digests.size(), 2u);
  const LoraOptions options = load_adapter_config(dir.path());
  EXPECT_THAT(options.target_modules, ElementsAre("down_proj", "q_proj"));
  EXPECT_EQ(options.rank, 3);
  EXPECT_EQ(options.alpha, 6);
  Gemma again = adapted("gemma-2-sharded", options.target_modules, 4);
  load_adapter(again, dir.path());
  ASSERT_EQ(again.lora_parameters().size(), model.lora_parameters().size());
  for (size_t i = 0; i < model.lora_parameters().size(); ++i) {
    EXPECT_TRUE(same_bits(again.lora_parameters()[i].tensor, model.lora_parameters()[i].tensor));
  }
}

TEST(Adapter, NamesAndShapesAreThoseOfPeft) {
  const TempDir dir;
  export_adapter(adapted("gemma-1-mqa", {"k_proj"}, 1), {}, dir.path(), real_file_system());
  const SafetensorsFile file(dir / "adapter_model.safetensors");
  ASSERT_EQ(file.tensors().size(), 4u);
  const TensorInfo* a = file.find("base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight");
  const TensorInfo* b = file.find("base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  EXPECT_THAT(a->shape, ElementsAre(3, 32));
  EXPECT_THAT(b->shape, ElementsAre(8, 3));
  EXPECT_EQ(a->dtype, TensorDtype::kF32);
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

TEST(Adapter, LayersThatAreAdaptedOnlyInPartAreNamedByTheirWholePath) {
  const TempDir dir;
  export_adapter(adapted("gemma-1-mqa", {"model.layers.1.mlp.*_proj", "q_proj"}, 1), {}, dir.path(),
                 real_file_system());
  EXPECT_THAT(load_adapter_config(dir.path()).target_modules,
              ElementsAre("model.layers.1.mlp.down_proj", "model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj",
                          "q_proj"));
}

TEST(Adapter, OfAnImageTextModelNamesTheLanguageModelsLayersOnly) {
  const TempDir dir;
  const Gemma model = adapted("gemma-3-image-text", {"q_proj"}, 2);
  export_adapter(model, {}, dir.path(), real_file_system());
  const SafetensorsFile file(dir / "adapter_model.safetensors");
  EXPECT_NE(file.find("base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"), nullptr);
  EXPECT_THAT(read_file(dir / "adapter_config.json"), HasSubstr("\"model.language_model.layers.5.self_attn.q_proj\""));
  Gemma again = adapted("gemma-3-image-text", load_adapter_config(dir.path()).target_modules, 5);
  load_adapter(again, dir.path());
  EXPECT_TRUE(same_bits(again.lora_parameters()[7].tensor, model.lora_parameters()[7].tensor));
}

TEST(Adapter, OneThatDoesNotFitIsRefusedWithEveryName) {
  const TempDir dir;
  export_adapter(adapted("gemma-1-mqa", {"model.layers.0.mlp.up_proj", "model.layers.1.self_attn.v_proj"}, 1), {},
                 dir.path(), real_file_system());
  Gemma other = adapted("gemma-1-mqa", {"model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"}, 1, 2);
  EXPECT_EQ(error_of(other, dir.path()),
            (dir / "adapter_model.safetensors").string() +
                ": the adapter does not fit the model and its LoRA layers:\n"
                "  base_model.model.model.layers.0.mlp.up_proj.lora_A.weight: [3, 32], expected [2, 32]\n"
                "  base_model.model.model.layers.0.mlp.up_proj.lora_B.weight: [80, 3], expected [80, 2]\n"
                "  missing: base_model.model.model.layers.0.mlp.down_proj.lora_A.weight\n"
                "  missing: base_model.model.model.layers.0.mlp.down_proj.lora_B.weight\n"
                "  not known: base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight\n"
                "  not known: base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight");
  EXPECT_THAT(error_of(other, dir / "absent"), HasSubstr("adapter_model.safetensors: not found"));
  dir.write("pickle/adapter_model.bin", "\x80\x02}q");
  EXPECT_THAT(error_of(other, dir / "pickle"), HasSubstr("of adapter_model.bin: this is a pickle"));
}

TEST(Adapter, AMergedExportIsBasePlusScaledProductAndLeavesTheRestAlone) {
  const TempDir dir;
  const std::string name = "gemma-1-mqa";
  const Gemma model = adapted(name, {"up_proj"}, 2);
  for (const char* folder : {"merged", "base"}) {
    fs::create_directory(dir / folder);
    export_model(model, kGolden / name / "model", dir / folder, real_file_system(),
                 {.dtype = ModelDtype::kFp32, .merge_lora = std::string(folder) == "merged"});
  }
  const Gemma merged = load_gemma(dir / "merged"), plain = load_gemma(dir / "base"),
              before = load_gemma(kGolden / name / "model");
  const std::vector<Parameter> lora = model.lora_parameters();
  size_t changed = 0;
  for (size_t i = 0; i < before.base_parameters().size(); ++i) {
    const Parameter parameter = before.base_parameters()[i];
    EXPECT_TRUE(same_bits(plain.base_parameters()[i].tensor, parameter.tensor));
    at::Tensor expected = parameter.tensor.detach();
    if (parameter.name.ends_with("up_proj.weight")) {
      // scale = alpha / rank = 2
      expected = expected.to(at::kDouble)
                     .add(at::mm(lora[2 * changed + 1].tensor.detach().to(at::kDouble),
                                 lora[2 * changed].tensor.detach().to(at::kDouble)),
                          2.0);
      ++changed;
      EXPECT_GT(largest_difference(merged.base_parameters()[i].tensor, parameter.tensor), 1e-3);
    }
    EXPECT_LT(largest_difference(merged.base_parameters()[i].tensor.detach().to(at::kDouble), expected.to(at::kDouble)),
              1e-7);
  }
  EXPECT_EQ(changed, 2u);
}

}  // namespace
}  // namespace gemma_sft
