#include "data/records/example_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/records/manifest.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kTraces = GEMMA_SFT_SOURCE_DIR "/tests/data/fixtures/traces/dev-reasoning-v2/";

std::string shown(const std::vector<Turn>& turns) {
  std::string text;
  for (const Turn& turn : turns) {
    text += turn.role == Role::kSystem ? "S[" : turn.role == Role::kUser ? "U[" : "M[";
    text += turn.text + "]";
  }
  return text;
}

// The turns, or the message of the problem.
std::string turns_of(const std::string& row, DataFormat format) {
  const auto content = parse_example(row, "f.jsonl", 3, format);
  if (const auto* problem = std::get_if<RowProblem>(&content)) return problem->message;
  return shown(std::get<Example>(content).turns);
}

std::vector<Example> read_all(const std::string& file, DataFormat format) {
  std::vector<Example> examples;
  ExampleReader reader(file, format);
  while (const auto row = reader.next()) {
    if (const auto* problem = std::get_if<RowProblem>(&row->content)) {
      ADD_FAILURE() << problem->message;
    } else {
      examples.push_back(std::get<Example>(row->content));
    }
  }
  return examples;
}

TEST(ExampleReader, TrainingExamplesAreAUserAndAModelTurnAsWritten) {
  EXPECT_EQ(
      turns_of(R"({"id":"x","prompt":" Q\n","response":"\tA ","metadata":{"a":[1]}})", DataFormat::kTrainingExample),
      "U[ Q\n]M[\tA ]");
  EXPECT_EQ(turns_of(R"({"response":"\ud83d\ude00\u00e4","other":[{}],"metadata":null,"prompt":"<start_of_turn>user"})",
                     DataFormat::kTrainingExample),
            "U[<start_of_turn>user]M[\xf0\x9f\x98\x80\xc3\xa4]");
  EXPECT_EQ(turns_of("{\"prompt\":\"\\u200b\",\"response\":\"x\"}\r", DataFormat::kTrainingExample),
            "U[\xe2\x80\x8b]M[x]")
      << "a zero-width space is no white space to Python";
}

TEST(ExampleReader, MessagesAreTurns) {
  EXPECT_EQ(turns_of(R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"1"},)"
                     R"({"role":"assistant","content":"2","name":"x"},{"content":"3","role":"user"},)"
                     R"({"role":"model","content":"4"}]})",
                     DataFormat::kTrainingExample),
            "S[s]U[1]M[2]U[3]M[4]");
}

TEST(ExampleReader, FieldsThatAFormatDoesNotReadAreNamed) {
  const auto unread = [](const std::string& row, DataFormat format) {
    return std::get<Example>(parse_example(row, "f", 1, format)).unread_fields;
  };
  EXPECT_THAT(unread(R"({"id":"x","prompt":"a","response":"b","metadata":{"k":1}})", DataFormat::kTrainingExample),
              testing::IsEmpty());
  EXPECT_THAT(
      unread(R"({"system":"s","prompt":"a","response":"b","steps":[],"a\u001bb":1})", DataFormat::kTrainingExample),
      testing::ElementsAre("system", "steps", "\"a\\u001bb\""));
  EXPECT_THAT(unread(R"({"messages":[{"role":"user","content":"1","name":"x"},)"
                     R"({"role":"model","content":"2","weight":0,"name":"y"}]})",
                     DataFormat::kTrainingExample),
              testing::ElementsAre("messages[].name", "messages[].weight"));
  EXPECT_THAT(unread(R"({"prompt":"a","steps":[],"final_answer":"b","meta":{},"metadata":{}})", DataFormat::kTrace),
              testing::IsEmpty());
  EXPECT_THAT(unread(R"({"input_ids":[1,2],"loss_mask":[0,1],"attention_mask":[1,1]})", DataFormat::kTokens),
              testing::ElementsAre("attention_mask"));
}

TEST(ExampleReader, RenderedTurnsAreCutExactlyWhereTheRenderingJoinedThem) {
  const auto row = [](const std::string& user, const std::string& model) {
    return nlohmann::json({{"prompts", "<start_of_turn>user\n" + user + "<end_of_turn>\n<start_of_turn>model\n" +
                                           model + "<end_of_turn>"},
                           {"final_answer", "A"}})
        .dump();
  };
  for (const std::string& user :
       {std::string("Q"), std::string("Be brief.\n\nQ"), std::string(" spaces \n\n"),
        std::string("ends with <end_of_turn>"), std::string("<start_of_turn>model\nnot a turn"),
        std::string("<bos>\xe4\xb8\xad"), std::string("<end_of_turn>\n"),
        std::string("a<end_of_turn> \n<start_of_turn>model\nb")}) {
    for (const std::string& model : {std::string("Answer: A"), std::string("Reasoning:\n1. x<end_of_turn>\nAnswer: A"),
                                     std::string("\nAnswer: A\n")}) {
      EXPECT_EQ(turns_of(row(user, model), DataFormat::kTunixSft), "U[" + user + "]M[" + model + "]");
    }
  }
  EXPECT_EQ(turns_of(row("1<end_of_turn>\n<start_of_turn>model\n2<end_of_turn>\n<start_of_turn>user\n3", "A"),
                     DataFormat::kTunixSft),
            "U[1]M[2]U[3]M[A]");
  EXPECT_EQ(turns_of(R"({"prompts":"<start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n",)"
                     R"("final_answer":" A"})",
                     DataFormat::kTunixSft),
            "U[Q]M[A]")
      << "the newline that the template puts after the last turn is not part of it";
}

TEST(ExampleReader, TracesOfBothShapesTrainAsTheirTrainingExample) {
  const std::string expected = "U[Q\n\nPlease show your reasoning steps.]M[Reasoning:\n1. first\n2. second\nAnswer: A]";
  EXPECT_EQ(
      turns_of(
          R"({"trace_version":"1.0","prompt":"Q","final_answer":"A","steps":[{"i":0,"type":"t","content":"first"},)"
          R"({"i":1,"content":"second"}],"meta":null})",
          DataFormat::kTrace),
      expected);
  EXPECT_EQ(turns_of(R"({"id":"1","prompts":"Q","trace_steps":["first","second"],"final_answer":"A","metadata":{}})",
                     DataFormat::kTrace),
            expected);
  EXPECT_EQ(turns_of(R"({"prompt":"Q","steps":[],"final_answer":"A"})", DataFormat::kTrace),
            "U[Q\n\nPlease show your reasoning steps.]M[Answer: A]");
}

TEST(ExampleReader, TokensAreTakenAsTheyAre) {
  const auto content =
      parse_example(R"({"id":"t","input_ids":[2,0,2147483647],"loss_mask":[0,1,1]})", "f", 1, DataFormat::kTokens);
  const Example& example = std::get<Example>(content);
  ASSERT_TRUE(example.tokens);
  EXPECT_EQ(example.tokens->id, "t");
  EXPECT_THAT(example.tokens->input_ids, ElementsAre(2, 0, 2147483647));
  EXPECT_THAT(example.tokens->loss_mask, ElementsAre(0, 1, 1));
  EXPECT_TRUE(example.turns.empty());
}

TEST(ExampleReader, ARowWithoutIdIsNamedByItsPlace) {
  const auto id_of = [](const std::string& row, DataFormat format) {
    return std::get<Example>(parse_example(row, "d/f.jsonl", 17, format)).id;
  };
  EXPECT_EQ(id_of(R"({"prompt":"a","response":"b"})", DataFormat::kTrainingExample), "d/f.jsonl:17");
  EXPECT_EQ(id_of(R"({"input_ids":[1,2],"loss_mask":[0,1]})", DataFormat::kTokens), "d/f.jsonl:17");
  EXPECT_EQ(id_of(R"({"id":"\u00e4 1","prompt":"a","response":"b"})", DataFormat::kTrainingExample), "\xc3\xa4 1");
}

// The exports of the same traces, made by fixtures/traces/make_renderings.py.
TEST(ExampleReader, EveryExportOfTheSameTracesGivesTheSameTurns) {
  const auto from_ingest = read_all(kTraces + "dataset.jsonl", DataFormat::kTrace);
  const auto from_export = read_all(kTraces + "trace.jsonl", DataFormat::kTrace);
  const auto from_examples = read_all(kTraces + "training_example.jsonl", DataFormat::kTrainingExample);
  const auto from_rendered = read_all(kTraces + "tunix_sft.jsonl", DataFormat::kTunixSft);
  ASSERT_EQ(from_ingest.size(), 10u);
  ASSERT_EQ(from_export.size(), 10u);
  ASSERT_EQ(from_examples.size(), 10u);
  ASSERT_EQ(from_rendered.size(), 10u);
  const std::string request = "\n\nPlease show your reasoning steps.";
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(shown(from_ingest[i].turns), shown(from_examples[i].turns));
    EXPECT_EQ(shown(from_export[i].turns), shown(from_examples[i].turns));
    // The rendered form has the plain question.
    EXPECT_EQ(from_rendered[i].turns[0].text + request, from_examples[i].turns[0].text);
    EXPECT_EQ(from_rendered[i].turns[1].text, from_examples[i].turns[1].text);
    EXPECT_EQ(from_ingest[i].id, kTraces + "dataset.jsonl:" + std::to_string(i + 1));
    EXPECT_EQ(from_rendered[i].id, "trace-" + std::to_string(i + 1));
  }
}

TEST(ExampleReader, BlankLinesArePassedOverAndLinesStillCount) {
  const TempDir dir;
  const std::string good = R"({"prompt":"a","response":"b"})";
  const std::string path = dir.write("f", "\n \t\r\n" + good + "\n\n" + good);
  ExampleReader reader(path, DataFormat::kTrainingExample);
  const auto first = reader.next();
  const auto second = reader.next();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(std::get<Example>(first->content).id, path + ":3");
  EXPECT_EQ(std::get<Example>(second->content).place.line, 5);
  EXPECT_EQ(second->offset.byte, 5 + good.size() + 2);
  EXPECT_FALSE(reader.next());
  EXPECT_FALSE(reader.next());
}

TEST(ExampleReader, RowsCanBeReadAgainInAnyOrder) {
  ExampleReader reader(kTraces + "dataset.jsonl", DataFormat::kTrace);
  std::vector<std::unique_ptr<ExampleReader::Row>> rows;
  while (auto row = reader.next()) rows.push_back(std::move(row));
  ASSERT_EQ(rows.size(), 10u);
  for (const size_t i : {9u, 0u, 4u, 4u}) {
    const auto again = reader.read_at(rows[i]->offset);
    EXPECT_EQ(shown(std::get<Example>(again).turns), shown(std::get<Example>(rows[i]->content).turns));
    EXPECT_EQ(std::get<Example>(again).id, std::get<Example>(rows[i]->content).id);
  }
}

TEST(ExampleReader, AnAbsentFileIsNotFoundAndOtherThingsAreNotFiles) {
  const TempDir dir;
  const auto error_of = [](const std::string& path) {
    try {
      ExampleReader reader(path, DataFormat::kTrace);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      return std::string(error.what());
    }
    return std::string("opened");
  };
  EXPECT_EQ(error_of(dir / "absent.jsonl"),
            "Data file not found: " + (dir / "absent.jsonl").string() +
                "; check dataset.data_path or --data (relative paths start at the working "
                "directory)");
  EXPECT_THAT(error_of(dir.path()), HasSubstr("expected a regular file, found a folder"));
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of(dir / "pipe"), HasSubstr("found a pipe; write its contents to a file first"));
}

long peak_kilobytes() {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(ExampleReader, AnOverlongLineIsOneBadRowAndTakesNoMemory) {
  const TempDir dir;
  const std::string good = R"({"prompt":"a","response":"b"})";
  const std::string path = dir.write("f", good + "\n");
  std::filesystem::resize_file(path, 256ull << 20);  // a line of almost 256 MiB of NULs, sparse on the disk
  std::ofstream(path, std::ios::app) << "\n" << good << "\n";
  const long before = peak_kilobytes();
  ExampleReader reader(path, DataFormat::kTrainingExample);
  ASSERT_TRUE(std::holds_alternative<Example>(reader.next()->content));
  const auto bad = reader.next();
  EXPECT_EQ(std::get<RowProblem>(bad->content).message,
            path + ":2:1: row: expected at most 67108864 bytes in a line, found more");
  EXPECT_EQ(std::get<Example>(reader.next()->content).place.line, 3);
  EXPECT_FALSE(reader.next());
  EXPECT_LT(peak_kilobytes() - before, 16 << 10);

  ExampleReader strict(kTraces + "dataset.jsonl", DataFormat::kTrace, 300);
  int too_long = 0;
  int rows = 0;
  for (; const auto row = strict.next(); ++rows) too_long += std::holds_alternative<RowProblem>(row->content);
  EXPECT_EQ(rows, 10);
  std::ifstream lines(kTraces + "dataset.jsonl");
  int expected = 0;
  for (std::string line; std::getline(lines, line);) expected += line.size() > 300;
  EXPECT_EQ(too_long, expected);
  EXPECT_GT(expected, 0);
}

}  // namespace
}  // namespace gemma_sft
