// Every kind of bad row, in every format, as the first, a middle and the last line of a file: the place and the whole
// message are checked, and that the good rows around it are read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "data/records/example_reader.h"
#include "data/records/manifest.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// In `row`, '@' stands before the byte that the message must point at and is not part of the row.
struct BadRow {
  DataFormat format;
  std::string row;
  std::string message;  // what follows "FILE:LINE:COLUMN: "
};

constexpr DataFormat kFormats[] = {DataFormat::kTrainingExample, DataFormat::kTunixSft, DataFormat::kTrace,
                                   DataFormat::kTokens};

// A good row, open at the end: more members may follow.
std::string open_row(DataFormat format) {
  switch (format) {
    case DataFormat::kTrainingExample: return R"({"prompt":"Say hi","response":"hi","note":"ok")";
    case DataFormat::kTunixSft:
      return R"({"prompts":"<start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>","final_answer":"A")";
    case DataFormat::kTrace: return R"({"prompt":"Q","steps":[{"i":0,"type":"t","content":"S"}],"final_answer":"A")";
    case DataFormat::kTokens: return R"({"input_ids":[2,5,6],"loss_mask":[0,0,1])";
  }
  return "";
}

// Says aloud how many files this program tried.
class Counted : public ::testing::Environment {
 public:
  void SetUp() override { count.emplace("rel-S4 malformed data files, exact place and message"); }
  void TearDown() override { count.reset(); }
  std::optional<SuiteCount> count;
};
Counted* const counted = dynamic_cast<Counted*>(::testing::AddGlobalTestEnvironment(new Counted));

// Checks one bad row; gives the number of files it was checked in.
int check(const BadRow& bad) {
  const size_t marker = bad.row.find('@');
  EXPECT_NE(marker, std::string::npos) << bad.row;
  std::string row = bad.row;
  row.erase(marker, 1);
  const std::string good = open_row(bad.format) + "}";
  const struct {
    std::string text;
    int64_t line;
    int good_rows;
  } files[] = {
      {row + "\n" + good + "\n", 1, 1},
      {good + "\r\n\r\n" + row + "\r\n" + good + "\r\n", 3, 2},
      {good + "\n" + row, 2, 1},
  };
  static const TempDir dir;  // one for all cases
  int checked = 0;
  for (const auto& file : files) {
    const int failures_before = failures_so_far();
    const std::string path = dir.write("rows.jsonl", file.text);
    const int64_t column = static_cast<int64_t>(marker) + 1;
    ExampleReader reader(path, bad.format);
    int good_rows = 0;
    int problems = 0;
    while (const auto next = reader.next()) {
      if (std::holds_alternative<Example>(next->content)) {
        ++good_rows;
        continue;
      }
      ++problems;
      const RowProblem& problem = std::get<RowProblem>(next->content);
      EXPECT_EQ(problem.message,
                path + ":" + std::to_string(file.line) + ":" + std::to_string(column) + ": " + bad.message);
      EXPECT_EQ(problem.place.file, path);
      EXPECT_EQ(problem.place.line, file.line);
      EXPECT_EQ(problem.column, column);
      EXPECT_EQ(bad.message.substr(0, bad.message.find(": ")), problem.field);
      EXPECT_LT(problem.message.size() - path.size(), 400u);
      const auto again = reader.read_at(next->offset);
      EXPECT_EQ(std::get<RowProblem>(again).message, problem.message);
    }
    EXPECT_EQ(problems, 1) << bad.row;
    EXPECT_EQ(good_rows, file.good_rows) << bad.row;
    ++checked;
    counted->count->add(failures_so_far() == failures_before);
  }
  return checked;
}

int check_all(const std::vector<BadRow>& rows) {
  int checked = 0;
  for (const BadRow& row : rows) checked += check(row);
  return checked;
}

TEST(MalformedRows, EncodingIsCheckedInEveryFormat) {
  const struct {
    std::string bytes;
    std::string found;
  } classes[] = {
      {"@\xff", "the byte 0xff, which no UTF-8 text has"},
      {"@\xf5\x80\x80\x80", "the byte 0xf5, which no UTF-8 text has"},
      {"\xc3\xa4@\x80", "a continuation byte with no start (0x80)"},
      {"@\xc0\xaf", "an overlong encoding (0xc0 0xaf)"},
      {"@\xe0\x9f\xbf", "an overlong encoding (0xe0 0x9f 0xbf)"},
      {"@\xf0\x8f\xbf\xbf", "an overlong encoding (0xf0 0x8f 0xbf 0xbf)"},
      {"@\xed\xa0\x80", "an encoded surrogate (0xed 0xa0 0x80)"},
      {"@\xf4\x90\x80\x80", "a code point above U+10FFFF (0xf4 0x90 0x80 0x80)"},
      {"@\xe4\xb8", "an unfinished character (0xe4 0xb8 0x22)"},
      {"caf@\xe9", "an unfinished character (0xe9 0x22)"},  // Latin-1
  };
  int checked = 0;
  for (const DataFormat format : kFormats) {
    for (const auto& c : classes) {
      checked += check(
          {format, open_row(format) + ",\"x\":\"" + c.bytes + "\"}", "row: expected valid UTF-8, found " + c.found});
    }
    checked += check({format, open_row(format) + ",\"x\":\"a" + std::string("@\0b", 3) + "\"}",
                      "row: expected UTF-8 text, found a NUL byte"});
    checked +=
        check({format, "@\xef\xbb\xbf" + open_row(format) + "}",
               "row: expected JSON text, found a byte order mark (ef bb bf); remove it (sed -i 's/^\\xef\\xbb\\xbf//' "
               "FILE)"});
    std::string wide = "@";  // UTF-16BE without a byte order mark
    for (const char c : open_row(format) + "}") wide += {'\0', c};
    checked +=
        check({format, wide,
               "row: expected UTF-8 text, found UTF-16 or UTF-32 text; convert it first (iconv -f UTF-16 -t UTF-8)"});
  }
  EXPECT_EQ(checked, 4 * 13 * 3);
}

TEST(MalformedRows, JsonIsCheckedInEveryFormat) {
  int checked = 0;
  for (const DataFormat format : kFormats) {
    const std::string row = open_row(format);
    const std::vector<BadRow> rows = {
        {format, row + "@", "row: expected ',' or '}', found the end of the line"},
        {format, row + ",@}", "row: expected a member name in double quotes, found \"}\""},
        {format, row + ",\"x\":@}", "row: expected a JSON value, found \"}\""},
        {format, row + ",\"x\"@ 1}", "row: expected ':' after the member name, found \"1\""},
        {format, row + ",@'x':1}", "row: expected a member name in double quotes, found \"'\""},
        {format, row + ",\"x\":@NaN}", "row: expected a JSON value, found \"NaN\""},
        {format, row + ",\"x\":@None}", "row: expected a JSON value, found \"None\""},
        {format, row + ",\"x\":@01}", "row: expected a number without leading zeros, found \"01\""},
        {format, row + ",\"x\":1.@}", "row: expected a digit, found \"}\""},
        {format, row + ",\"x\":[1,@]}", "row: expected a JSON value, found \"]\""},
        {format, row + ",\"x\":\"a@\tb\"}",
         "row: expected control characters in strings escaped, such as \\n or \\u0000, found \"\\t\""},
        {format, row + ",\"x\":\"@\\x41\"}", "row: expected an escape sequence of JSON, found \"\\\\x\""},
        {format, row + ",\"x\":\"@\\u12\"}", "row: expected four hexadecimal digits after \\u, found \"\\\\u12\\\"\""},
        {format, row + ",\"x\":\"@\\ud800\"}", "row: expected surrogates in pairs, found the lone surrogate \\ud800"},
        {format, row + ",\"x\":\"@\\ud83dx\"}", "row: expected surrogates in pairs, found the lone surrogate \\ud83d"},
        {format, row + ",\"x\":\"@\\udc00\"}", "row: expected surrogates in pairs, found the lone surrogate \\udc00"},
        {format, row + "}@ {}", "row: expected nothing after the JSON value, found \"{\""},
        {format, row + "}@,", "row: expected nothing after the JSON value, found \",\""},
        {format, row + "}@ // x", "row: expected nothing after the JSON value, found \"/\""},
        {format, row + ",\"x\":1,@\"x\":2}", "row: expected each member name once, found \"x\" again"},
        {format, row + ",\"x\":1,@\"\\u0078\":1}", "row: expected each member name once, found \"x\" again"},
        {format, row + ",\"m\":{\"k\":1,@\"k\":1}}", "row: expected each member name once, found \"k\" again"},
        {format, row + ",\"x\":" + std::string(255, '[') + "@[",
         "row: expected at most 256 levels of nesting, found more"},
        {format, "@[" + row + "}]",
         "row: expected a JSON object, found an array; every row must be one JSON object in one line (jq -c '.[]' or "
         "jq "
         "-c . rewrites a file so)"},
        {format, "@\"text\"", "row: expected a JSON object, found the string \"text\""},
        {format, "@null", "row: expected a JSON object, found null"},
        {format, "@12", "row: expected a JSON object, found the number 12"},
        {format, "@plain text", "row: expected a JSON value, found \"plain\""},
        {format, "@,", "row: expected a JSON value, found \",\""},
        {format, "{@",
         "row: expected a member name in double quotes, found the end of the line; every row must be one JSON object "
         "in one "
         "line (jq -c '.[]' or jq -c . rewrites a file so)"},
        {format, "[@",
         "row: expected a JSON value, found the end of the line; every row must be one JSON object in one line (jq -c "
         "'.[]' "
         "or jq -c . rewrites a file so)"},
    };
    for (BadRow bad : rows) {
      // The space before the byte that is named belongs to what the marker jumps over.
      const size_t marker = bad.row.find("@ ");
      if (marker != std::string::npos) std::swap(bad.row[marker], bad.row[marker + 1]);
      checked += check(bad);
    }
  }
  EXPECT_EQ(checked, 4 * 31 * 3);
}

TEST(MalformedRows, AnUnclosedStringNamesItsStart) {
  for (const DataFormat format : kFormats) {
    const std::string row = open_row(format) + ",\"x\":\"never closed";
    check({format, row + "@",
           "row: expected the closing quote of the string that starts at byte " +
               std::to_string(row.find("\"never") + 1) + ", found the end of the line"});
  }
}

TEST(MalformedRows, IdAndMetadataAreCheckedInEveryFormat) {
  int checked = 0;
  for (const DataFormat format : kFormats) {
    const std::string row = open_row(format);
    const std::vector<BadRow> rows = {
        {format, row + ",\"id\":@7}", "id: expected a non-empty string, found the number 7"},
        {format, row + ",\"id\":@\"\"}", "id: expected a non-empty string, found an empty string"},
        {format, row + ",\"id\":@null}", "id: expected a non-empty string, found null"},
        {format, row + ",\"id\":@[\"a\"]}", "id: expected a non-empty string, found an array"},
        {format, row + ",\"id\":@true}", "id: expected a non-empty string, found true"},
        {format, row + ",\"metadata\":@\"x\"}", "metadata: expected an object, found the string \"x\""},
        {format, row + ",\"metadata\":@[]}", "metadata: expected an object, found an empty array"},
        {format, row + ",\"metadata\":@1}", "metadata: expected an object, found the number 1"},
    };
    checked += check_all(rows);
  }
  EXPECT_EQ(checked, 4 * 8 * 3);
}

TEST(MalformedRows, TrainingExamples) {
  constexpr DataFormat kFormat = DataFormat::kTrainingExample;
  const std::string text = "expected a non-empty string, found ";
  const auto messages = [](const std::string& list) { return "{\"messages\":" + list + "}"; };
  const std::string user = R"({"role":"user","content":"u"})";
  const std::string model = R"({"role":"model","content":"m"})";
  const std::string roles = "expected system, user, model or assistant, found ";
  std::vector<BadRow> rows = {
      {kFormat, R"(@{"prompt":"a"})", "response: " + text + "no such field"},
      {kFormat, R"(  @{"prompt":"a"})", "response: " + text + "no such field"},
      {kFormat, R"(@{"response":"a"})", "prompt: " + text + "no such field"},
      {kFormat, "@{}", "prompt: " + text + "no such field"},
      {kFormat, R"(@{"Prompt":"a","response":"b"})", "prompt: " + text + "no such field"},
      {kFormat, R"({"prompt":@"","response":"b"})", "prompt: " + text + "an empty string"},
      {kFormat, R"({"prompt":"a","response":@""})", "response: " + text + "an empty string"},
      {kFormat, R"({"prompt":"a", "response": @" \n\t"})", "response: " + text + "only white space"},
      {kFormat, R"({"prompt":@"\u00a0\u3000\u2028\u0085","response":"b"})", "prompt: " + text + "only white space"},
      {kFormat, R"({"prompt":@5,"response":"b"})", "prompt: " + text + "the number 5"},
      {kFormat, R"({"prompt":"a","response":@null})", "response: " + text + "null"},
      {kFormat, R"({"prompt":"a","response":@true})", "response: " + text + "true"},
      {kFormat, R"({"prompt":@["a"],"response":"b"})", "prompt: " + text + "an array"},
      {kFormat, R"({"prompt":@{},"response":"b"})", "prompt: " + text + "an empty object"},
      {kFormat, R"({"prompt":"\u00e4","response":@-1.5e3})", "response: " + text + "the number -1.5e3"},
      // Rows of other formats say so.
      {kFormat, "@" + open_row(DataFormat::kTrace) + "}",
       "response: " + text + "no such field; the row looks like format trace: set dataset.format: trace"},
      {kFormat, R"(@{"prompts":"Q","trace_steps":["S"],"final_answer":"A"})",
       "prompt: " + text + "no such field; the row looks like format trace: set dataset.format: trace"},
      {kFormat, "@" + open_row(DataFormat::kTunixSft) + "}",
       "prompt: " + text + "no such field; the row looks like format tunix_sft: set dataset.format: tunix_sft"},
      {kFormat, "@" + open_row(DataFormat::kTokens) + "}",
       "prompt: " + text + "no such field; the row looks like format tokens: set dataset.format: tokens"},
      // Conversations.
      {kFormat, messages("@{}"), "messages: expected an array, found an empty object"},
      {kFormat, messages("@null"), "messages: expected an array, found null"},
      {kFormat, messages("@[]"), "messages: expected at least one user turn and one model turn, found an empty array"},
      {kFormat, messages("[@1]"), "messages[0]: expected an object {role, content}, found the number 1"},
      {kFormat, messages("[" + user + ",@\"x\"]"),
       "messages[1]: expected an object {role, content}, found the string \"x\""},
      {kFormat, messages("[@{\"content\":\"u\"}]"), "messages[0].role: " + roles + "no such field"},
      {kFormat, messages("[@{\"role\":\"user\"}]"), "messages[0].content: " + text + "no such field"},
      {kFormat, messages("[{\"role\":@1,\"content\":\"u\"}]"), "messages[0].role: " + roles + "the number 1"},
      {kFormat, messages("[{\"role\":@\"tool\",\"content\":\"u\"}]"),
       "messages[0].role: " + roles + "the string \"tool\""},
      {kFormat, messages("[{\"role\":@\"User\",\"content\":\"u\"}]"),
       "messages[0].role: " + roles + "the string \"User\""},
      {kFormat, messages("[{\"role\":\"user\",\"content\":@\"\"}]"),
       "messages[0].content: " + text + "an empty string"},
      {kFormat, messages("[{\"role\":\"user\",\"content\":@\" \"}]"),
       "messages[0].content: " + text + "only white space"},
      {kFormat, messages("[{\"role\":\"user\",\"content\":@[{\"type\":\"text\"}]}]"),
       "messages[0].content: " + text + "an array"},
      {kFormat, messages("[" + user + ",{\"role\":\"assistant\",\"content\":@null}]"),
       "messages[1].content: " + text + "null"},
      {kFormat, messages("[{\"role\":@\"model\",\"content\":\"m\"}]"),
       "messages[0].role: expected the user's turn, for user and model alternate, found the string \"model\""},
      {kFormat, messages("[" + user + ",{\"role\":@\"user\",\"content\":\"u\"}]"),
       "messages[1].role: expected the model's turn, for user and model alternate, found the string \"user\""},
      {kFormat, messages("[" + user + "," + model + ",{\"role\":@\"assistant\",\"content\":\"u\"}]"),
       "messages[2].role: expected the user's turn, for user and model alternate, found the string \"assistant\""},
      {kFormat, messages("[" + user + ",{\"role\":@\"system\",\"content\":\"u\"}]"),
       "messages[1].role: expected a system turn only at the start, found the string \"system\""},
      {kFormat, messages("[{\"role\":\"system\",\"content\":\"s\"},{\"role\":@\"model\",\"content\":\"u\"}]"),
       "messages[1].role: expected the user's turn, for user and model alternate, found the string \"model\""},
      {kFormat, messages("@[" + user + "]"),
       "messages: expected a last turn with the role model or assistant, which is what is trained, found the role "
       "user"},
      {kFormat, messages("@[{\"role\":\"system\",\"content\":\"s\"}]"),
       "messages: expected a last turn with the role model or assistant, which is what is trained, found the role "
       "system"},
      {kFormat, messages("@[" + user + "," + model + "," + user + "]"),
       "messages: expected a last turn with the role model or assistant, which is what is trained, found the role "
       "user"},
      {kFormat, "{\"prompt\":\"a\",\"messages\":@[" + user + "," + model + "]}",
       "messages: expected either messages or prompt and response, as there is a prompt, found both"},
      {kFormat, "{\"messages\":@[" + user + "," + model + "],\"response\":\"a\"}",
       "messages: expected either messages or prompt and response, as there is a response, found both"},
  };
  EXPECT_EQ(check_all(rows), 43 * 3);
}

TEST(MalformedRows, RenderedTurns) {
  constexpr DataFormat kFormat = DataFormat::kTunixSft;
  const std::string text = "expected a non-empty string, found ";
  const auto rendered = [](const std::string& prompts) {
    return "{\"prompts\":@\"" + prompts + "\",\"final_answer\":\"A\"}";
  };
  const std::string user = "<start_of_turn>user\\nQ<end_of_turn>";
  const std::string model = "<start_of_turn>model\\nA<end_of_turn>";
  const std::string begins = "prompts: expected text that begins with \"<start_of_turn>user\\n\", found ";
  const std::string ends = "prompts: expected text that ends with \"<end_of_turn>\", found ";
  const std::vector<BadRow> rows = {
      {kFormat, R"(@{"final_answer":"A"})", "prompts: " + text + "no such field"},
      {kFormat, "@{\"prompts\":\"" + user + "\\n" + model + "\"}", "final_answer: " + text + "no such field"},
      {kFormat, "{\"prompts\":\"" + user + "\\n" + model + "\",\"final_answer\":@\"\"}",
       "final_answer: " + text + "an empty string"},
      {kFormat, "{\"prompts\":\"" + user + "\\n" + model + "\",\"final_answer\":@4}",
       "final_answer: " + text + "the number 4"},
      {kFormat, "{\"prompts\":\"" + user + "\\n" + model + "\",\"final_answer\":@\"B\"}",
       "final_answer: expected what the model's turn in prompts ends with, found the string \"B\""},
      {kFormat, R"({"prompts":@[],"final_answer":"A"})", "prompts: " + text + "an empty array"},
      {kFormat, R"({"prompts":@"  ","final_answer":"A"})", "prompts: " + text + "only white space"},
      {kFormat, rendered("What is 1 + 1?"), begins + "\"What is 1 + 1?\""},
      {kFormat, R"({"prompts":@"Q","trace_steps":["S"],"final_answer":"A"})",
       begins + "\"Q\"; the row looks like format trace: set dataset.format: trace"},
      {kFormat, rendered("<bos>" + user + "\\n" + model), begins + "\"<bos><start_of_turn>user\\nQ<end_of_turn>\"..."},
      {kFormat, rendered(model), begins + "\"<start_of_turn>model\\nA<end_of_turn>\""},
      {kFormat, rendered(" " + user + "\\n" + model), begins + "\" <start_of_turn>user\\nQ<end_of_turn>\\n<s\"..."},
      {kFormat, rendered(user + "\\n<start_of_turn>model\\nA"), ends + "\"f_turn>\\n<start_of_turn>model\\nA\""},
      {kFormat, rendered(user + "\\n" + model + "\\n\\n"), ends + "\"_of_turn>model\\nA<end_of_turn>\\n\""},
      {kFormat, rendered(user + "\\n" + model + "<eos>"), ends + "\"turn>model\\nA<end_of_turn><eos>\""},
      {kFormat, rendered(user), "prompts: expected a last turn of the model, found the user's turn"},
      {kFormat, rendered(user + "\\n" + model + "\\n" + user),
       "prompts: expected a last turn of the model, found the user's turn"},
      {kFormat, rendered(user + "\\n" + user + "\\n" + model),
       "prompts: expected as turn 2 the model's turn, for user and model alternate, found \"user\""},
      {kFormat, rendered(user + "\\n" + model + "\\n" + model),
       "prompts: expected as turn 3 the user's turn, for user and model alternate, found \"model\""},
      {kFormat, rendered(user + "\\n<start_of_turn>assistant\\nA<end_of_turn>"),
       "prompts: expected the role user or model in turn 2, found \"assistant\""},
      {kFormat, rendered(user + "\\n<start_of_turn>modelA<end_of_turn>"),
       "prompts: expected the role user or model in turn 2, found \"modelA\""},
      {kFormat, rendered(user + "\\n<start_of_turn>model\\n<end_of_turn>"),
       "prompts: expected text in turn 2, found none"},
      {kFormat, rendered(user + "\\n<start_of_turn>model<end_of_turn>"),
       "prompts: expected text in turn 2, found none"},
      {kFormat, rendered("<start_of_turn>user\\n \\n<end_of_turn>\\n" + model),
       "prompts: expected text in turn 1, found only white space"},
      {kFormat, "@" + open_row(DataFormat::kTrainingExample) + "}",
       "prompts: " + text +
           "no such field; the row looks like format training_example: set dataset.format: training_example"},
  };
  EXPECT_EQ(check_all(rows), 25 * 3);
}

TEST(MalformedRows, Traces) {
  constexpr DataFormat kFormat = DataFormat::kTrace;
  const std::string text = "expected a non-empty string, found ";
  const auto ingest = [](const std::string& steps) {
    return "{\"prompt\":\"Q\",\"steps\":" + steps + ",\"final_answer\":\"A\"}";
  };
  const auto exported = [](const std::string& steps) {
    return "{\"prompts\":\"Q\",\"trace_steps\":" + steps + ",\"final_answer\":\"A\"}";
  };
  const std::vector<BadRow> rows = {
      {kFormat, "@{}", "prompt: " + text + "no such field"},
      {kFormat, R"(@{"steps":[],"final_answer":"A"})", "prompt: " + text + "no such field"},
      {kFormat, R"(@{"prompt":"Q","final_answer":"A"})", "steps: expected an array, found no such field"},
      {kFormat, R"(@{"prompts":"Q","final_answer":"A"})",
       "trace_steps: expected an array, found no such field; the row looks like format tunix_sft: set dataset.format: "
       "tunix_sft"},
      {kFormat, R"(@{"prompt":"Q","steps":[]})", "final_answer: " + text + "no such field"},
      {kFormat, R"(@{"prompt":"Q","trace_steps":[],"final_answer":"A"})",
       "steps: expected an array, found no such field"},
      {kFormat, R"({"prompt":"Q","prompts":@"Q","steps":[],"final_answer":"A"})",
       "prompts: expected either prompt or prompts, found both"},
      {kFormat, R"({"prompt":@"","steps":[],"final_answer":"A"})", "prompt: " + text + "an empty string"},
      {kFormat, R"({"prompts":@3,"trace_steps":[],"final_answer":"A"})", "prompts: " + text + "the number 3"},
      {kFormat, R"({"prompt":"Q","steps":[],"final_answer":@"\u2003"})", "final_answer: " + text + "only white space"},
      {kFormat, R"({"prompt":"Q","steps":[],"final_answer":@42})", "final_answer: " + text + "the number 42"},
      {kFormat, ingest("@\"S\""), "steps: expected an array, found the string \"S\""},
      {kFormat, ingest("@null"), "steps: expected an array, found null"},
      {kFormat, ingest("[@\"S\"]"), "steps[0]: expected an object {i, type, content}, found the string \"S\""},
      {kFormat, ingest("[@{}]"), "steps[0].content: " + text + "no such field"},
      {kFormat, ingest("[{\"content\":\"a\"},{\"content\":@\"\"}]"), "steps[1].content: " + text + "an empty string"},
      {kFormat, ingest("[{\"content\":@[\"a\"]}]"), "steps[0].content: " + text + "an array"},
      {kFormat, ingest("[{\"i\":@\"0\",\"content\":\"a\"}]"),
       "steps[0].i: expected a whole number from 0 on, found the string \"0\""},
      {kFormat, ingest("[{\"i\":@-1,\"content\":\"a\"}]"),
       "steps[0].i: expected a whole number from 0 on, found the number -1"},
      {kFormat, ingest("[{\"i\":@1.5,\"content\":\"a\"}]"),
       "steps[0].i: expected a whole number from 0 on, found the number 1.5"},
      {kFormat, ingest("[{\"i\":3,\"content\":\"a\"},{\"i\":@3,\"content\":\"b\"}]"),
       "steps[1].i: expected a number that no other step has, found the number 3"},
      {kFormat, ingest("[{\"type\":@1,\"content\":\"a\"}]"), "steps[0].type: expected a string, found the number 1"},
      {kFormat, exported("@{}"), "trace_steps: expected an array, found an empty object"},
      {kFormat, exported("[@{\"content\":\"S\"}]"), "trace_steps[0]: " + text + "an object"},
      {kFormat, exported("[\"a\",@\"\"]"), "trace_steps[1]: " + text + "an empty string"},
      {kFormat, exported("[\"a\",\"b\",@null]"), "trace_steps[2]: " + text + "null"},
      {kFormat, R"({"prompt":"Q","steps":[],"final_answer":"A","meta":@[]})",
       "meta: expected an object, found an empty array"},
      {kFormat, "@" + open_row(DataFormat::kTrainingExample) + "}",
       "steps: expected an array, found no such field; the row looks like format training_example: set dataset.format: "
       "training_example"},
      {kFormat, "@" + open_row(DataFormat::kTokens) + "}",
       "prompt: " + text + "no such field; the row looks like format tokens: set dataset.format: tokens"},
  };
  EXPECT_EQ(check_all(rows), 29 * 3);
}

TEST(MalformedRows, Tokens) {
  constexpr DataFormat kFormat = DataFormat::kTokens;
  const auto tokens = [](const std::string& ids, const std::string& mask) {
    return "{\"input_ids\":" + ids + ",\"loss_mask\":" + mask + "}";
  };
  const std::string id = "expected a token id from 0 to 2147483647, found ";
  const std::vector<BadRow> rows = {
      {kFormat, R"(@{"loss_mask":[0,1]})", "input_ids: expected an array, found no such field"},
      {kFormat, R"(@{"input_ids":[1,2]})", "loss_mask: expected an array, found no such field"},
      {kFormat, R"(@{"input_ids":[1,2],"labels":[0,1]})", "loss_mask: expected an array, found no such field"},
      {kFormat, tokens("@\"1 2\"", "[0,1]"), "input_ids: expected an array, found the string \"1 2\""},
      {kFormat, tokens("[1,2]", "@1"), "loss_mask: expected an array, found the number 1"},
      {kFormat, tokens("[1,@-2]", "[0,1]"), "input_ids[1]: " + id + "the number -2"},
      {kFormat, tokens("[@2147483648,2]", "[0,1]"), "input_ids[0]: " + id + "the number 2147483648"},
      {kFormat, tokens("[@99999999999999999999,2]", "[0,1]"),
       "input_ids[0]: " + id + "the number 99999999999999999999"},
      {kFormat, tokens("[1,@2.0]", "[0,1]"), "input_ids[1]: " + id + "the number 2.0"},
      {kFormat, tokens("[1,@1e3]", "[0,1]"), "input_ids[1]: " + id + "the number 1e3"},
      {kFormat, tokens("[1,@\"2\"]", "[0,1]"), "input_ids[1]: " + id + "the string \"2\""},
      {kFormat, tokens("[1,@null]", "[0,1]"), "input_ids[1]: " + id + "null"},
      {kFormat, tokens("[1,@[2]]", "[0,1]"), "input_ids[1]: " + id + "an array"},
      {kFormat, tokens("[1,2]", "[0,@2]"), "loss_mask[1]: expected 0 or 1, found the number 2"},
      {kFormat, tokens("[1,2]", "[0,@-1]"), "loss_mask[1]: expected 0 or 1, found the number -1"},
      {kFormat, tokens("[1,2]", "[0,@true]"), "loss_mask[1]: expected 0 or 1, found true"},
      {kFormat, tokens("[1,2]", "[0,@0.5]"), "loss_mask[1]: expected 0 or 1, found the number 0.5"},
      {kFormat, tokens("@[]", "[]"), "input_ids: expected at least two token ids, found an empty array"},
      {kFormat, tokens("[1,2,3]", "@[0,1]"), "loss_mask: expected 3 values, as many as input_ids, found 2"},
      {kFormat, tokens("[1,2]", "@[]"), "loss_mask: expected 2 values, as many as input_ids, found 0"},
      {kFormat, tokens("[1,2]", "@[0,0]"), "loss_mask: expected at least one 1: a token to be trained, found only 0"},
      {kFormat, tokens("[1]", "@[0]"), "loss_mask: expected at least one 1: a token to be trained, found only 0"},
      {kFormat, tokens("[1,2]", "[@1,1]"),
       "loss_mask[0]: expected 0, for nothing stands before the first token that could predict it, found 1"},
      {kFormat, "@" + open_row(DataFormat::kTrainingExample) + "}",
       "input_ids: expected an array, found no such field; the row looks like format training_example: set "
       "dataset.format: "
       "training_example"},
  };
  EXPECT_EQ(check_all(rows), 24 * 3);
}

TEST(MalformedRows, FilesOfOtherKindsAreRecognisedByTheirFirstBytes) {
  const struct {
    std::string bytes;
    std::string found;
  } files[] = {
      {"\x1f\x8b\x08rest", "a gzip file; unpack it first (gunzip)"},
      {"\x1f\x8b", "a gzip file; unpack it first (gunzip)"},  // cut short
      {"PK\x03\x04rest", "a zip file; unpack it first (unzip)"},
      {"\x28\xb5\x2f\xfdrest", "a zstd file; unpack it first (unzstd)"},
      {"\xfd"
       "7zXZrest",
       "an xz file; unpack it first (unxz)"},
      {"PAR1rest", "a Parquet file; write its rows as JSONL first"},
      {std::string("\xff\xfe{\0}\0\n\0", 8), "UTF-16 text; convert it first (iconv -f UTF-16 -t UTF-8)"},
      {std::string("\xfe\xff\0{\0}\0\n", 8), "UTF-16 text; convert it first (iconv -f UTF-16 -t UTF-8)"},
  };
  const TempDir dir;
  for (const auto& file : files) {
    const std::string path = dir.write("rows.jsonl", file.bytes);
    ExampleReader reader(path, DataFormat::kTrainingExample);
    const auto row = reader.next();
    ASSERT_TRUE(row);
    EXPECT_EQ(std::get<RowProblem>(row->content).message, path + ":1:1: row: expected JSON text, found " + file.found);
  }
}

TEST(MalformedRows, HostileTextIsShownShortAndEscaped) {
  const auto content =
      parse_example("{\"prompt\":\"a\",\"response\":\"b\",\"id\":[\"\"],\"metadata\":\"\\u001b[2J\\u202e" +
                        std::string(5000, 'x') + "\"}",
                    "f", 1, DataFormat::kTrainingExample);
  EXPECT_EQ(std::get<RowProblem>(content).field, "id");
  const auto metadata = parse_example(
      "{\"prompt\":\"a\",\"response\":\"b\",\"metadata\":\"\\u001b[2J\\u202e" + std::string(5000, 'x') + "\"}", "f", 1,
      DataFormat::kTrainingExample);
  const std::string message = std::get<RowProblem>(metadata).message;
  EXPECT_EQ(message, "f:1:41: metadata: expected an object, found the string \"\\u001b[2J\\u202e" +
                         std::string(45, 'x') + "\"...");
}

}  // namespace
}  // namespace gemma_sft
