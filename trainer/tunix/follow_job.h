// Asks about a job until it has ended.
#pragma once

#include <functional>
#include <string>

#include "trainer/tunix/clock.h"
#include "trainer/tunix/job_client.h"

namespace gemma_sft {

struct FollowOptions {
  double first_delay = 2;  // seconds between two looks; grows while nothing changes
  double longest_delay = 30;
  bool events = false;  // the job's events, too: as a stream, or in pages where the service has none
};

struct FollowObserver {
  std::function<void(const Job&)> on_change;  // the first look, and whenever what describe_job says is another
  std::function<void(const JobEvent&)> on_event;
};

// The job as it ended. Throws what the client throws; Interrupted when a stop signal came.
Job follow_job(JobClient& client, const std::string& id, Clock& clock, const FollowOptions& options,
               const FollowObserver& observer);

}  // namespace gemma_sft
