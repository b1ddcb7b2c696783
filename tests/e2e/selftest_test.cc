// `gemma-sft selftest` as a user runs it: from the build tree, where the shipped cases are found by a link.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/files/file_system.h"
#include "tests/e2e/process.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

const fs::path kCases = fs::path(GEMMA_SFT_BIN_DIR).parent_path() / "share/gemma-sft/selftest";

std::vector<fs::path> cases() {
  std::vector<fs::path> folders;
  for (const fs::directory_entry& entry : fs::directory_iterator(kCases)) {
    if (fs::exists(entry.path() / "expected.safetensors")) folders.push_back(entry.path());
  }
  return folders;
}

// A case with its own case.json and the other parts of the first one.
fs::path make_case(const TempDir& dir, const std::string& name, const std::string& tolerances) {
  fs::create_directories(dir / name);
  const fs::path from = fs::canonical(cases().front());
  fs::create_directory_symlink(from / "model", dir / name / "model");
  fs::create_symlink(from / "expected.safetensors", dir / name / "expected.safetensors");
  dir.write(name + "/case.json", R"({"name": "mine", "tolerances": )" + tolerances + "}");
  return dir / name;
}

TEST(Selftest, TheShippedCasesPassOnThisMachine) {
  const ProcessResult result = gemma_sft_run({"selftest", "--json", "--device", "cpu"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(result.out);
  EXPECT_EQ(document["ok"], true);
  EXPECT_EQ(document["cases"].size(), cases().size());
  EXPECT_GE(cases().size(), 5u);
  for (const json& one : document["cases"]) EXPECT_EQ(one["ok"], true) << one;

  const ProcessResult text = gemma_sft_run({"selftest"});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_THAT(text.out, HasSubstr("✅ All " + std::to_string(cases().size()) + " cases within tolerance\n"));
}

TEST(Selftest, ACaseOfOnesOwnIsOneJsonObjectAndItsTolerancesDecide) {
  const TempDir dir;
  const fs::path good = make_case(dir, "good", R"({"logits_abs": 1e-3, "loss_abs": 1e-3, "grad_rel": 1e-3})");
  const ProcessResult passes = gemma_sft_run({"selftest", "--case", good.string(), "--json"});
  ASSERT_EQ(passes.exit_code, 0) << passes.err;
  const json document = json::parse(passes.out);
  EXPECT_EQ(document.size(), 6u);
  EXPECT_EQ(document["name"], "mine");
  EXPECT_EQ(document["ok"], true);

  for (const char* tight : {R"({"logits_abs": 0, "loss_abs": 1e-3, "grad_rel": 1e-3})",
                            R"({"logits_abs": 1e-3, "loss_abs": 1e-3, "grad_rel": 0})"}) {
    fs::remove_all(dir / "tight");
    const fs::path folder = make_case(dir, "tight", tight);
    const ProcessResult fails = gemma_sft_run({"selftest", "--case", folder.string(), "--json"});
    EXPECT_EQ(fails.exit_code, 15) << tight;
    EXPECT_EQ(json::parse(fails.out)["ok"], false);
    EXPECT_THAT(fails.err, HasSubstr("error: beyond the tolerance: mine: logits"));
    const ProcessResult text = gemma_sft_run({"selftest", "--case", folder.string()});
    EXPECT_EQ(text.exit_code, 15);
    EXPECT_EQ(text.out, "");
  }
}

TEST(Selftest, WhatIsWrongWithACaseIsToldWithoutLibTorch) {
  const TempDir dir;
  const fs::path bad = make_case(dir, "bad", R"({"logits_abs": -1, "loss_abs": 1e-3, "grad_rel": 1e-3})");
  const ProcessResult negative = gemma_sft_run({"selftest", "--case", bad.string(), "--json"});
  EXPECT_EQ(negative.exit_code, 3);
  EXPECT_EQ(json::parse(negative.out)["error"]["kind"], "data");
  EXPECT_THAT(negative.err, HasSubstr("tolerances.logits_abs"));
  EXPECT_LT(negative.seconds, 0.25);
  EXPECT_EQ(gemma_sft_run({"selftest", "--case", (dir / "gone").string()}).exit_code, 3);
  fs::remove(dir / "bad/model");
  EXPECT_EQ(gemma_sft_run({"selftest", "--case", bad.string()}).exit_code, 3);  // case.json comes first
  const fs::path empty = make_case(dir, "empty", R"({"logits_abs": 1, "loss_abs": 1, "grad_rel": 1})");
  fs::remove(empty / "model");
  EXPECT_EQ(gemma_sft_run({"selftest", "--case", empty.string()}).exit_code, 12);
}

TEST(Selftest, TheScriptIsPrintedAsItIs) {
  const ProcessResult script = gemma_sft_run({"selftest", "--make-script"});
  EXPECT_EQ(script.exit_code, 0);
  EXPECT_EQ(script.out, read_file(fs::path(GEMMA_SFT_SOURCE_DIR) / "trainer/cli/make_selftest_case.py"));
  EXPECT_EQ(gemma_sft_run({"selftest", "--make-script", "--json"}).exit_code, 2);
  EXPECT_EQ(gemma_sft_run({"selftest", "--make-script", "--case", "x"}).exit_code, 2);
}

}  // namespace
}  // namespace gemma_sft
