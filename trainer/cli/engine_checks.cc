#include "trainer/cli/engine_checks.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "configs/error.h"
#include "data/files/input_file.h"
#include "model/adapter_config.h"
#include "model/gemma_config.h"
#include "model/hub_cache.h"
#include "model/peft_folder.h"
#include "trainer/cli/row_writer.h"
#include "trainer/cli/train_request.h"
#include "trainer/selftest_case.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// A model folder, a hub id, or a PEFT folder that says what its base is.
void require_model(const std::string& model, const std::optional<std::string>& revision,
                   const std::optional<std::string>& adapter, const std::optional<std::string>& base) {
  if (adapter) {
    if (!is_adapter_folder(*adapter)) {
      throw Error(ErrorKind::kModel,
                  fmt::format("--adapter {}: adapter_config.json not found; expected a PEFT folder", *adapter));
    }
    load_adapter_config(*adapter);
  }
  if (is_adapter_folder(model)) {
    load_adapter_config(model);
    if (base) load_gemma_config(require_model_folder(*base, std::nullopt));
    return;
  }
  const fs::path inside = fs::path(model) / "final_model";
  std::error_code unknown;
  if (!fs::exists(fs::path(model) / "config.json", unknown) && fs::is_directory(inside, unknown)) {
    throw Error(ErrorKind::kModel, fmt::format("{}: is a run folder; its model is {}", model, inside.string()));
  }
  load_gemma_config(require_model_folder(model, revision));
}

// Nothing is passed over silently.
void warn_of_unused(const std::string& model, const std::optional<std::string>& revision,
                    const std::optional<std::string>& base, const SamplingArguments& sampling, const Output& output) {
  std::error_code unknown;
  if (revision && fs::is_directory(model, unknown)) {
    output.warn("--revision has no effect, because --model is a folder");
  }
  if (base && !is_adapter_folder(model)) output.warn("--base has no effect, because --model is no PEFT folder");
  if (sampling.temperature == 0 && (sampling.top_k > 0 || sampling.top_p < 1)) {
    output.warn("--top-k and --top-p have no effect with --temperature 0, which takes the most likely token");
  }
}

void require_input(const std::string& name, const std::string& file) {
  if (!fs::exists(file)) throw Error(ErrorKind::kData, fmt::format("Data file not found: {}; check {}", file, name));
  try {
    const InputFile readable(file);  // a pipe nobody writes to would never end
  } catch (const Error& error) {
    throw Error(ErrorKind::kData, error.what());
  }
}

}  // namespace

void check_train(const TrainArguments& arguments) {
  const TrainRequest request = make_train_request(arguments);
  require_startable(request, find_dataset(request.loaded));
}

void check_generate(const GenerateArguments& arguments, const Output& output) {
  if (arguments.input) require_input("--input", *arguments.input);
  RowWriter::require_place(arguments.output, arguments.input);
  require_device(arguments.device);
  require_model(arguments.model, arguments.revision, arguments.adapter, arguments.base);
  warn_of_unused(arguments.model, arguments.revision, arguments.base, arguments.sampling, output);
}

void check_eval(const EvalArguments& arguments, const Output& output) {
  require_input("--input", arguments.input);
  RowWriter::require_place(arguments.output, arguments.input);
  require_device(arguments.device);
  require_model(arguments.model, arguments.revision, arguments.adapter, arguments.base);
  warn_of_unused(arguments.model, arguments.revision, arguments.base, arguments.sampling, output);
}

void check_export(const ExportArguments& arguments) {
  if (!fs::is_directory(arguments.input)) {
    throw Error(ErrorKind::kModel,
                fmt::format("--input {}: not found; expected a run folder, a checkpoint, a model folder or "
                            "a PEFT folder",
                            arguments.input));
  }
  if (fs::exists(arguments.output)) {
    throw Error(ErrorKind::kUsage,
                fmt::format("--output {}: exists already; give a new folder or remove it first", arguments.output));
  }
}

void check_selftest(const SelftestArguments& arguments) {
  require_device(arguments.device);
  if (arguments.case_folder) {
    read_selftest_case(*arguments.case_folder);
  } else {
    find_selftest_cases(shipped_selftest_folder());
  }
}

void check_eval_generate(const EvalGenerateArguments& arguments) {
  require_input("--eval-set", *arguments.eval_set);
  RowWriter::require_place(arguments.output, arguments.eval_set);
  require_device(arguments.device);
  require_model(*arguments.model, std::nullopt, std::nullopt, std::nullopt);
}

}  // namespace gemma_sft
