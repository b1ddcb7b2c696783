#include "trainer/tunix/follow_job.h"

#include <algorithm>

namespace gemma_sft {
namespace {

constexpr double kGrowth = 1.5;
constexpr int kFruitlessStreams = 3;  // streams without an event, after which pages are asked for

// How the events of one job are come by: as a stream, in pages, or not at all.
class Events {
 public:
  Events(JobClient& client, const std::string& id, const FollowOptions& options, const FollowObserver& observer)
      : client_(client), id_(id), observer_(observer), streams_(options.events), pages_(options.events) {}

  // All that are there.
  void take_pages() {
    try {
      for (bool more = pages_; more;) {
        const EventPage page = client_.events(id_, seen_);
        for (const JobEvent& event : page.events) observer_.on_event(event);
        more = page.last_sequence > seen_ && !page.events.empty();
        seen_ = page.last_sequence;
      }
    } catch (const ApiError& error) {
      if (error.status() != 404 && error.status() != 501) throw;
      pages_ = false;  // a service without them
    }
  }

  // Waits for events until one tells of another state; false: none came, wait before the next look.
  bool await() {
    if (!streams_) {
      take_pages();
      return false;
    }
    const EventStreamEnd end = client_.stream_events(id_, seen_, [&](const JobEvent& event) {
      observer_.on_event(event);
      return event.type != "status";
    });
    const bool some = end.last_sequence > seen_;
    seen_ = end.last_sequence;
    fruitless_ = some ? 0 : fruitless_ + 1;
    if (end.why == EventStreamEnd::Why::kUnavailable || fruitless_ == kFruitlessStreams) {
      streams_ = false;
      take_pages();
    }
    return some;
  }

 private:
  JobClient& client_;
  const std::string& id_;
  const FollowObserver& observer_;
  bool streams_;
  bool pages_;
  int64_t seen_ = 0;
  int fruitless_ = 0;
};

}  // namespace

Job follow_job(JobClient& client, const std::string& id, Clock& clock, const FollowOptions& options,
               const FollowObserver& observer) {
  std::string last;
  Events events(client, id, options, observer);
  for (double delay = options.first_delay;;) {
    if (clock.interrupted()) throw Interrupted{};
    const Job job = client.status(id);
    const std::string now = describe_job(job);
    if (now != last) {
      observer.on_change(job);
      last = now;
      delay = options.first_delay;
    }
    if (is_terminal(job.state)) {
      events.take_pages();
      return job;
    }
    if (events.await()) continue;
    clock.sleep(delay);
    delay = std::min(delay * kGrowth, options.longest_delay);
  }
}

}  // namespace gemma_sft
