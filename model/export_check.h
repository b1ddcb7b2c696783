// Reads a model folder or a PEFT folder again, by the rules of the programs that load it next: transformers, peft,
// vLLM, llama.cpp, Ollama. No torch here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace gemma_sft {

struct ExportVerdict {
  std::filesystem::path folder;
  bool adapter = false;  // a PEFT folder; else a model folder
  std::vector<std::string>
      problems;  // with each of them a program would fail or compute something else; none: it verifies
  std::vector<std::string> notes;  // what could not be checked, and which program is out
  uint64_t tensors = 0;
  uint64_t tensor_bytes = 0;
  uint64_t digests = 0;  // files whose SHA-256 is that of SHA256SUMS; 0: the folder has no such file
};

// config.json or adapter_config.json is in `folder`.
bool is_exported_folder(const std::filesystem::path& folder);

// Model folder: SHA256SUMS; config.json as we read it, with its architecture; every tensor by name and shape, dtype
// that of config.json, no NaN and no infinity; no weights beside those of the index; tokenizer and special ids within
// the embedding; generation_config.json. PEFT folder: SHA256SUMS; adapter_config.json as we read it; A and B of each
// layer, of the rank it says, and of layers that target_modules means; no NaN and no infinity; against the base model
// where that is on this machine. Reads every byte. Never throws for a bad folder.
ExportVerdict verify_export(const std::filesystem::path& folder);

}  // namespace gemma_sft
