// A configuration file; what stands behind a NUL byte, where there is one, is the words of one --set.
#include <string>

#include "configs/load_config.h"
#include "configs/resolved_yaml.h"
#include "tests/fuzz/fuzz_input.h"

namespace gemma_sft {
namespace {

LoadedConfig load(const std::string& file, const std::string& assignment) {
  LoadOptions options;
  options.environment = [](const std::string&) { return std::nullopt; };
  options.dotenv = "";
  if (const size_t equals = assignment.find('='); equals != std::string::npos) {
    options.assignments = {{assignment.substr(0, equals), assignment.substr(equals + 1), "--set"}};
  }
  return load_config(file, options);
}

}  // namespace
}  // namespace gemma_sft

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  const std::string_view input = text_of(data, size);
  const size_t nul = input.find('\0');
  const std::string assignment(nul == std::string_view::npos ? "" : input.substr(nul + 1));
  const std::string file = write_scratch("config.yaml", input.substr(0, nul)).string();
  LoadedConfig loaded;
  if (!accepts([&] { loaded = load(file, assignment); })) return 0;
  for (const std::string& warning : loaded.warnings) require_showable(warning);
  // What a run folder keeps says the same again.
  const std::string resolved = to_yaml(loaded.config);
  const std::string again = write_scratch("resolved.yaml", resolved).string();
  LoadedConfig reloaded;
  if (!accepts([&] { reloaded = load(again, ""); })) report_bug("to_yaml gives what load_config refuses:\n" + resolved);
  if (to_yaml(reloaded.config) != resolved) report_bug("to_yaml does not read back:\n" + resolved);
  return 0;
}
