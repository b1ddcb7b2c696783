#include "data/records/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

const std::string kFixtures = GEMMA_SFT_SOURCE_DIR "/tests/data/fixtures/traces/";

std::string replaced(std::string text, const std::string& old_part, const std::string& new_part) {
  const size_t at = text.find(old_part);
  EXPECT_NE(at, std::string::npos) << old_part;
  return text.replace(at, old_part.size(), new_part);
}

class ManifestTest : public ::testing::Test {
 protected:
  std::string error_of(const std::string& text) {
    const std::filesystem::path path = dir_.write("set-v1/manifest.json", text);
    try {
      load_manifest(path, "set-v1/manifest.json");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      return error.what();
    }
    return "";
  }

  // The problems, one per line and without the path; "" when the manifest is fine.
  std::string problems_of(const std::string& text) {
    std::string message = error_of(text);
    if (message.empty()) return "";
    const std::string prefix = (dir_ / "set-v1/manifest.json").string() + ":";
    std::string problems;
    for (size_t at = 0; (at = message.find(prefix, at)) != std::string::npos;) {
      at += prefix.size();
      problems += message.substr(at, message.find('\n', at) - at) + "\n";
    }
    if (!problems.empty()) problems.pop_back();
    return problems;
  }

  std::vector<std::string> warnings_of(const std::string& text) {
    const std::filesystem::path path = dir_.write("set-v1/manifest.json", text);
    std::vector<std::string> warnings = load_manifest(path, "x").warnings;
    for (std::string& warning : warnings) {
      EXPECT_THAT(warning, StartsWith(path.string() + ":"));
      warning.erase(0, path.string().size() + 1);
    }
    return warnings;
  }

  // Loads as it is, without a warning; ten lines, so that places are easy to count.
  const std::string good_ =
      "{\n"
      "  \"dataset_key\": \"set-v1\",\n"
      "  \"build_id\": \"ba6236b4-f07d-4cbd-b412-3883a0ee8131\",\n"
      "  \"dataset_name\": \"set\", \"dataset_version\": \"v1\",\n"
      "  \"created_at\": \"2026-01-08T19:30:18.504921Z\",\n"
      "  \"selection_strategy\": \"latest\", \"seed\": null,\n"
      "  \"trace_ids\": [\"66913232-90d4-4868-afa1-eae0082c3eec\", \"9e367d09-3c7f-4169-be15-a55506e85da6\"],\n"
      "  \"trace_count\": 2,\n"
      "  \"stats\": {\"trace_count\": 2}\n"
      "}\n";
  TempDir dir_;
};

TEST_F(ManifestTest, TheRealOnesLoad) {
  const Manifest test = load_manifest(kFixtures + "test-v1/manifest.json", "x");
  EXPECT_EQ(test.dataset_key, "test-v1");
  EXPECT_EQ(test.trace_count, 3);
  EXPECT_THAT(test.trace_ids,
              ElementsAre("66913232-90d4-4868-afa1-eae0082c3eec", "9e367d09-3c7f-4169-be15-a55506e85da6",
                          "fe8c9a4f-baab-4f4d-817a-930cf1aa9434"));
  EXPECT_THAT(test.warnings, IsEmpty());

  const std::string path = kFixtures + "dev-reasoning-v2/manifest.json";
  const Manifest dev = load_manifest(path, "x");
  EXPECT_EQ(dev.dataset_key, "dev-reasoning-v2");
  EXPECT_EQ(dev.trace_count, 550);
  EXPECT_THAT(dev.trace_ids, IsEmpty());
  EXPECT_EQ(dev.path, path);
  EXPECT_THAT(dev.warnings, ElementsAre(path + ":3:15: build_id: \"dev-reasoning-v2-static\" is not a UUID",
                                        path + ":11:25: selection_strategy: \"static\" is neither latest nor random",
                                        path + ":13:16: trace_ids: empty; the rows can only come from a file"));
}

TEST_F(ManifestTest, AnAbsentOneIsNotFoundWithTheRequestThatBuildsIt) {
  const auto message_of = [](const std::string& path) {
    try {
      load_manifest("/nowhere/" + path, path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message_of("backend/datasets/test-v1/manifest.json"),
            "Manifest not found: backend/datasets/test-v1/manifest.json; build the data set: POST /api/datasets/build "
            "{\"dataset_name\":\"test\",\"dataset_version\":\"v1\",\"limit\":10}\n"
            "  curl -X POST http://localhost:8000/api/datasets/build -H 'Content-Type: application/json' -d "
            "'{\"dataset_name\":\"test\",\"dataset_version\":\"v1\",\"limit\":10}'\n"
            "or correct dataset.manifest_path");
  EXPECT_THAT(message_of("backend/datasets/high_card_duel_prod-v1/manifest.json"),
              HasSubstr("{\"dataset_name\":\"high_card_duel_prod\",\"dataset_version\":\"v1\",\"limit\":10}"));
  EXPECT_THAT(message_of("x'; rm -rf y-v1/manifest.json"),
              HasSubstr("{\"dataset_name\":\"test\",\"dataset_version\":\"v1\""));
}

TEST_F(ManifestTest, AFileOfRowsIsToldApart) {
  EXPECT_THAT(error_of("{\"prompt\":\"a\",\"response\":\"b\"}\n{\"prompt\":\"c\",\"response\":\"d\"}\n"),
              HasSubstr("is a file of rows, one JSON object a line, and no manifest; name it as dataset.data_path"));
  EXPECT_THAT(error_of("{\"prompt\":\"a\"}\n[]\n"), Not(HasSubstr("is a file of rows")));
}

TEST_F(ManifestTest, TheExampleOfThisTestIsGood) { EXPECT_THAT(warnings_of(good_), IsEmpty()); }

TEST_F(ManifestTest, EveryRequiredFieldIsRequired) {
  for (const char* field : {"dataset_key", "build_id", "dataset_name", "dataset_version", "created_at",
                            "selection_strategy", "trace_ids", "trace_count"}) {
    const std::string other = std::string("x_") + field;
    EXPECT_EQ(problems_of(replaced(good_, field, other)),
              std::string("1:1: ") + field + ": expected in every manifest, found no such field");
  }
}

TEST_F(ManifestTest, WrongTypesAreNamedWithTheirPlace) {
  const struct {
    std::string old_part;
    std::string new_part;
    std::string problem;
  } cases[] = {
      {"\"set-v1\"", "7", "2:18: dataset_key: expected a non-empty string, found the number 7"},
      {"\"set-v1\"", "\"\"", "2:18: dataset_key: expected a non-empty string, found an empty string"},
      {"\"set-v1\"", "null", "2:18: dataset_key: expected a non-empty string, found null"},
      {"\"ba6236b4-f07d-4cbd-b412-3883a0ee8131\"", "{}",
       "3:15: build_id: expected a non-empty string, found an empty object"},
      {"\"v1\"", "1", "4:45: dataset_version: expected a non-empty string, found the number 1"},
      {"null", "1.5", "6:43: seed: expected a whole number or null, found the number 1.5"},
      {"null", "\"42\"", "6:43: seed: expected a whole number or null, found the string \"42\""},
      {": 2,", ": \"2\",", "8:18: trace_count: expected a whole number from 0 on, found the string \"2\""},
      {": 2,", ": -2,", "8:18: trace_count: expected a whole number from 0 on, found the number -2"},
      {": 2,", ": 2.0,", "8:18: trace_count: expected a whole number from 0 on, found the number 2.0"},
      {"{\"trace_count\": 2}", "[]", "9:12: stats: expected an object, found an empty array"},
      {"{\"trace_count\": 2}", "{\"trace_count\": true}",
       "9:28: stats.trace_count: expected a whole number from 0 on, found true"},
      {"\"stats\"", "\"filters\": 1, \"stats\"", "9:14: filters: expected an object, found the number 1"},
      {"\"stats\"", "\"provenance\": [1], \"stats\"", "9:17: provenance: expected an object, found an array"},
      {"\"stats\"", "\"session_id\": 1, \"stats\"", "9:17: session_id: expected a string or null, found the number 1"},
      {"[\"66913232-90d4-4868-afa1-eae0082c3eec\", \"9e367d09-3c7f-4169-be15-a55506e85da6\"]", "{}",
       "7:16: trace_ids: expected an array of strings, found an empty object"},
      {"\"9e367d09-3c7f-4169-be15-a55506e85da6\"", "5",
       "7:57: trace_ids[1]: expected a non-empty string, found the number 5"},
  };
  for (const auto& c : cases) EXPECT_EQ(problems_of(replaced(good_, c.old_part, c.new_part)), c.problem);
}

TEST_F(ManifestTest, CountsThatContradictAndDuplicateIdsAreErrors) {
  EXPECT_EQ(problems_of(replaced(good_, ": 2,", ": 3,")),
            "8:18: trace_count: expected 2, the number of trace_ids, found 3");  // and stats.trace_count is right
  EXPECT_EQ(problems_of(replaced(good_, ": 2}", ": 5}")),
            "9:28: stats.trace_count: expected 2, as trace_count says, found 5");
  EXPECT_EQ(
      problems_of(replaced(good_, "9e367d09-3c7f-4169-be15-a55506e85da6", "66913232-90d4-4868-afa1-eae0082c3eec")),
      "7:57: trace_ids[1]: expected each id once, found \"66913232-90d4-4868-afa1-eae0082c3eec\" again");
}

TEST_F(ManifestTest, AllProblemsAreReportedAtOnceInTheirOrderWithTheRemedy) {
  std::string text = replaced(good_, "\"set-v1\"", "1");
  text = replaced(text, "null", "[]");
  text = replaced(text, "\"latest\"", "2");
  EXPECT_EQ(problems_of(text),
            "2:18: dataset_key: expected a non-empty string, found the number 1\n"
            "6:25: selection_strategy: expected a non-empty string, found the number 2\n"
            "6:36: seed: expected a whole number or null, found an empty array");
  EXPECT_THAT(error_of(text), HasSubstr("\ncorrect the manifest or build the data set: POST /api/datasets/build "
                                        "{\"dataset_name\":\"set\",\"dataset_version\":\"v1\",\"limit\":10}"));
  std::string many = "\"trace_ids\": [1";
  for (int i = 0; i < 29; ++i) many += ",1";
  EXPECT_THAT(error_of(replaced(good_, "\"trace_ids\": [", many + ",")), HasSubstr("\nand 11 more\n"));
}

TEST_F(ManifestTest, JsonProblemsHaveTheirPlace) {
  EXPECT_EQ(problems_of(replaced(good_, "\"v1\",", "\"v1\"")), "5:3: manifest: expected ',' or '}', found \"\\\"\"");
  EXPECT_EQ(problems_of(""), "1:1: manifest: expected a JSON value, found the end of the text");
  EXPECT_EQ(problems_of("[]"), "1:1: manifest: expected an object, found an empty array");
  EXPECT_EQ(problems_of("\xef\xbb\xbf" + good_),
            "1:1: manifest: expected JSON text, found a byte order mark (ef bb bf); save the file without it");
  EXPECT_EQ(problems_of(replaced(good_, "\"seed\"", "\"trace_count\"")),
            "8:3: manifest: expected each member name once, found \"trace_count\" again");
  EXPECT_EQ(problems_of(replaced(good_, "\"set-", "\"s\xff")),
            "2:20: manifest: expected valid UTF-8, found the byte 0xff, which no UTF-8 text has");
  EXPECT_EQ(problems_of("{\n\"a\":" + std::string(300, '[')),
            "2:260: manifest: expected at most 256 levels of nesting, found more");
}

TEST_F(ManifestTest, WhatIsMerelyUnknownIsAWarning) {
  EXPECT_THAT(warnings_of(replaced(good_, "\"stats\"", "\"owner\": 1, \"stats\"")),
              ElementsAre("9:3: \"owner\": not a field that is known here; it is passed over"));
  EXPECT_THAT(warnings_of(replaced(good_, "\"latest\"", "\"newest\"")),
              ElementsAre("6:25: selection_strategy: \"newest\" is neither latest nor random"));
  EXPECT_THAT(warnings_of(replaced(good_, "66913232-", "66913232")),
              ElementsAre("7:17: trace_ids: 1 of 2 are not UUIDs"));
  EXPECT_THAT(warnings_of(replaced(good_, "2026-01-08T", "8 January ")),
              ElementsAre("5:17: created_at: \"8 January 19:30:18.504921Z\" is not an ISO 8601 time"));
  EXPECT_THAT(warnings_of(replaced(good_, "\"set\"", "\"other\"")),
              ElementsAre("2:18: dataset_key: \"set-v1\", though name and version make \"other-v1\""));
  EXPECT_THAT(warnings_of(replaced(good_, "\"stats\"", "\"dataset_schema_version\": \"2.0\", \"stats\"")),
              ElementsAre("9:29: dataset_schema_version: \"2.0\" is not the known 1.0"));
  EXPECT_THAT(warnings_of(replaced(good_, "\"stats\"", "\"provenance\": {\"trace_count\": 7}, \"stats\"")),
              ElementsAre("9:33: provenance.trace_count: expected 2, as trace_count says, found 7"));
  std::string empty =
      replaced(good_, "[\"66913232-90d4-4868-afa1-eae0082c3eec\", \"9e367d09-3c7f-4169-be15-a55506e85da6\"]", "[]");
  empty = replaced(replaced(empty, ": 2,", ": 0,"), ": 2}", ": 0}");
  EXPECT_THAT(warnings_of(empty), ElementsAre("8:18: trace_count: 0, the data set is empty"));
}

TEST_F(ManifestTest, NamesWithSpacesAndSlashesMakeKeysWithUnderscores) {
  std::string text = replaced(good_, "\"set\"", "\"my set/a\"");
  EXPECT_THAT(warnings_of(replaced(text, "\"set-v1\"", "\"my_set_a-v1\"")), IsEmpty());
}

TEST_F(ManifestTest, AFolderInItsPlaceIsSaid) {
  std::filesystem::create_directories(dir_ / "d/manifest.json");
  try {
    load_manifest(dir_ / "d/manifest.json", "x");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kData);
    EXPECT_THAT(error.what(), HasSubstr("expected a regular file, found a folder"));
  }
}

class TrainingRowsTest : public ManifestTest {
 protected:
  DatasetSection dataset_;
  std::optional<Manifest> manifest_ = Manifest{.path = dir_.write("sets/a-v1/manifest.json", "{}"),
                                               .dataset_key = "a-v1",
                                               .trace_count = 0,
                                               .trace_ids = {},
                                               .warnings = {}};
  std::filesystem::path config_ = dir_.write("configs/deep/c.yaml", "");
};

TEST_F(TrainingRowsTest, ComeFromTheDataPathWhateverLiesBesideTheManifest) {
  const auto path = dir_.write("rows/x.jsonl", "");
  dir_.write("sets/a-v1/dataset.jsonl", "");
  dataset_.data_path = path;
  EXPECT_EQ(find_training_rows(dataset_, manifest_, config_).found, path);
  dataset_.data_path = "rows/x.jsonl";  // found from an ancestor of the config file
  const auto found = find_training_rows(dataset_, std::nullopt, config_).found;
  ASSERT_TRUE(found);
  EXPECT_TRUE(std::filesystem::equivalent(*found, path));
  dataset_.data_path = "rows/absent.jsonl";
  const DataSource absent = find_training_rows(dataset_, manifest_, config_);
  EXPECT_FALSE(absent.found) << "a named file that is absent is never replaced by another one";
  EXPECT_THAT(absent.tried, ElementsAre("rows/absent.jsonl"));
}

TEST_F(TrainingRowsTest, ElseFromTheFileOfTheFormatElseFromTheDatasetFile) {
  dataset_.format = DataFormat::kTunixSft;
  const DataSource none = find_training_rows(dataset_, manifest_, config_);
  EXPECT_FALSE(none.found);
  EXPECT_THAT(none.tried, ElementsAre(dir_ / "sets/a-v1/tunix_sft.jsonl", dir_ / "sets/a-v1/dataset.jsonl"));
  const auto general = dir_.write("sets/a-v1/dataset.jsonl", "");
  EXPECT_EQ(find_training_rows(dataset_, manifest_, config_).found, general);
  const auto special = dir_.write("sets/a-v1/tunix_sft.jsonl", "");
  EXPECT_EQ(find_training_rows(dataset_, manifest_, config_).found, special);
  EXPECT_THAT(find_training_rows(dataset_, manifest_, config_).tried, ElementsAre(special));
  EXPECT_FALSE(find_training_rows(dataset_, std::nullopt, config_).found);
}

TEST_F(TrainingRowsTest, ElseFromTheExportOfExactlyItsTraces) {
  manifest_->trace_ids = {"a", "b"};
  const auto exported = exported_rows_path(*manifest_, dataset_.format);
  // printf 'a\nb\n' | sha256sum
  EXPECT_EQ(exported, dir_ / "sets/a-v1/training_example.911169ddaaf1.jsonl");
  EXPECT_FALSE(find_training_rows(dataset_, manifest_, config_).found);
  dir_.write("sets/a-v1/training_example.911169ddaaf1.jsonl", "");
  EXPECT_EQ(find_training_rows(dataset_, manifest_, config_).found, exported);
  manifest_->trace_ids = {"a", "c"};
  EXPECT_FALSE(find_training_rows(dataset_, manifest_, config_).found) << "another data set has other rows";
  dataset_.format = DataFormat::kTunixSft;
  manifest_->trace_ids = {"a", "b"};
  EXPECT_FALSE(find_training_rows(dataset_, manifest_, config_).found) << "another format has other rows";
}

}  // namespace
}  // namespace gemma_sft
