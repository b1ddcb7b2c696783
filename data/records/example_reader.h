// A JSONL file -> `Example`s, one row at a time, in bounded memory.
//
// Formats: training_example ({id, prompt, response, metadata}, or `messages` in place of prompt/response), tunix_sft
// (the rendered prompt parsed back into its turns), trace (ingest shape {prompt, steps, final_answer, meta} and export
// shape {prompts, trace_steps, final_answer, metadata}; trains as its training_example rendering), tokens. Every
// problem is a `RowProblem` with file:line:column and field; the reader decides nothing about skipping.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "configs/run_config.h"
#include "data/records/example.h"

namespace gemma_sft {

// "file:line:column: field: what was expected, what was found" in `message`.
struct RowProblem {
  RowPlace place;
  int64_t column = 0;  // from 1, in bytes
  std::string field;
  std::string message;
};

// The place of a row in the file, for reading it again later.
struct RowOffset {
  uint64_t byte = 0;  // where the line starts
  int64_t line = 0;   // from 1
};

// Parses one line. Never throws for bad content: gives the first problem of the row instead.
// `file` is used for places and for the id of a row that has none.
std::variant<Example, RowProblem> parse_example(const std::string& line, const std::string& file, int64_t line_number,
                                                DataFormat format);

// What is wrong with the bytes or the JSON of a line, whatever its fields: nullopt for one JSON value in UTF-8.
std::optional<RowProblem> find_text_problem(const std::string& line, const std::string& file, int64_t line_number);

// Reads lines of any file size; a line longer than `max_line_bytes` is a RowProblem (the rest of it is skipped unread
// into memory). Blank lines (only white space) are passed over. One thread at a time. Throws Error(kData) when the file
// is absent
// ("Data file not found: PATH") and Error(kIo) when reading fails.
class ExampleReader {
 public:
  static constexpr uint64_t kDefaultMaxLineBytes = 64ull << 20;
  ExampleReader(const std::string& file, DataFormat format, uint64_t max_line_bytes = kDefaultMaxLineBytes);
  ~ExampleReader();
  // A row and where it stands.
  struct Row {
    std::variant<Example, RowProblem> content;
    RowOffset offset;
    bool is_too_long = false;  // a line beyond max_line_bytes: going on means reading the rest of it
  };
  std::unique_ptr<Row> next();  // nullptr at the end of the file
  // Reads the row at a known place again (random access).
  std::variant<Example, RowProblem> read_at(const RowOffset& offset);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The training_example rendering of a trace (seed-compatible): prompt + "\n\nPlease show your reasoning steps." and
// "Reasoning:\n1. ...\nAnswer: ...".
std::vector<Turn> render_trace(const std::string& prompt, const std::vector<std::string>& steps,
                               const std::string& final_answer);

}  // namespace gemma_sft
