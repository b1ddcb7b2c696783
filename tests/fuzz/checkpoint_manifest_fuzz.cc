// manifest.json of a checkpoint folder that holds one good file, weights.bin ("weights").
#include "tests/fuzz/fuzz_input.h"
#include "trainer/checkpoint/checkpoint_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gemma_sft;
  write_scratch("checkpoint-3/weights.bin", "weights");
  const auto path = write_scratch("checkpoint-3/manifest.json", text_of(data, size));
  CheckpointVerdict verdict;
  if (!accepts([&] { verdict = verify_checkpoint(path.parent_path()); })) report_bug("verify_checkpoint threw");
  if (!verdict.manifest) {
    if (verdict.problem.empty()) report_bug("rejected without a reason");
    require_showable(verdict.problem);
    return 0;
  }
  if (verdict.manifest->step != 3 || verdict.manifest->files.size() != 1) report_bug("accepted what is not there");
  const std::string canonical = to_json(*verdict.manifest);
  write_scratch("checkpoint-3/manifest.json", canonical);
  if (verify_checkpoint(path.parent_path()).manifest != verdict.manifest) report_bug("does not survive being written");
  return 0;
}
