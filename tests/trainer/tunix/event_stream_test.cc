#include "trainer/tunix/event_stream.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/trainer/tunix/scripted_service.h"
#include "trainer/tunix/follow_job.h"
#include "trainer/tunix/job_spec.h"

namespace gemma_sft {
namespace {

std::vector<std::string> events_of(std::string_view text, size_t piece, size_t most = 1000) {
  std::vector<std::string> events;
  EventStreamParser parser(
      [&](const StreamedEvent& event) { events.push_back(event.id + "|" + event.name + "|" + event.data); }, most);
  for (size_t at = 0; at < text.size(); at += piece) parser.append(text.substr(at, piece));
  return events;
}

// The examples of the standard (section "Interpreting an event stream"), in pieces of every size and with every kind of
// line end.
TEST(EventStream, ReadsTheExamplesOfTheStandard) {
  const std::string text =
      "\xef\xbb\xbf: test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
      "event: add\ndata: 73857293\n\ndata: YHOO\ndata: +2\ndata: 10\n\ndata\n\ndata\ndata\n\ndata:";
  const std::vector<std::string> expected = {"1|message|first event",
                                             "|message|second event",
                                             "|message| third event",
                                             "|add|73857293",
                                             "|message|YHOO\n+2\n10",
                                             "|message|",
                                             "|message|\n"};
  for (size_t piece = 1; piece < 40; ++piece) EXPECT_EQ(events_of(text, piece), expected) << piece;
  for (const char* end : {"\r", "\r\n"}) {
    std::string other;
    for (const char c : text) other += c == '\n' ? std::string(end) : std::string(1, c);
    for (size_t piece = 1; piece < 5; ++piece) EXPECT_EQ(events_of(other, piece), expected) << piece;
  }
}

TEST(EventStream, AnEventThatIsTooLongIsPassedOverAndTheNextOneIsRead) {
  EXPECT_EQ(events_of("id: 1\ndata: " + std::string(5000, 'x') + "\n\nid: 2\ndata: y\n\n", 7, 100),
            std::vector<std::string>{"2|message|y"});
}

// Shows each event of a job once, however its streams break.
std::vector<std::string> watched(ScriptedService& service) {
  FakeClock clock;
  HttpJobClientOptions options;
  options.base_url = "https://jobs.example.org/v1";
  options.key = "tunix_sk_dev_0123456789";
  HttpJobClient client(service, clock, options);
  RunConfig config;
  const Job job = client.submit(make_job_spec({.config = config,
                                               .run_id = "r",
                                               .output_uri = {},
                                               .max_seq_length = 1,
                                               .dataset_id = "d",
                                               .submission = "k",
                                               .config_sha256 = "c",
                                               .client_version = "1"}),
                                Attempt::kFirst);
  std::vector<std::string> seen;
  follow_job(
      client, job.id, clock, {.first_delay = 2, .longest_delay = 30, .events = true},
      {.on_change = [](const Job&) {}, .on_event = [&](const JobEvent& event) { seen.push_back(event.message); }});
  return seen;
}

size_t streams_of(const ScriptedService& service) {
  return static_cast<size_t>(
      std::count_if(service.requests.begin(), service.requests.end(),
                    [](const HttpRequest& request) { return header_of(request, "Accept") == "text/event-stream"; }));
}

TEST(EventStream, AJobIsWatchedThroughStreamsThatGoOnBehindTheLastEvent) {
  ScriptedService service;
  service.looks_until_end = 6;
  EXPECT_EQ(watched(service),
            (std::vector<std::string>{"event 1", "event 2", "event 3", "event 4", "event 5", "event 6"}));
  EXPECT_EQ(streams_of(service), 5u);
  EXPECT_EQ(header_of(service.requests.at(4), "Last-Event-ID"), "1");
}

TEST(EventStream, AServiceWithoutStreamsIsAskedForPages) {
  for (const int status : {404, 405, 406, 501}) {
    ScriptedService service;
    service.faults = {{}, {}, {.kind = ServiceFault::Kind::kStatusBefore, .status = status}};
    EXPECT_EQ(watched(service), (std::vector<std::string>{"event 1", "event 2", "event 3", "event 4"})) << status;
    EXPECT_EQ(streams_of(service), 1u);
  }
}

}  // namespace
}  // namespace gemma_sft
