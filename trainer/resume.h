// Which checkpoint a run continues from.
#pragma once

#include <filesystem>
#include <optional>

#include "trainer/checkpoint/checkpoint_folders.h"
#include "trainer/checkpoint/state_file.h"
#include "trainer/run/run_observer.h"
#include "trainer/run_training.h"

namespace gemma_sft {

struct ResumePoint {
  std::filesystem::path checkpoint;
  TrainState state;
};

// auto: the newest checkpoint of the run folder that verifies; those rejected are warned about with their reasons. A
// folder: that checkpoint, of this run or another. never, or no checkpoint at all: nullopt. Throws Error(kCheckpoint)
// when there are checkpoints and none verifies, when the one named does not, and when it was made from something else
// than `now` (see resume_check.h). No torch.
std::optional<ResumePoint> find_resume_point(const TrainRequest& request, const CheckpointFolders& folders,
                                             const RunOrigin& now, RunObserver& observer);

// Where there is no checkpoint to continue from: throws Error(kCheckpoint) when the folder shows that there was one,
// for beginning anew would overwrite what the run left. `last_row`: of the steps in its metrics.jsonl.
void require_nothing_lost(const TrainRequest& request, int64_t last_row);

}  // namespace gemma_sft
