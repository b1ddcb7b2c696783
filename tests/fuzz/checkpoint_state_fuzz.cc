// state.json of a checkpoint.
#include "configs/resolved_yaml.h"
#include "configs/run_config.h"
#include "tests/fuzz/fuzz_input.h"
#include "trainer/checkpoint/state_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  write_scratch("checkpoint/config.yaml", "model:\n  base_model: base\ndataset:\n  data_path: rows.jsonl\n");
  const auto path = write_scratch("checkpoint/state.json", text_of(data, size));
  SavedState saved;
  if (!accepts([&] { saved = read_saved_state(path.parent_path()); })) return 0;
  const std::string canonical = state_json(saved.state, saved.origin);
  write_scratch("checkpoint/state.json", canonical);
  SavedState again;
  if (!accepts([&] { again = read_saved_state(path.parent_path()); })) report_bug("cannot be read back:\n" + canonical);
  if (state_json(again.state, again.origin) != canonical) report_bug("does not survive being written:\n" + canonical);
  return 0;
}
