#include "trainer/run_selftest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/trainer/case_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

SelftestResult replay(const fs::path& folder) { return run_selftest(read_selftest_case(folder), "cpu"); }

TEST(RunSelftest, EveryShippedCaseIsWithinItsTolerance) {
  for (const fs::path& folder : find_selftest_cases(kGoldenFolder)) {
    const SelftestResult result = replay(folder);
    EXPECT_TRUE(result.ok) << to_json(result);
    EXPECT_EQ(result.name, folder.filename().string());
    EXPECT_GT(result.logits_max_abs_err, 0) << "nothing was compared";
    EXPECT_GT(result.grad_max_rel_err, 0);
    EXPECT_FALSE(result.worst_grad.empty());
  }
}

// Each of the three numbers is as large as the reference is wrong.
TEST(RunSelftest, ErrorsAreTheDistancesFromTheReference) {
  const TempDir dir;
  CaseFiles files;
  const int64_t time = files.tensors["logits"].shape[1], vocabulary = files.tensors["logits"].shape[2];
  const int64_t length = files.tensors["lengths"].values<int64_t>()[1];
  ASSERT_LT(length, time);
  files.tensors["logits"].values<float>()[(time + length) * vocabulary] = 1e9;  // past the length
  EXPECT_TRUE(replay(files.write(dir)).ok);
  files.tensors["logits"].values<float>()[(time + length - 1) * vocabulary + 3] += 0.25;
  const SelftestResult logits = replay(files.write(dir));
  EXPECT_FALSE(logits.ok);
  EXPECT_NEAR(logits.logits_max_abs_err, 0.25, 1e-3);

  CaseFiles loss;
  loss.tensors["loss"].values<float>()[0] += 0.5;
  EXPECT_FALSE(replay(loss.write(dir)).ok);
  EXPECT_NEAR(replay(loss.write(dir)).loss_abs_err, 0.5, 1e-4);

  CaseFiles gradient;
  auto& tensor = gradient.tensors["grad.model.layers.1.mlp.up_proj.weight"];
  float most = 0;
  for (size_t i = 0; i < tensor.bytes.size() / 4; ++i) most = std::max(most, std::abs(tensor.values<float>()[i]));
  tensor.values<float>()[17] = 2 * most;  // what is there is at most `most` away from 0
  const double before = CaseFiles().tensors["grad.model.layers.1.mlp.up_proj.weight"].values<float>()[17];
  const SelftestResult moved = replay(gradient.write(dir));
  EXPECT_FALSE(moved.ok);
  EXPECT_NEAR(moved.grad_max_rel_err, (2 * most - before) / (2 * most), 1e-4);
  EXPECT_EQ(moved.worst_grad, "model.layers.1.mlp.up_proj.weight");
}

TEST(RunSelftest, AMaskThatMovesOneTokenMovesTheLoss) {
  const TempDir dir;
  CaseFiles files;
  uint8_t* mask = files.tensors["loss_mask"].values<uint8_t>();
  mask[5] ^= 1;
  const SelftestResult result = replay(files.write(dir));
  EXPECT_FALSE(result.ok);
  EXPECT_GT(result.loss_abs_err, 1e-3);
  EXPECT_LT(result.logits_max_abs_err, 1e-4);
}

TEST(RunSelftest, WhatIsNotANumberIsNeverOk) {
  const TempDir dir;
  for (const char* name : {"logits", "loss", "grad.model.embed_tokens.weight", "grad.model.norm.weight"}) {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      CaseFiles files;
      files.json = R"({"name": "x", "tolerances": {"logits_abs": 1e30, "loss_abs": 1e30, "grad_rel": 1e30}})";
      EXPECT_TRUE(replay(files.write(dir)).ok);
      files.tensors[name].values<float>()[0] = value;
      const SelftestResult result = replay(files.write(dir));
      EXPECT_FALSE(result.ok) << name << " " << value;
      EXPECT_NE(to_json(result).find("null"), std::string::npos) << to_json(result);
    }
  }
}

TEST(RunSelftest, AnInfiniteWeightIsNotOkAndDoesNotCrash) {
  const TempDir dir;
  CaseFiles files;
  fs::copy(files.model, dir / "model");
  const fs::path path = dir / "model" / "model.safetensors";
  ASSERT_TRUE(fs::exists(path)) << "this test changes a byte of a case's only weight file; its first case is sharded";
  std::string bytes = read_file(path);
  const SafetensorsFile file(path);
  const TensorInfo* norm = file.find("model.norm.weight");
  const uint64_t data = bytes.size() - file.tensors().back().end;
  bytes.replace(data + norm->begin, bytes_per_element(norm->dtype),
                std::string(bytes_per_element(norm->dtype), '\xff'));
  dir.write("model/model.safetensors", bytes);
  files.model = dir / "model";
  const SelftestResult result = replay(files.write(dir));
  EXPECT_FALSE(result.ok);
  EXPECT_TRUE(std::isnan(result.logits_max_abs_err));
}

TEST(RunSelftest, TheTiedHeadsGradientIsThatOfTheEmbedding) {
  const TempDir dir;
  CaseFiles files;
  files.tensors["grad.lm_head.weight"] = files.tensors["grad.model.embed_tokens.weight"];
  EXPECT_TRUE(replay(files.write(dir)).ok);
  files.tensors["grad.lm_head.weight"].values<float>()[0] += 1;
  const SelftestResult result = replay(files.write(dir));
  EXPECT_FALSE(result.ok);
  EXPECT_EQ(result.worst_grad, "lm_head.weight");
}

TEST(RunSelftest, TheJsonObjectHasItsSixMembers) {
  const nlohmann::json object = nlohmann::json::parse(
      to_json({.name = "a \"b\"", .logits_max_abs_err = 0.5, .loss_abs_err = 0.25, .worst_grad = "w", .ok = true}));
  EXPECT_EQ(object, (nlohmann::json{{"name", "a \"b\""},
                                    {"logits_max_abs_err", 0.5},
                                    {"loss_abs_err", 0.25},
                                    {"grad_max_rel_err", 0.0},
                                    {"worst_grad", "w"},
                                    {"ok", true}}));
}

}  // namespace
}  // namespace gemma_sft
