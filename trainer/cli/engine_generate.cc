#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "data/files/file_system.h"
#include "trainer/cli/engine_commands.h"
#include "trainer/cli/row_writer.h"
#include "trainer/run/utf8_json.h"
#include "trainer/run_generation.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {

int run_generate_command(const GenerateArguments& arguments, const Output& output) {
  GenerationRequest request;
  request.model = arguments.model;
  request.revision = arguments.revision;
  request.adapter = arguments.adapter;
  request.base = arguments.base;
  request.prompt = arguments.prompt;
  if (arguments.input) request.input = *arguments.input;
  request.max_new_tokens = arguments.sampling.max_new_tokens;
  request.ignore_eos = arguments.ignore_eos;
  request.raw = arguments.raw;
  request.parse_control_tokens = arguments.parse_control_tokens;
  request.sampling = {.temperature = arguments.sampling.temperature,
                      .top_k = arguments.sampling.top_k,
                      .top_p = arguments.sampling.top_p,
                      .seed = arguments.sampling.seed};
  request.device = arguments.device;
  request.precision = arguments.precision;

  RowWriter rows(arguments.output, output, real_file_system());
  const bool plain = arguments.prompt && !arguments.output && !output.json();
  int64_t count = 0;
  int64_t tokens = 0;
  int64_t beyond_maximum = 0;
  run_generation(request, [&](const GeneratedRow& row) {
    rows.write((plain ? row.text : to_json(row)) + "\n");
    ++count;
    beyond_maximum += row.beyond_maximum ? 1 : 0;
    tokens += static_cast<int64_t>(row.output_ids.size());
  });
  if (stop_signal() != 0) {
    rows.finish_part();
    return report_stop(output, fmt::format("generate after {} rows", count));
  }
  rows.finish();
  warn_of_long_answers(output, beyond_maximum, count, "lower --max-new-tokens");
  if (output.json() && arguments.output) {
    const nlohmann::ordered_json json = {{"output", *arguments.output}, {"rows", count}, {"new_tokens", tokens}};
    output.print(utf8_json(json) + "\n");
  }
  return 0;
}

}  // namespace gemma_sft
