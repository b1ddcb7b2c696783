// The manifest of a data set.
#include "data/records/manifest.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  const auto path = write_scratch("manifest.json", text_of(data, size));
  Manifest manifest;
  if (!accepts([&] { manifest = load_manifest(path, path.string()); })) return 0;
  for (const std::string& warning : manifest.warnings) require_showable(warning);
  if (manifest.dataset_key.empty() || manifest.trace_count < 0) report_bug("accepted without what it must say");
  if (!manifest.trace_ids.empty() && static_cast<int64_t>(manifest.trace_ids.size()) != manifest.trace_count) {
    report_bug("accepted with a count that is not that of its ids");
  }
  return 0;
}
