// The configuration files of the repository: each loads, and those of the production guide say what the guide says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <nlohmann/json.hpp>
#include <set>

#include "configs/choice_names.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kConfigs = fs::path(GEMMA_SFT_SOURCE_DIR) / "configs";

TEST(ShippedConfigs, EveryOneLoadsWithoutAWarning) {
  const ConfigFolder folder;
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(kConfigs)) {
    if (entry.path().extension() != ".yaml") continue;
    names.insert(entry.path().filename().string());
    SCOPED_TRACE(entry.path().string());
    const LoadedConfig loaded = folder.load_file(entry.path());
    EXPECT_TRUE(loaded.warnings.empty());
    EXPECT_EQ(folder.load(to_yaml(loaded.config)).config, loaded.config);
  }
  for (const std::string model : {"gemma_2b", "gemma_7b", "gemma_2_2b", "gemma_3_270m", "gemma_3_1b", "gemma_3_4b"}) {
    EXPECT_EQ(names.count(model + "_full.yaml"), 1u) << model;
    EXPECT_EQ(names.count(model + "_lora.yaml"), 1u) << model;
  }
  EXPECT_EQ(names.count("sft_tiny.yaml") + names.count("sft_production.yaml"), 2u);
}

TEST(ShippedConfigs, FullAndLoraAreWhatTheirNamesSay) {
  const ConfigFolder folder;
  int files = 0;
  for (const auto& entry : fs::directory_iterator(kConfigs)) {
    const std::string name = entry.path().filename().string();
    if (name.compare(0, 6, "gemma_") != 0) continue;
    ++files;
    const RunConfig config = folder.load_file(entry.path()).config;
    EXPECT_EQ(config.lora.rank > 0, name.find("_lora") != std::string::npos) << name;
    EXPECT_EQ(config.dataset.data_path, "data/train.jsonl") << name;
    EXPECT_EQ(config.model.base_model.compare(0, 13, "google/gemma-"), 0) << name;
  }
  EXPECT_EQ(files, 12);
}

TEST(ShippedConfigs, SftTinyIsThatOfTheGuide) {
  const ConfigFolder folder;
  const RunConfig config = folder.load_file(kConfigs / "sft_tiny.yaml").config;
  RunConfig expected;
  expected.dataset.manifest_path = "backend/datasets/test-v1/manifest.json";
  expected.dataset.format = DataFormat::kTrainingExample;
  expected.model.base_model = "google/gemma-2b-it";
  expected.training.num_epochs = 3;
  expected.training.batch_size = 4;
  expected.training.learning_rate = 2e-5;
  expected.training.warmup_steps = 100;
  expected.output.run_dir = "artifacts/training_runs";
  expected.output.checkpoint_every = 500;
  EXPECT_EQ(config, expected);
}

TEST(ShippedConfigs, SftProductionIsThatOfTheGuide) {
  const ConfigFolder folder;
  const RunConfig config = folder.load_file(kConfigs / "sft_production.yaml").config;
  RunConfig expected;
  expected.dataset.manifest_path = "backend/datasets/high_card_duel_prod-v1/manifest.json";
  expected.dataset.format = DataFormat::kTrainingExample;
  expected.model.base_model = "google/gemma-7b-it";
  expected.model.accelerator = "tpu-v3-8";
  expected.model.region = "us-central1";
  expected.training.num_epochs = 5;
  expected.training.batch_size = 16;
  expected.training.learning_rate = 1e-5;
  expected.training.warmup_ratio = 0.1;
  expected.tunix.present = true;
  expected.tunix.api_base_url = "https://api.tunix.ai/v1";
  expected.tunix.project_id = "tunix-rt-prod";
  expected.tunix.experiment_name = "high-card-duel-sft-v1";
  expected.output.run_dir = "gs://tunix-rt-artifacts/training_runs";
  expected.output.checkpoint_every = 1000;
  EXPECT_EQ(config, expected);
}

TEST(ShippedConfigs, TheManifestsTheyNameAreFoundFromAnyWorkingDirectory) {
  const ConfigFolder folder;
  const fs::path here = fs::current_path();
  fs::current_path(folder.path());
  for (const std::string name : {"sft_tiny.yaml", "sft_production.yaml"}) {
    const RunConfig config = folder.load_file(kConfigs / name).config;
    const auto found = find_configured_path(*config.dataset.manifest_path, kConfigs / name);
    ASSERT_TRUE(found) << name;
    const json manifest = json::parse(file_text(*found));
    const std::set<std::string> ids = manifest.at("trace_ids").get<std::set<std::string>>();
    EXPECT_EQ(ids.size(), manifest.at("trace_count").get<size_t>());
    EXPECT_EQ(manifest.at("trace_ids").size(), ids.size());
    EXPECT_EQ(fs::path(*config.dataset.manifest_path).parent_path().filename(),
              manifest.at("dataset_key").get<std::string>());
  }
  fs::current_path(here);
}

// RFC 4122: SHA-1 of the namespace's bytes and the name, with the version and the variant written over it.
std::string version_5_uuid(const std::string& name) {
  const unsigned char url_namespace[16] = {0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1,
                                           0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};
  std::string bytes(reinterpret_cast<const char*>(url_namespace), sizeof(url_namespace));
  bytes += name;
  unsigned char digest[EVP_MAX_MD_SIZE];
  EVP_Digest(bytes.data(), bytes.size(), digest, nullptr, EVP_sha1(), nullptr);
  digest[6] = static_cast<unsigned char>((digest[6] & 0x0f) | 0x50);
  digest[8] = static_cast<unsigned char>((digest[8] & 0x3f) | 0x80);
  std::string text;
  for (int i = 0; i < 16; ++i) {
    char hex[3];
    std::snprintf(hex, sizeof(hex), "%02x", digest[i]);
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += hex;
  }
  return text;
}

TEST(ShippedConfigs, TheExampleManifestIsMadeAsItSays) {
  // The value Python's uuid module gives: uuid.uuid5(uuid.NAMESPACE_URL, "high_card_duel_prod-v1/trace/0").
  ASSERT_EQ(version_5_uuid("high_card_duel_prod-v1/trace/0"), "26fb2d4d-4289-55d1-b9a1-0d36e541c761");
  const json manifest = json::parse(file_text(kConfigs / "backend/datasets/high_card_duel_prod-v1/manifest.json"));
  const json& ids = manifest.at("trace_ids");
  ASSERT_EQ(ids.size(), 1000u);
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_EQ(ids[i], version_5_uuid("high_card_duel_prod-v1/trace/" + std::to_string(i)));
  }
  EXPECT_EQ(manifest.at("build_id"), version_5_uuid("high_card_duel_prod-v1/build"));
}

}  // namespace
}  // namespace gemma_sft
