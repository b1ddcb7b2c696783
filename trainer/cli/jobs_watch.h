// Shows a job until it ends.
#pragma once

#include <string>

#include "trainer/cli/jobs_service.h"
#include "trainer/cli/output.h"
#include "trainer/tunix/job.h"

namespace gemma_sft {

std::string dashboard_url(const Job& job);  // what the service says, else https://dashboard.tunix.ai/jobs/<id>

enum class WatchEvents { kNo, kYes };

// One line on stdout per change, in mock mode marked as such. A stop signal detaches: says how to go on and throws
// Interrupted; the job goes on.
Job watch_job(JobService& service, const std::string& id, WatchEvents events, const Output& output);

// What `act` gives. Where a stop signal cuts it short: says `text` on stderr and lets Interrupted go on.
template <typename Act>
auto when_interrupted(const Output& output, const std::string& text, const Act& act) {
  try {
    return act();
  } catch (const Interrupted&) {
    output.say(text);
    throw;
  }
}

}  // namespace gemma_sft
