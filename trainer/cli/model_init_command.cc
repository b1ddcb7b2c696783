#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "configs/nearest_key.h"
#include "data/files/file_system.h"
#include "model/gemma_config.h"
#include "model/model_init.h"
#include "trainer/cli/front_end_commands.h"
#include "trainer/run/progress.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostConfigBytes = 16 << 20;

GemmaConfig require_preset(const std::string& name) {
  if (const auto preset = find_preset(name)) return *preset;
  std::string known;
  for (const std::string& one : preset_names()) known += (known.empty() ? "" : ", ") + one;
  const Nearest nearest = nearest_word(name, preset_names());
  throw Error(ErrorKind::kUsage,
              fmt::format("--preset: \"{}\" not found{}; the presets are {}", name,
                          nearest.close ? fmt::format("; did you mean {}?", nearest.name) : "", known));
}

GemmaConfig require_config(const std::string& file) {
  if (!fs::exists(file))
    throw Error(ErrorKind::kModel, fmt::format("{}: not found; --config takes a config.json", file));
  return parse_gemma_config(read_file(file, kMostConfigBytes), file);
}

ModelDtype dtype_of(const std::string& name) {
  if (name == "float32") return ModelDtype::kFp32;
  if (name == "float16") return ModelDtype::kFp16;
  return ModelDtype::kBf16;
}

}  // namespace

int run_model_init(const ModelInitArguments& arguments, const Output& output) {
  const GemmaConfig config = arguments.preset ? require_preset(*arguments.preset) : require_config(*arguments.config);
  if (!fs::is_directory(arguments.tokenizer)) {
    throw Error(ErrorKind::kModel,
                fmt::format("{}: not found; --tokenizer takes a folder with tokenizer.model or tokenizer.json",
                            arguments.tokenizer));
  }
  init_model_folder(config, arguments.tokenizer, arguments.output, arguments.dtype.value_or(dtype_of(config.dtype)),
                    arguments.seed, real_file_system());
  const int64_t parameters = load_gemma_config(arguments.output).parameter_count();
  if (output.json()) {
    const nlohmann::ordered_json json = {{"output", arguments.output}, {"parameters", parameters}};
    output.print(utf8_json(json) + "\n");
  }
  output.status(fmt::format("Model of {} parameters: {}", format_count(parameters), arguments.output));
  return 0;
}

}  // namespace gemma_sft
