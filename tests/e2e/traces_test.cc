// Rows from PostgreSQL: a real server, the real programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/e2e/postgres.h"
#include "tests/e2e/process.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

std::string id_of(int number) {
  char text[37];
  std::snprintf(text, sizeof(text), "00000000-0000-4000-8000-%012d", number);
  return text;
}

std::string read_whole(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

std::string manifest_of(const std::vector<std::string>& ids) {
  std::string list;
  for (const std::string& id : ids) list += (list.empty() ? "\"" : ",\"") + id + "\"";
  return R"({"dataset_key":"a-v1","build_id":"11111111-2222-4333-8444-555555555555","dataset_name":"a",)"
         R"("dataset_version":"v1","created_at":"2025-12-21T10:00:00","selection_strategy":"latest","trace_ids":[)" +
         list + R"(],"trace_count":)" + std::to_string(ids.size()) + "}";
}

// The tables as tunix-rt's migrations make them; only the columns that are read.
constexpr char kTable[] =
    "CREATE TABLE traces (id UUID PRIMARY KEY, created_at timestamptz NOT NULL, trace_version varchar(64) NOT NULL, "
    "payload JSON NOT NULL);\n";

std::string insert(int number, const std::string& payload) {
  return "INSERT INTO traces VALUES ('" + id_of(number) + "', '2025-12-21 12:00:00.25+02', '1.0', $payload$" + payload +
         "$payload$);\n";
}

std::string simple_payload(int number) {
  const std::string n = std::to_string(number);
  return R"({"trace_version":"1.0","prompt":"Question )" + n + R"(?","final_answer":")" + n +
         R"(","steps":[{"i":0,"type":"t","content":"Step )" + n + R"("}],"meta":{"n":)" + n + "}}";
}

std::string simple_row(int number) {
  const std::string n = std::to_string(number);
  return R"({"id":")" + id_of(number) + R"(","prompt":"Question )" + n +
         R"(?\n\nPlease show your reasoning steps.","response":"Reasoning:\n1. Step )" + n + R"(\nAnswer: )" + n +
         R"(","metadata":{"source_trace_id":")" + id_of(number) +
         R"(","created_at":"2025-12-21T10:00:00.250000+00:00","trace_version":"1.0","n":)" + n + "}}\n";
}

// One server for all tests: starting one takes seconds.
class Traces : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = new Postgres; }
  static void TearDownTestSuite() {
    delete server_;
    server_ = nullptr;
  }
  void SetUp() override { server_->run("DROP SCHEMA public CASCADE; CREATE SCHEMA public;"); }

  void fill(int count) {
    std::string sql = kTable;
    for (int number = 1; number <= count; ++number) sql += insert(number, simple_payload(number));
    server_->run(sql);
  }

  ProcessResult run(const std::vector<std::string>& words, const std::string& address) const {
    const ProcessResult result =
        gemma_sft_run(words, {.folder = files_.path(), .environment = {{"DATABASE_URL", address}}});
    EXPECT_THAT(result.out + result.err, Not(HasSubstr("canary"))) << "the password is shown";
    return result;
  }
  ProcessResult export_set(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"traces", "export", "--manifest", "set/manifest.json", "--output", "rows.jsonl"};
    words.insert(words.end(), more.begin(), more.end());
    return run(words, server_->address());
  }
  ProcessResult train(const std::vector<std::string>& more, const std::string& address) const {
    std::vector<std::string> words = {"train", "--config", "c.yaml"};
    words.insert(words.end(), more.begin(), more.end());
    return run(words, address);
  }

  static Postgres* server_;
  TempDir files_;
};
Postgres* Traces::server_ = nullptr;

TEST_F(Traces, AreExportedInTheOrderOfTheManifest) {
  fill(450);  // more than one query reads
  std::vector<std::string> ids;
  std::string expected;
  for (int number = 450; number >= 1; --number) {
    ids.push_back(id_of(number));
    expected += simple_row(number);
  }
  files_.write("set/manifest.json", manifest_of(ids));
  const ProcessResult result = export_set();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "✅ Dataset exported: 450 rows, rows.jsonl\n");
  EXPECT_EQ(read_whole(files_ / "rows.jsonl"), expected);
}

TEST_F(Traces, ThatAreGoneAreNamedAndLeftOutOnlyOnDemand) {
  fill(2);
  files_.write("set/manifest.json", manifest_of({id_of(1), id_of(7), id_of(2)}));
  ProcessResult result = export_set();
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("1 of the 3 traces of set/manifest.json are not in database postgres"));
  EXPECT_THAT(result.err, HasSubstr(id_of(7)));
  EXPECT_FALSE(fs::exists(files_ / "rows.jsonl"));
  result = export_set({"--skip-missing"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("warning: 1 of the 3 traces"));
  EXPECT_EQ(read_whole(files_ / "rows.jsonl"), simple_row(1) + simple_row(2));
}

TEST_F(Traces, ThatAreNoneAreNamed) {
  server_->run(kTable + insert(1, simple_payload(1)) + insert(2, R"({"prompt":"p","steps":[]})"));
  files_.write("set/manifest.json", manifest_of({id_of(1), id_of(2)}));
  const ProcessResult result = export_set();
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("trace " + id_of(2) + ": final_answer: expected"));
  EXPECT_FALSE(fs::exists(files_ / "rows.jsonl"));
}

TEST_F(Traces, AboveTenMegabytesAreRefusedUnread) {
  server_->run(std::string(kTable) + "INSERT INTO traces SELECT '" + id_of(1) +
               "', now(), '1.0', json_build_object('prompt', repeat('x', 40000000), 'final_answer', 'a');");
  files_.write("set/manifest.json", manifest_of({id_of(1)}));
  const ProcessResult result = export_set();
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("trace " + id_of(1) + ": payload: expected at most 10485760 bytes, found 40000"));
  EXPECT_LT(result.peak_memory_bytes, 150 << 20);
}

TEST_F(Traces, AreReadWithNothingButTheRightToRead) {
  fill(1);
  server_->run(
      "CREATE ROLE reader LOGIN PASSWORD 'pw-canary/4711'; "
      "GRANT USAGE ON SCHEMA public TO reader;");
  files_.write("set/manifest.json", manifest_of({id_of(1)}));
  std::string address = server_->address();
  address.replace(address.find("postgres:pw"), 8, "reader");
  const std::vector<std::string> words = {"traces", "export", "--manifest", "set/manifest.json", "--output", "r.jsonl"};
  ProcessResult result = run(words, address);
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_THAT(result.err, HasSubstr("needs SELECT on the table traces"));
  server_->run("GRANT SELECT ON traces TO reader");
  result = run(words, address);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  server_->run("DROP OWNED BY reader; DROP ROLE reader");
}

TEST_F(Traces, OfAServerThatRefusesFail) {
  files_.write("set/manifest.json", manifest_of({id_of(1)}));
  const std::vector<std::string> words = {"traces", "export", "--manifest", "set/manifest.json", "--output", "r.jsonl"};
  ProcessResult result = run(words, server_->address("canary"));
  EXPECT_EQ(result.exit_code, 4) << result.err;
  EXPECT_THAT(result.err, HasSubstr("authentication failed"));
  result = run(words, server_->address("pw-canary%2F4711", "nowhere"));
  EXPECT_EQ(result.exit_code, 10) << result.err;
  EXPECT_THAT(result.err, HasSubstr("does not exist"));
  result = run(words, server_->address());
  EXPECT_EQ(result.exit_code, 10) << result.err;
  EXPECT_THAT(result.err, HasSubstr("this is not a database of tunix-rt"));
  result = run(words, "postgresql://u:canary@127.0.0.1:1/d");
  EXPECT_EQ(result.exit_code, 10) << result.err;
  EXPECT_THAT(result.err, HasSubstr("Connection refused"));
  EXPECT_LT(result.seconds, 20);
  EXPECT_FALSE(fs::exists(files_ / "r.jsonl"));
}

TEST_F(Traces, AreOnlySpokenOfByADryRun) {
  files_.write("set/manifest.json", manifest_of({id_of(1), id_of(2)}));
  files_.write("c.yaml", "model: {base_model: ./base}\ndataset: {manifest_path: set/manifest.json}\n");
  const ProcessResult result = train({"--dry-run"}, "postgresql://u:canary@127.0.0.1:1/d");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("training reads the 2 traces of the manifest from PostgreSQL"));
  EXPECT_EQ(files_.list().size(), 3u) << "a dry-run made something";
}

TEST_F(Traces, OfTheManifestAreReadByTrainAndKeptForTheNextRun) {
  fill(3);
  files_.write("set/manifest.json", manifest_of({id_of(3), id_of(1), id_of(2)}));
  files_.write("c.yaml", "model: {base_model: ./base}\ndataset: {manifest_path: set/manifest.json}\n");
  ProcessResult result = train({}, server_->address());
  EXPECT_EQ(result.exit_code, 12) << "the rows are there, and then the model is looked for: " << result.err;
  std::vector<fs::path> rows;
  for (const auto& entry : fs::directory_iterator(files_ / "set")) {
    if (entry.path().extension() == ".jsonl") rows.push_back(entry.path());
  }
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(read_whole(rows[0]), simple_row(3) + simple_row(1) + simple_row(2));
  result = train({}, "postgresql://u:canary@127.0.0.1:1/d");
  EXPECT_EQ(result.exit_code, 12) << "the database was asked again: " << result.err;
  // A data set that was built anew has other rows.
  files_.write("set/manifest.json", manifest_of({id_of(3)}));
  result = train({}, "postgresql://u:canary@127.0.0.1:1/d");
  EXPECT_EQ(result.exit_code, 10) << result.err;
}

// The last one: it ends the server.
TEST_F(Traces, OfAServerThatDiesWhileTheyAreReadLeaveNoFile) {
  std::string sql = kTable;
  std::vector<std::string> ids;
  for (int number = 1; number <= 100; ++number) {
    sql += insert(number, simple_payload(number));
    ids.push_back(id_of(number));
  }
  server_->run(sql +
               "ALTER TABLE traces RENAME TO stored; CREATE VIEW traces AS SELECT id, created_at, trace_version, "
               "CASE WHEN pg_sleep(0.2) IS NOT NULL THEN payload END AS payload FROM stored;");
  files_.write("set/manifest.json", manifest_of(ids));
  Process reading({program("gemma-sft"), "traces", "export", "--manifest", "set/manifest.json", "--output", "r.jsonl"},
                  {.folder = files_.path(), .environment = {{"DATABASE_URL", server_->address()}}});
  EXPECT_FALSE(reading.ends_within(1.5));
  server_->kill();
  const ProcessResult result = reading.wait();
  EXPECT_EQ(result.exit_code, 10) << result.err;
  EXPECT_THAT(result.err, HasSubstr("the same command starts the reading anew"));
  EXPECT_FALSE(fs::exists(files_ / "r.jsonl"));
}

}  // namespace
}  // namespace gemma_sft
