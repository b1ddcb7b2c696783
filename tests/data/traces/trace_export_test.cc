// The expected lines are written by hand after the export of tunix-rt (services/datasets_export.py,
// training/renderers.py).
#include "data/traces/trace_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <variant>

#include "configs/error.h"
#include "data/records/example_reader.h"
#include "data/records/manifest.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;

StoredTrace stored(const std::string& payload) {
  return {.id = "00000000-0000-4000-8000-000000000001",
          .trace_version = "1.0",
          .created_at = "2025-12-21T10:00:00+00:00",
          .payload = payload};
}

const char kPayload[] = R"({"trace_version":"1.0","prompt":"What is 3 × 4?","final_answer":"12","steps":[)"
                        R"({"i":0,"type":"think","content":"3 fours"},{"i":1,"type":"think","content":"say \"12\""}],)"
                        R"("meta":{"source":"ungar","created_at":"mine"}})";

TEST(TraceExport, MakesTheRowsOfEachFormat) {
  EXPECT_EQ(export_trace(stored(kPayload), DataFormat::kTrace),
            R"({"id":"00000000-0000-4000-8000-000000000001","prompts":"What is 3 \u00d7 4?",)"
            R"("trace_steps":["3 fours","say \"12\""],"final_answer":"12",)"
            R"("metadata":{"created_at":"mine","trace_version":"1.0","source":"ungar"}})");
  EXPECT_EQ(export_trace(stored(kPayload), DataFormat::kTunixSft),
            R"({"id":"00000000-0000-4000-8000-000000000001",)"
            R"("prompts":"<start_of_turn>user\nWhat is 3 \u00d7 4?<end_of_turn>\n<start_of_turn>model\n)"
            R"(Reasoning:\n1. 3 fours\n2. say \"12\"\nAnswer: 12<end_of_turn>","final_answer":"12",)"
            R"("metadata":{"created_at":"mine","trace_version":"1.0","format":"tunix_sft","source":"ungar"}})");
  EXPECT_EQ(export_trace(stored(kPayload), DataFormat::kTrainingExample),
            R"({"id":"00000000-0000-4000-8000-000000000001",)"
            R"("prompt":"What is 3 \u00d7 4?\n\nPlease show your reasoning steps.",)"
            R"("response":"Reasoning:\n1. 3 fours\n2. say \"12\"\nAnswer: 12",)"
            R"("metadata":{"source_trace_id":"00000000-0000-4000-8000-000000000001","created_at":"mine",)"
            R"("trace_version":"1.0","source":"ungar"}})");
}

TEST(TraceExport, GivesRowsThatTrainAsTheTraceItselfDoes) {
  const auto turns_of = [](const std::string& line, DataFormat format) {
    return std::get<Example>(parse_example(line, "f", 1, format)).turns;
  };
  const std::vector<Turn> expected = turns_of(kPayload, DataFormat::kTrace);
  for (const DataFormat format : {DataFormat::kTrace, DataFormat::kTrainingExample}) {
    const std::vector<Turn> turns = turns_of(export_trace(stored(kPayload), format), format);
    ASSERT_EQ(turns.size(), 2u);
    for (size_t i = 0; i < 2; ++i) EXPECT_EQ(turns[i].text, expected[i].text) << format_name(format);
  }
  const std::vector<Turn> turns =
      turns_of(export_trace(stored(kPayload), DataFormat::kTunixSft), DataFormat::kTunixSft);
  ASSERT_EQ(turns.size(), 2u);
  EXPECT_EQ(turns[0].text, "What is 3 × 4?") << "this format does not ask for the steps";
  EXPECT_EQ(turns[1].text, expected[1].text);
}

TEST(TraceExport, WithoutStepsHasNoReasoning) {
  const char kShort[] = R"({"prompt":"p","final_answer":"a","steps":[],"meta":null})";
  EXPECT_THAT(export_trace(stored(kShort), DataFormat::kTrainingExample), HasSubstr(R"("response":"Answer: a")"));
}

TEST(TraceExport, NamesTheTraceThatIsNone) {
  const struct {
    const char* payload;
    const char* message;
  } cases[] = {
      {R"({"prompt":"p","steps":[]})", "trace 00000000-0000-4000-8000-000000000001: final_answer: expected"},
      {R"({"prompt":"","final_answer":"a","steps":[]})",
       "trace 00000000-0000-4000-8000-000000000001: prompt: expected"},
      {R"({"prompt":"p","final_answer":"a","steps":[{"i":0,"type":"t","content":7}]})", "content: expected"},
      {R"([1,2])", "trace 00000000-0000-4000-8000-000000000001: row: expected"},
      {"not json", "trace 00000000-0000-4000-8000-000000000001: row: expected"},
  };
  for (const auto& [payload, message] : cases) {
    try {
      export_trace(stored(payload), DataFormat::kTrainingExample);
      ADD_FAILURE() << payload;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      EXPECT_THAT(error.what(), HasSubstr(message));
    }
  }
}

}  // namespace
}  // namespace gemma_sft
