#include "trainer/tunix/follow_job.h"

#include <algorithm>

namespace gemma_sft {

Job follow_job(JobClient& client, const std::string& id, Clock& clock, const FollowOptions& options,
               const FollowObserver& observer) {
  constexpr double kGrowth = 1.5;
  std::string last;
  int64_t seen = 0;
  bool asks_for_events = options.events;
  for (double delay = options.first_delay;;) {
    if (clock.interrupted()) throw Interrupted{};
    const Job job = client.status(id);
    if (asks_for_events) {
      try {
        for (bool more = true; more;) {
          const EventPage page = client.events(id, seen);
          for (const JobEvent& event : page.events) observer.on_event(event);
          more = page.last_sequence > seen && !page.events.empty();
          seen = page.last_sequence;
        }
      } catch (const ApiError& error) {
        if (error.status() != 404 && error.status() != 501) throw;
        asks_for_events = false;  // a service without them
      }
    }
    const std::string now = describe_job(job);
    if (now != last) {
      observer.on_change(job);
      last = now;
      delay = options.first_delay;
    }
    if (is_terminal(job.state)) return job;
    clock.sleep(delay);
    delay = std::min(delay * kGrowth, options.longest_delay);
  }
}

}  // namespace gemma_sft
