#include "data/records/example_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/error.h"
#include "data/files/input_file.h"
#include "data/files/json_text.h"
#include "data/files/line_reader.h"
#include "data/files/pickle.h"
#include "data/files/utf8.h"
#include "data/records/manifest.h"
#include "data/text/chat_template.h"

namespace gemma_sft {
namespace {

constexpr char kStartOfTurn[] = "<start_of_turn>";
constexpr char kEndOfTurn[] = "<end_of_turn>";
constexpr char kBom[] = "\xef\xbb\xbf";
constexpr char kOneLineHint[] =
    "; every row must be one JSON object in one line (jq -c '.[]' or jq -c . rewrites a file so)";

bool is_blank_line(std::string_view line) { return line.find_first_not_of(" \t\r\v\f") == std::string_view::npos; }

// What a file is that begins like `line`, when it is surely not JSONL; else "".
std::string recognise_file(std::string_view line) {
  const auto begins_with = [&](std::string_view magic) { return line.substr(0, magic.size()) == magic; };
  if (begins_with("\x1f\x8b")) return "a gzip file; unpack it first (gunzip)";
  if (begins_with("PK\x03\x04")) return "a zip file; unpack it first (unzip)";
  if (begins_with("\x28\xb5\x2f\xfd")) return "a zstd file; unpack it first (unzstd)";
  if (begins_with("\xfd"
                  "7zXZ"))
    return "an xz file; unpack it first (unxz)";
  if (const std::string pickle = recognise_pickle(line); !pickle.empty()) return pickle;
  if (begins_with("PAR1")) return "a Parquet file; write its rows as JSONL first";
  if (begins_with("\xff\xfe") || begins_with("\xfe\xff")) {
    return "UTF-16 text; convert it first (iconv -f UTF-16 -t UTF-8)";
  }
  return "";
}

struct BadRow {
  RowProblem problem;
};

// Parses one row; leaves by throwing BadRow at the first problem.
class RowParser {
 public:
  // A '\r' at the end belongs to the line's end, not to the row.
  RowParser(std::string_view line, const std::string& file, int64_t line_number)
      : line_(line.ends_with('\r') ? line.substr(0, line.size() - 1) : line), place_{file, line_number} {}

  Example parse(DataFormat format) {
    check_text();
    read_fields(format);
    Example example;
    example.place = place_;
    example.id = read_id();
    switch (format) {
      case DataFormat::kTrainingExample:
        example.turns = find("messages") ? read_messages() : read_prompt_and_response();
        break;
      case DataFormat::kTunixSft: example.turns = read_rendered_turns(); break;
      case DataFormat::kTrace: example.turns = read_trace(); break;
      case DataFormat::kTokens: example.tokens = read_tokens(example.id); break;
    }
    check_metadata("metadata");
    if (format == DataFormat::kTrace) check_metadata("meta");
    example.unread_fields = std::move(unread_);
    return example;
  }

  // Bytes first, then JSON: what is wrong with the encoding explains what is wrong with the rest.
  void check_text() {
    if (place_.line == 1) {
      if (const std::string kind = recognise_file(line_); !kind.empty()) fail(0, "row", "JSON text", kind);
    }
    if (line_.starts_with(kBom)) {
      fail(0, "row", "JSON text", "a byte order mark (ef bb bf); remove it (sed -i 's/^\\xef\\xbb\\xbf//' FILE)");
    }
    if (const size_t nul = line_.find('\0'); nul != std::string::npos) {
      const auto count = static_cast<size_t>(std::count(line_.begin(), line_.end(), '\0'));
      if (count * 3 >= line_.size()) {
        fail(nul, "row", "UTF-8 text", "UTF-16 or UTF-32 text; convert it first (iconv -f UTF-16 -t UTF-8)");
      }
      fail(nul, "row", "UTF-8 text", "a NUL byte");
    }
    if (const auto problem = find_json_problem(line_)) {
      const bool at_end = problem->byte >= line_.size();
      std::string found = at_end ? "the end of the line" : problem->found;
      if (at_end && (line_[0] == '[' || line_.find_first_not_of(" \t\r{") == std::string::npos)) found += kOneLineHint;
      fail(problem->byte, "row", problem->expected, found);
    }
  }

 private:
  [[noreturn]] void fail(size_t byte, const std::string& field, const std::string& expected,
                         const std::string& found) const {
    RowProblem problem{place_, static_cast<int64_t>(byte) + 1, field, ""};
    problem.message = fmt::format("{}:{}:{}: {}: expected {}, found {}", place_.file, place_.line, problem.column,
                                  field, expected, found);
    throw BadRow{std::move(problem)};
  }

  [[noreturn]] void fail(const JsonValue& value, const std::string& field, const std::string& expected) const {
    fail(value.byte(), field, expected, value.description());
  }

  [[noreturn]] void fail_missing(const std::string& field, const std::string& expected) const {
    fail(row_->byte(), field, expected, "no such field" + other_format_hint());
  }

  static bool reads(DataFormat format, std::string_view field) {
    const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
      return std::find(names.begin(), names.end(), field) != names.end();
    };
    if (is_one_of({"id", "metadata"})) return true;
    switch (format) {
      case DataFormat::kTrainingExample: return is_one_of({"prompt", "response", "messages"});
      case DataFormat::kTunixSft: return is_one_of({"prompts", "final_answer"});
      case DataFormat::kTrace: return is_one_of({"prompt", "prompts", "steps", "trace_steps", "final_answer", "meta"});
      case DataFormat::kTokens: return is_one_of({"input_ids", "loss_mask"});
    }
    return false;
  }

  // By any format: a row that is read as the wrong one can be told which fits.
  static bool is_known(std::string_view field) {
    const auto formats = {DataFormat::kTrainingExample, DataFormat::kTunixSft, DataFormat::kTrace, DataFormat::kTokens};
    return std::any_of(formats.begin(), formats.end(), [&](DataFormat format) { return reads(format, field); });
  }

  void remember_unread(const std::string& field) {
    constexpr size_t kMostNamed = 8;
    constexpr size_t kMostBytes = 40;
    const std::string shown = quoted_excerpt(field, kMostBytes);
    const std::string name = shown == '"' + field + '"' ? field : shown;
    if (unread_.size() < kMostNamed && std::find(unread_.begin(), unread_.end(), name) == unread_.end()) {
      unread_.push_back(name);
    }
  }

  void read_fields(DataFormat format) {
    row_.emplace(line_);
    if (row_->kind() != JsonKind::kObject) {
      const bool is_list = row_->kind() == JsonKind::kArray;
      fail(row_->byte(), "row", "a JSON object", row_->description() + (is_list ? kOneLineHint : ""));
    }
    row_->each_member([&](const JsonMember& member) {
      if (is_known(member.name)) fields_.emplace_back(member.name, member.value);
      if (!reads(format, member.name)) remember_unread(member.name);
      return true;
    });
  }

  const JsonValue* find(std::string_view field) const {
    for (const auto& [name, value] : fields_) {
      if (name == field) return &value;
    }
    return nullptr;
  }

  // Rows of one format read as another are the commonest mistake: say which format fits.
  std::string other_format_hint() const {
    const auto hint = [](DataFormat format) {
      return fmt::format("; the row looks like format {0}: set dataset.format: {0}", format_name(format));
    };
    if (find("input_ids") && find("loss_mask")) return hint(DataFormat::kTokens);
    if (find("final_answer") && ((find("prompt") && find("steps")) || (find("prompts") && find("trace_steps")))) {
      return hint(DataFormat::kTrace);
    }
    if (find("prompts") && find("final_answer")) return hint(DataFormat::kTunixSft);
    if ((find("prompt") && find("response")) || find("messages")) return hint(DataFormat::kTrainingExample);
    return "";
  }

  std::string read_text(const JsonValue& value, const std::string& field) const {
    constexpr char kExpected[] = "a non-empty string";
    if (value.kind() != JsonKind::kString) fail(value, field, kExpected);
    std::string text = value.string();
    if (text.empty()) fail(value, field, kExpected);
    if (strip_like_python(text).empty()) fail(value.byte(), field, kExpected, "only white space");
    return text;
  }

  std::string require_text(const std::string& field) const {
    const JsonValue* value = find(field);
    if (!value) fail_missing(field, "a non-empty string");
    return read_text(*value, field);
  }

  const JsonValue& require_array(const std::string& field) const {
    const JsonValue* value = find(field);
    if (!value) fail_missing(field, "an array");
    if (value->kind() != JsonKind::kArray) fail(*value, field, "an array");
    return *value;
  }

  std::string read_id() const {
    const JsonValue* value = find("id");
    if (!value) return fmt::format("{}:{}", place_.file, place_.line);
    if (value->kind() != JsonKind::kString || value->string().empty()) fail(*value, "id", "a non-empty string");
    return value->string();
  }

  void check_metadata(const std::string& field) const {
    const JsonValue* value = find(field);
    if (value && value->kind() != JsonKind::kObject && value->kind() != JsonKind::kNull) {
      fail(*value, field, "an object");
    }
  }

  std::vector<Turn> read_prompt_and_response() const {
    std::string prompt = require_text("prompt");
    return {{Role::kUser, std::move(prompt)}, {Role::kModel, require_text("response")}};
  }

  // The role that may stand after `turns`, in words; "" when `role` is one of them.
  static std::string wrong_role(const std::vector<Turn>& turns, Role role) {
    if (role == Role::kSystem) return turns.empty() ? "" : "a system turn only at the start";
    const bool is_users = turns.empty() || turns.back().role != Role::kUser;
    if (is_users == (role == Role::kUser)) return "";
    return is_users ? "the user's turn, for user and model alternate"
                    : "the model's turn, for user and model alternate";
  }

  std::vector<Turn> read_messages() {
    const JsonValue& messages = require_array("messages");
    for (const char* other : {"prompt", "response"}) {
      if (find(other)) {
        fail(messages.byte(), "messages",
             fmt::format("either messages or prompt and response, as there is a {}", other), "both");
      }
    }
    std::vector<Turn> turns;
    messages.each_element([&](const JsonValue& message) {
      turns.push_back(read_message(message, turns));
      return true;
    });
    if (turns.empty()) fail(messages, "messages", "at least one user turn and one model turn");
    if (turns.back().role != Role::kModel) {
      fail(messages.byte(), "messages", "a last turn with the role model or assistant, which is what is trained",
           turns.back().role == Role::kUser ? "the role user" : "the role system");
    }
    return turns;
  }

  Turn read_message(const JsonValue& message, const std::vector<Turn>& before) {
    const std::string field = fmt::format("messages[{}]", before.size());
    if (message.kind() != JsonKind::kObject) fail(message, field, "an object {role, content}");
    std::optional<JsonValue> role;
    std::optional<JsonValue> content;
    message.each_member([&](const JsonMember& member) {
      if (member.name == "role") {
        role.emplace(member.value);
      } else if (member.name == "content") {
        content.emplace(member.value);
      } else {
        remember_unread("messages[]." + member.name);
      }
      return true;
    });
    constexpr char kRoles[] = "system, user, model or assistant";
    if (!role) fail(message.byte(), field + ".role", kRoles, "no such field");
    if (!content) fail(message.byte(), field + ".content", "a non-empty string", "no such field");
    if (role->kind() != JsonKind::kString) fail(*role, field + ".role", kRoles);
    const std::string name = role->string();
    Turn turn;
    if (name == "system") {
      turn.role = Role::kSystem;
    } else if (name == "user") {
      turn.role = Role::kUser;
    } else if (name == "model" || name == "assistant") {
      turn.role = Role::kModel;
    } else {
      fail(*role, field + ".role", kRoles);
    }
    if (const std::string expected = wrong_role(before, turn.role); !expected.empty()) {
      fail(*role, field + ".role", expected);
    }
    turn.text = read_text(*content, field + ".content");
    return turn;
  }

  // The inverse of the rendering <start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\nM<end_of_turn>: turns are
  // cut where one ends and the next begins; control tokens elsewhere are text, which the rendering does not escape.
  std::vector<Turn> read_rendered_turns() const {
    const std::string rendered = require_text("prompts");
    const JsonValue& value = *find("prompts");
    const std::string start = kStartOfTurn;
    const std::string end = kEndOfTurn;
    std::string_view rest = rendered;
    if (rest.ends_with("\n")) rest.remove_suffix(1);
    if (!rest.starts_with(start + "user\n")) {
      fail(value.byte(), "prompts", "text that begins with " + quoted_excerpt(start + "user\n"),
           quoted_excerpt(rest, 40) + (find("trace_steps") ? other_format_hint() : ""));
    }
    rest.remove_prefix(start.size());
    if (!rest.ends_with(end)) {
      const size_t shown = std::min<size_t>(rest.size(), 30);
      std::string_view tail = rest.substr(rest.size() - shown);
      while (!tail.empty() && (tail[0] & 0xc0) == 0x80) tail.remove_prefix(1);
      fail(value.byte(), "prompts", "text that ends with " + quoted_excerpt(end), quoted_excerpt(tail));
    }
    rest.remove_suffix(end.size());
    std::vector<Turn> turns;
    const std::string boundary = end + "\n" + start;
    for (bool is_last = false; !is_last;) {
      const size_t cut = rest.find(boundary);
      is_last = cut == std::string_view::npos;
      turns.push_back(read_rendered_turn(rest.substr(0, cut), turns, value));
      if (!is_last) rest.remove_prefix(cut + boundary.size());
    }
    if (turns.back().role != Role::kModel) fail(value.byte(), "prompts", "a last turn of the model", "the user's turn");
    check_final_answer(turns.back().text);
    return turns;
  }

  Turn read_rendered_turn(std::string_view text, const std::vector<Turn>& before, const JsonValue& value) const {
    const size_t line_end = text.find('\n');
    const std::string_view role = text.substr(0, line_end);
    Turn turn;
    if (role == "model") {
      turn.role = Role::kModel;
    } else if (role != "user") {
      fail(value.byte(), "prompts", fmt::format("the role user or model in turn {}", before.size() + 1),
           quoted_excerpt(role, 40));
    }
    if (const std::string expected = wrong_role(before, turn.role); !expected.empty()) {
      fail(value.byte(), "prompts", fmt::format("as turn {} {}", before.size() + 1, expected), quoted_excerpt(role));
    }
    if (line_end != std::string_view::npos) turn.text = text.substr(line_end + 1);
    if (strip_like_python(turn.text).empty()) {
      fail(value.byte(), "prompts", fmt::format("text in turn {}", before.size() + 1),
           turn.text.empty() ? "none" : "only white space");
    }
    return turn;
  }

  // The rendering ends with the answer; a row in which the two differ says two things about what to train.
  void check_final_answer(const std::string& model_text) const {
    const std::string answer = require_text("final_answer");
    if (!strip_like_python(model_text).ends_with(strip_like_python(answer))) {
      fail(*find("final_answer"), "final_answer", "what the model's turn in prompts ends with");
    }
  }

  std::vector<Turn> read_trace() const {
    const JsonValue* prompt = find("prompt");
    const JsonValue* prompts = find("prompts");
    if (prompt && prompts) fail(prompts->byte(), "prompts", "either prompt or prompts", "both");
    const std::string question = require_text(prompts ? "prompts" : "prompt");
    std::vector<std::string> steps;
    if (prompts) {
      require_array("trace_steps").each_element([&](const JsonValue& step) {
        steps.push_back(read_text(step, fmt::format("trace_steps[{}]", steps.size())));
        return true;
      });
    } else {
      std::set<int64_t> numbers;
      require_array("steps").each_element([&](const JsonValue& step) {
        steps.push_back(read_step(step, fmt::format("steps[{}]", steps.size()), numbers));
        return true;
      });
    }
    return render_trace(question, steps, require_text("final_answer"));
  }

  std::string read_step(const JsonValue& step, const std::string& field, std::set<int64_t>& numbers) const {
    if (step.kind() != JsonKind::kObject) fail(step, field, "an object {i, type, content}");
    std::optional<std::string> content;
    step.each_member([&](const JsonMember& member) {
      const JsonValue& value = member.value;
      if (member.name == "content") content = read_text(value, field + ".content");
      if (member.name == "type" && value.kind() != JsonKind::kString) fail(value, field + ".type", "a string");
      if (member.name == "i") {
        const auto number = value.kind() == JsonKind::kNumber ? value.integer() : std::nullopt;
        if (!number || *number < 0) fail(value, field + ".i", "a whole number from 0 on");
        if (!numbers.insert(*number).second) fail(value, field + ".i", "a number that no other step has");
      }
      return true;
    });
    if (!content) fail(step.byte(), field + ".content", "a non-empty string", "no such field");
    return std::move(*content);
  }

  TokenizedExample read_tokens(const std::string& id) const {
    constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();
    TokenizedExample tokens;
    tokens.id = id;
    const JsonValue& ids = require_array("input_ids");
    read_integers(ids, "input_ids", kMaxId, fmt::format("a token id from 0 to {}", kMaxId),
                  [&](int64_t value) { tokens.input_ids.push_back(static_cast<int32_t>(value)); });
    const JsonValue& mask = require_array("loss_mask");
    std::optional<size_t> first_target;
    read_integers(mask, "loss_mask", 1, "0 or 1", [&](int64_t value) {
      if (value == 1 && !first_target) first_target = tokens.loss_mask.size();
      tokens.loss_mask.push_back(static_cast<uint8_t>(value));
    });
    if (tokens.input_ids.empty()) fail(ids, "input_ids", "at least two token ids");
    if (tokens.input_ids.size() != tokens.loss_mask.size()) {
      fail(mask.byte(), "loss_mask", fmt::format("{} values, as many as input_ids", tokens.input_ids.size()),
           fmt::format("{}", tokens.loss_mask.size()));
    }
    if (!first_target) fail(mask.byte(), "loss_mask", "at least one 1: a token to be trained", "only 0");
    if (*first_target == 0) {
      mask.each_element([&](const JsonValue& first) -> bool {
        fail(first.byte(), "loss_mask[0]", "0, for nothing stands before the first token that could predict it", "1");
      });
    }
    return tokens;
  }

  template <typename Use>
  void read_integers(const JsonValue& array, const char* field, int64_t most, const std::string& expected,
                     const Use& use) const {
    size_t index = 0;
    array.each_element([&](const JsonValue& element) {
      const auto value = element.kind() == JsonKind::kNumber ? element.integer() : std::nullopt;
      if (!value || *value < 0 || *value > most) fail(element, fmt::format("{}[{}]", field, index), expected);
      use(*value);
      ++index;
      return true;
    });
  }

  const std::string_view line_;
  const RowPlace place_;
  std::optional<JsonValue> row_;
  std::vector<std::pair<std::string, JsonValue>> fields_;  // the known ones
  std::vector<std::string> unread_;                        // the first names of those that the format does not read
};

InputFile open_data_file(const std::string& file) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    throw Error(ErrorKind::kData,
                fmt::format("Data file not found: {}; check dataset.data_path or --data (relative paths start at the "
                            "working directory)",
                            file));
  }
  try {
    return InputFile(file);
  } catch (const Error& problem) {
    const bool is_other_kind = std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
    throw Error(is_other_kind ? ErrorKind::kData : problem.kind(), problem.what());
  }
}

}  // namespace

std::variant<Example, RowProblem> parse_example(const std::string& line, const std::string& file, int64_t line_number,
                                                DataFormat format) {
  try {
    return RowParser(line, file, line_number).parse(format);
  } catch (BadRow& bad) {
    return std::move(bad.problem);
  }
}

std::optional<RowProblem> find_text_problem(const std::string& line, const std::string& file, int64_t line_number) {
  try {
    RowParser(line, file, line_number).check_text();
  } catch (BadRow& bad) {
    return std::move(bad.problem);
  }
  return std::nullopt;
}

struct ExampleReader::State {
  std::string file;
  DataFormat format;
  uint64_t max_line_bytes;
  LineReader lines;

  std::variant<Example, RowProblem> parse(const Line& line) const {
    if (!line.too_long) return parse_example(line.text, file, line.number, format);
    RowProblem problem{{file, line.number}, 1, "row", ""};
    problem.message =
        fmt::format("{}:{}:1: row: expected at most {} bytes in a line, found more", file, line.number, max_line_bytes);
    return problem;
  }
};

ExampleReader::ExampleReader(const std::string& file, DataFormat format, uint64_t max_line_bytes)
    : state_(new State{file, format, max_line_bytes, LineReader(open_data_file(file), max_line_bytes)}) {}

ExampleReader::~ExampleReader() = default;

std::unique_ptr<ExampleReader::Row> ExampleReader::next() {
  while (const std::optional<Line> line = state_->lines.next()) {
    if (!line->too_long && is_blank_line(line->text)) continue;
    return std::make_unique<Row>(Row{state_->parse(*line), {line->byte, line->number}, line->too_long});
  }
  return nullptr;
}

std::variant<Example, RowProblem> ExampleReader::read_at(const RowOffset& offset) {
  return state_->parse(state_->lines.at(offset.byte, offset.line));
}

std::vector<Turn> render_trace(const std::string& prompt, const std::vector<std::string>& steps,
                               const std::string& final_answer) {
  std::string response;
  if (!steps.empty()) response = "Reasoning:\n";
  for (size_t i = 0; i < steps.size(); ++i) response += fmt::format("{}. {}\n", i + 1, steps[i]);
  response += "Answer: " + final_answer;
  return {{Role::kUser, prompt + "\n\nPlease show your reasoning steps."}, {Role::kModel, response}};
}

}  // namespace gemma_sft
