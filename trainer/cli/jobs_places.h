// Where a job's run folder is on this machine, and where the service writes.
#pragma once

#include <optional>
#include <string>

#include "configs/environment.h"
#include "trainer/cli/command_line.h"
#include "trainer/cli/train_request.h"
#include "trainer/run/run_directory.h"

namespace gemma_sft {

struct JobPlaces {
  RunPlace local;
  std::optional<std::string> output_uri;  // gs://...; empty: the service keeps the result
};

// The run folder is on this machine; a gs:// address is where the service writes. Creates nothing. Throws
// Error(kUsage).
JobPlaces find_job_places(const TrainArguments& arguments, const TrainRequest& request,
                          const EnvironmentReader& environment);

}  // namespace gemma_sft
