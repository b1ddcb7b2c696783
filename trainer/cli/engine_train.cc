#include <fmt/format.h>
#include <unistd.h>

#include <exception>
#include <nlohmann/json.hpp>
#include <string_view>

#include "configs/error.h"
#include "trainer/cli/engine_commands.h"
#include "trainer/cli/program.h"
#include "trainer/cli/status_lines.h"
#include "trainer/cli/train_request.h"
#include "trainer/run/progress.h"
#include "trainer/run/run_log.h"
#include "trainer/run/utf8_json.h"
#include "trainer/run_training.h"
#include "trainer/stop_signal.h"
#include "trainer/training_failure.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

const char* outcome_name(RunOutcome outcome) {
  switch (outcome) {
    case RunOutcome::kFinished: return "finished";
    case RunOutcome::kAlreadyFinished: return "already_finished";
    case RunOutcome::kStopped: return "stopped";
    case RunOutcome::kEarlyStopped: return "early_stopped";
  }
  return "unknown";
}

void print_result(const TrainRequest& request, const RunResult& result, const Output& output) {
  if (output.json()) {
    Json json = {{"command", "train"}, {"outcome", outcome_name(result.outcome)}, {"run_id", request.place.id}};
    json["run_folder"] = result.run_folder.string();
    json["final_model"] = result.final_model.empty() ? Json(nullptr) : Json(result.final_model.string());
    json["steps"] = result.steps;
    json["loss"] = result.final_loss ? Json(*result.final_loss) : Json(nullptr);
    json["eval_loss"] = result.final_eval_loss ? Json(*result.final_eval_loss) : Json(nullptr);
    output.print(utf8_json(json) + "\n");
    return;
  }
  std::string losses = result.final_loss ? fmt::format(", loss {:.4f}", *result.final_loss) : "";
  if (result.final_eval_loss) losses += fmt::format(", evaluation loss {:.4f}", *result.final_eval_loss);
  switch (result.outcome) {
    case RunOutcome::kFinished:
      output.status(fmt::format("Training finished: {} steps{}", result.steps, losses));
      break;
    case RunOutcome::kEarlyStopped:
      output.status(fmt::format("Training stopped early, evaluation got no better: {} steps{}", result.steps, losses));
      break;
    case RunOutcome::kAlreadyFinished:
      output.status(fmt::format("Run already finished, nothing to do: {} steps{}", result.steps, losses));
      break;
    case RunOutcome::kStopped: return;
  }
  output.status("Final model: " + result.final_model.string());
}

// On the watching thread, while the training thread hangs: nothing is unwound, for that would wait for it.
[[noreturn]] void end_stalled_run(RunLog& log, const std::string& message, const Output& output) noexcept {
  log.on_error(message);
  const int code = exit_code(ErrorKind::kTimeout);
  try {
    report_failure(output, code, message);
  } catch (...) {
    // Without memory for the words the exit code tells it.
  }
  _exit(code);
}

}  // namespace

int run_train_command(const TrainArguments& arguments, const Output& output) {
  TrainRequest request;
  with_memory_errors_explained({"start-up"}, [&] {
    request = make_train_request(arguments);
    print_config_status(request, output);
    const DatasetPlaces dataset = find_dataset(request.loaded);
    print_dataset_status(request, dataset, output);
    require_startable(request, dataset);
    choose_resume_checkpoint(request);
    print_place_status(request, output);
  });

  const Terminal terminal = describe_error_terminal();
  Progress progress({.redraw = terminal.redraws,
                     .color = terminal.color,
                     .ascii = output.ascii(),
                     .quiet = output.quiet(),
                     .columns = error_terminal_columns,
                     .clock = {},
                     .write = [&output](std::string_view text) { output.write_error_stream(text); }});
  RunLog log(request.place.folder, real_file_system());
  request.on_stall = [&](const std::string& message) { end_stalled_run(log, message, output); };
  for (const std::string& warning : request.loaded.warnings) progress.on_warning(warning);
  try {
    const RunResult result = run_training(request, real_file_system(), {&log, &progress});
    progress.on_finish();
    print_result(request, result, output);
    if (stop_signal() == 0) return 0;
    const char* rest = result.outcome != RunOutcome::kStopped ? "by then all was done, and final_model is complete"
                       : request.resume == ResumeMode::kFolder
                           ? "the same command without --resume continues it, with it the run is taken back again"
                           : "the same command continues it";
    // A stop may come before it is known where the run stands.
    const std::string when = result.steps > 0 ? fmt::format("after step {}", result.steps) : "before a step was done";
    return report_stop(output, fmt::format("{} {}; {}", result.run_folder.string(), when, rest));
  } catch (const std::exception& error) {
    log.on_error(error.what());
    progress.on_finish();
    throw;
  }
}

}  // namespace gemma_sft
