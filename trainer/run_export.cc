#include "trainer/run_export.h"

#include <fmt/format.h>

#include "configs/error.h"
#include "data/files/folder_entry.h"
#include "model/adapter_config.h"
#include "model/export_check.h"
#include "model/hub_cache.h"
#include "model/peft_folder.h"
#include "model/weights.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/checkpoint/state_file.h"
#include "trainer/final_model.h"
#include "trainer/inference_model.h"
#include "trainer/model_source.h"
#include "trainer/run_completion.h"
#include "trainer/run_tensors.h"
#include "trainer/stop_signal.h"
#include "trainer/training_failure.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

// A model with weights, and where the rest of its folder comes from.
struct Loaded {
  Gemma model;
  fs::path base;
  AdapterBase named_base;  // what an adapter says its base is
};

// The folder meant by the user: of a run its final model, or what comes closest to it.
fs::path find_source(const fs::path& input) {
  if (fs::exists(input / kFinalModelName)) return input / kFinalModelName;
  if (is_exported_folder(input) || fs::exists(input / kCheckpointManifestName)) return input;
  if (!fs::exists(input)) throw Error(ErrorKind::kModel, fmt::format("{}: not found", input.string()));
  std::optional<fs::path> newest;
  int64_t newest_step = -1;
  for (const fs::path& path : list_folder(input)) {
    if (!step_of_checkpoint_name(path.filename().string())) continue;
    const CheckpointVerdict verdict = verify_checkpoint(path, std::nullopt, throw_if_stopped);
    if (!verdict.manifest || verdict.manifest->step <= newest_step) continue;
    newest = path;
    newest_step = verdict.manifest->step;
  }
  if (newest) return *newest;
  throw Error(ErrorKind::kModel,
              fmt::format("{}: neither a run folder, nor a checkpoint, nor a model, nor an adapter", input.string()));
}

ModelDtype output_dtype(const ExportRequest& request, const fs::path& base) {
  return request.dtype.value_or(files_dtype(base));
}

// Nothing is computed with it but a merge, which is done in fp32 and rounded to the storage dtype: bf16 where that is
// what both sides have, else fp32.
GemmaOptions storage_options(const fs::path& base, ModelDtype written) {
  GemmaOptions options;
  const bool bf16 = written == ModelDtype::kBf16 && files_dtype(base) == ModelDtype::kBf16;
  options.storage_dtype = bf16 ? c10::ScalarType::BFloat16 : c10::ScalarType::Float;
  options.compute_dtype = options.storage_dtype;
  return options;
}

Gemma load_base(const fs::path& base, const GemmaOptions& options) {
  std::optional<Gemma> model;
  with_memory_errors_explained({.phase = "loading the model", .remedy = "Use a machine with more memory."},
                               [&] { model.emplace(load_gemma(base, options, throw_if_stopped)); });
  return std::move(*model);
}

Loaded load_adapter_folder(const ExportRequest& request, const fs::path& folder) {
  const fs::path base = find_adapter_base(folder, request.base);
  Loaded loaded{load_base(base, storage_options(base, output_dtype(request, base))), base, read_adapter_base(folder)};
  add_adapter(loaded.model, folder);
  return loaded;
}

Loaded load_checkpoint_folder(const ExportRequest& request, const fs::path& folder) {
  const CheckpointVerdict verdict = verify_checkpoint(folder, std::nullopt, throw_if_stopped);
  if (!verdict.manifest) {
    throw Error(ErrorKind::kCheckpoint, fmt::format("{}: {}", folder.string(), verdict.problem));
  }
  const RunOrigin origin = read_saved_state(folder).origin;
  const fs::path base = request.base ? require_model_folder(*request.base, std::nullopt)
                        : fs::exists(fs::path(origin.model_folder) / "config.json")
                            ? fs::path(origin.model_folder)
                            : require_model_folder(origin.config.model.base_model, origin.config.model.revision);
  const bool lora = origin.config.lora.rank > 0;
  GemmaOptions options = storage_options(base, output_dtype(request, base));
  if (!lora) options.storage_dtype = model_options(origin.precision, c10::Device(c10::kCPU)).storage_dtype;
  Loaded loaded{load_base(base, options), base, adapter_base(origin.config.model, base)};
  if (lora) loaded.model.add_lora(lora_options(origin.config.lora), /*seed=*/0);
  read_checkpoint_weights(folder, trained_weights(loaded.model));
  return loaded;
}

Loaded load_model_folder(const ExportRequest& request, const fs::path& folder) {
  return {load_base(folder, storage_options(folder, output_dtype(request, folder))), folder, {}};
}

Loaded load_source(const ExportRequest& request, const fs::path& source) {
  if (is_adapter_folder(source)) return load_adapter_folder(request, source);
  if (fs::exists(source / kCheckpointManifestName)) return load_checkpoint_folder(request, source);
  return load_model_folder(request, source);
}

}  // namespace

ExportResult run_export(const ExportRequest& request, FileSystem& files) {
  const fs::path output = plain_path(request.output);
  if (fs::exists(fs::symlink_status(output))) {
    throw Error(ErrorKind::kUsage,
                fmt::format("--output {}: exists already; name a new folder", request.output.string()));
  }
  const fs::path source = find_source(request.input);
  Loaded loaded = load_source(request, source);
  if (request.form == ExportedForm::kAdapter && !loaded.model.has_lora()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: is a whole model, not an adapter; export it as a model with --format "
                            "merged",
                            source.string()));
  }
  const auto write = [&](const fs::path& destination) {
    if (request.form == ExportedForm::kAdapter) {
      return export_adapter(loaded.model, loaded.named_base, destination, files);
    }
    ExportOptions options;
    options.before_tensor = throw_if_stopped;
    options.dtype = output_dtype(request, loaded.base);
    options.merge_lora = loaded.model.has_lora();
    return export_model(loaded.model, loaded.base, destination, files, options);
  };
  write_folder(output, files, write, Existing::kRefuse);
  return {source, loaded.base};
}

}  // namespace gemma_sft
