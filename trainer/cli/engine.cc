// gemma-sft-engine: the commands that need LibTorch. Started by gemma-sft, with the same words.
#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <variant>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "model/cpu_memory.h"
#include "trainer/cli/engine_commands.h"
#include "trainer/cli/program.h"
#include "trainer/run/utf8_json.h"
#include "trainer/run_export.h"
#include "trainer/stop_signal.h"

namespace gemma_sft {

int report_stop(const Output& output, const std::string& what) {
  const int signal = stop_signal();
  output.note(fmt::format("stopped by signal {} ({}): {}", signal, strsignal(signal), what));
  return 128 + signal;
}

void warn_of_long_answers(const Output& output, int64_t beyond_maximum, int64_t answers, const std::string& remedy) {
  if (beyond_maximum == 0) return;
  output.warn(
      fmt::format("{} of {} answers go beyond the model's max_position_embeddings, which it was not made for; {}",
                  beyond_maximum, answers, remedy));
}

int run_export_command(const ExportArguments& arguments, const Output& output) {
  const ExportResult result =
      run_export({.input = arguments.input,
                  .base = arguments.base,
                  .form = arguments.format == ExportFormat::kModel ? ExportedForm::kModel : ExportedForm::kAdapter,
                  .dtype = arguments.dtype,
                  .output = arguments.output},
                 real_file_system());
  if (output.json()) {
    const nlohmann::ordered_json json = {
        {"output", arguments.output}, {"source", result.source.string()}, {"base", result.base.string()}};
    output.print(utf8_json(json) + "\n");
  }
  output.explain(fmt::format("from {}, base model {}", result.source.string(), result.base.string()));
  output.status("Exported: " + arguments.output);
  return 0;
}

namespace {

class Engine {
 public:
  explicit Engine(const Output& output) : output_(output) {}

  int operator()(const TrainArguments& arguments) const {
    if (arguments.dry_run) return refuse();
    return run_train_command(arguments, output_);
  }
  int operator()(const GenerateArguments& arguments) const { return run_generate_command(arguments, output_); }
  int operator()(const EvalArguments& arguments) const { return run_eval_command(arguments, output_); }
  int operator()(const EvalGenerateArguments& arguments) const { return run_eval_generate_command(arguments, output_); }
  int operator()(const ExportArguments& arguments) const { return run_export_command(arguments, output_); }
  int operator()(const SelftestArguments& arguments) const {
    if (arguments.make_script) return refuse();
    return run_selftest_command(arguments, output_);
  }
  template <typename Other>
  int operator()(const Other&) const {
    return refuse();
  }

 private:
  static int refuse() {
    throw Error(ErrorKind::kUsage, "gemma-sft-engine does not know this command; it is started by gemma-sft, use that");
  }
  const Output& output_;
};

}  // namespace
}  // namespace gemma_sft

int main(int argc, char** argv) {
  using gemma_sft::CommandLine;
  using gemma_sft::Output;
  gemma_sft::keep_large_blocks();
  return gemma_sft::run_program(argc, argv, [](const CommandLine& line, const Output& output) {
    gemma_sft::install_stop_signals();
    try {
      return std::visit(gemma_sft::Engine(output), line.arguments);
    } catch (const gemma_sft::StopRequested&) {
      return gemma_sft::report_stop(output, "nothing was written");
    }
  });
}
