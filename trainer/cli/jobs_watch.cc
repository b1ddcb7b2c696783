#include "trainer/cli/jobs_watch.h"

#include <fmt/format.h>

#include "trainer/tunix/follow_job.h"

namespace gemma_sft {

std::string dashboard_url(const Job& job) {
  return job.dashboard_url.empty() ? "https://dashboard.tunix.ai/jobs/" + job.id : job.dashboard_url;
}

Job watch_job(JobService& service, const std::string& id, WatchEvents events, const Output& output) {
  FollowObserver observer;
  observer.on_change = [&](const Job& job) {
    output.print_line(fmt::format("⏳ {}: {}{}", job.id, describe_job(job), service.mark()));
  };
  observer.on_event = [&](const JobEvent& event) {
    if (event.type == "status" || event.type == "heartbeat") return;  // the line above says it
    output.print_line(fmt::format("{} {}{}", event.type, event.message, service.mark()));
  };
  FollowOptions options;
  options.first_delay = service.poll_seconds();
  if (service.is_mock()) options.longest_delay = 0;
  options.events = events == WatchEvents::kYes;
  return when_interrupted(
      output,
      fmt::format("detached: the job {} goes on; gemma-sft jobs watch {} follows it again, gemma-sft jobs cancel {} "
                  "ends it",
                  id, id, id),
      [&] { return follow_job(service.client(), id, service.clock(), options, observer); });
}

}  // namespace gemma_sft
