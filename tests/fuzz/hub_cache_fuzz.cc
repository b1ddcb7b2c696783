// The local Hugging Face cache of one model: refs/main, and behind a NUL byte the listing of the commit's files.
#include <cstdlib>
#include <string>

#include "model/hub_cache.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  const std::string commit(40, 'a');
  const std::string repository = "hub/models--google--gemma-x/";
  static const bool ready = setenv("HF_HUB_CACHE", (scratch_folder() / "hub").c_str(), 1) == 0;
  const auto config = write_scratch(repository + "snapshots/" + commit + "/config.json", "{}");
  const std::string_view input = text_of(data, size);
  const size_t nul = input.find('\0');
  write_scratch(repository + "refs/main", input.substr(0, nul));
  write_scratch(repository + "trees/" + commit + ".json",
                nul == std::string_view::npos ? std::string_view("{}") : input.substr(nul + 1));
  std::filesystem::path found;
  if (ready && accepts([&] { found = require_model_folder("google/gemma-x", std::nullopt); })) {
    if (found != config.parent_path()) report_bug("found a model outside its snapshot: " + found.string());
  }
  return 0;
}
