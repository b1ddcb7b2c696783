// `gemma-sft export`: what a run left behind -> a folder that other tools load.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "configs/run_config.h"
#include "data/files/file_system.h"

namespace gemma_sft {

enum class ExportedForm {
  kModel,    // a whole Hugging Face model; an adapter is merged into its base
  kAdapter,  // a PEFT folder
};

struct ExportRequest {
  std::filesystem::path
      input;  // run folder (its final_model, else its newest checkpoint), checkpoint, model or PEFT folder
  std::optional<std::string> base = {};  // base model of an adapter or a checkpoint; empty: what the input says
  ExportedForm form = ExportedForm::kModel;
  std::optional<ModelDtype> dtype = {};  // of kModel; empty: the base files'
  std::filesystem::path output;          // must not exist
};

struct ExportResult {
  std::filesystem::path source;  // the folder that was exported
  std::filesystem::path base;
};

// Writes `output` through a temporary folder beside it and a rename. Throws Error.
ExportResult run_export(const ExportRequest& request, FileSystem& files);

}  // namespace gemma_sft
