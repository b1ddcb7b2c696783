#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/text/tokenize_file.h"
#include "data/text/tokenizer.h"
#include "trainer/cli/front_end_commands.h"
#include "trainer/cli/row_writer.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {

int run_tokenize(const TokenizeArguments& arguments, const Output& output) {
  if (!std::filesystem::exists(arguments.model)) {
    throw Error(
        ErrorKind::kModel,
        fmt::format("{}: not found; --model takes a folder with tokenizer.model or tokenizer.json", arguments.model));
  }
  if (!std::filesystem::exists(arguments.input)) {
    throw Error(ErrorKind::kData, fmt::format("Data file not found: {}; check --input", arguments.input));
  }
  RowWriter::require_place(arguments.output, arguments.input);
  const auto tokenizer = Tokenizer::load(arguments.model);
  RowWriter rows(arguments.output, output, real_file_system());
  const TokenizeCounts counts = tokenize_file(
      arguments.input, *tokenizer,
      {.add_bos = arguments.add_bos, .parse_control_tokens = arguments.parse_control_tokens, .stop_requested = nullptr},
      [&rows](std::string_view line) { rows.write(line); });
  rows.finish();
  if (counts.control_text_rows > 0) {
    output.warn(fmt::format(
        "{}: {} rows spell a control token such as <start_of_turn> in their text; it was taken as {}", arguments.input,
        counts.control_text_rows, arguments.parse_control_tokens ? "that token" : "plain text"));
  }
  if (output.json()) {
    const nlohmann::ordered_json json = {{"input", arguments.input},
                                         {"output", *arguments.output},
                                         {"rows", counts.rows},
                                         {"tokens", counts.tokens},
                                         {"target_tokens", counts.target_tokens},
                                         {"control_text_rows", counts.control_text_rows}};
    output.print(utf8_json(json) + "\n");
  } else {
    output.note(
        fmt::format("{} rows, {} tokens, {} of them targets", counts.rows, counts.tokens, counts.target_tokens));
  }
  return 0;
}

}  // namespace gemma_sft
