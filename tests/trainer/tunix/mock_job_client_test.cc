#include "trainer/tunix/mock_job_client.h"

#include <gtest/gtest.h>

#include "configs/error.h"
#include "tests/trainer/tunix/scripted_service.h"
#include "trainer/tunix/follow_job.h"

namespace gemma_sft {
namespace {

Job run_to_end(MockScenario scenario) {
  MockJobClient client(scenario, {}, [](const MockJob&) {});
  JobSpec spec;
  spec.submission = "key";
  const Job job = client.submit(spec, Attempt::kFirst);
  FakeClock clock;
  return follow_job(client, job.id, clock, {.first_delay = 0, .longest_delay = 0},
                    {.on_change = [](const Job&) {}, .on_event = [](const JobEvent&) {}});
}

TEST(MockJobClient, EndsAsTheScenarioSaysWithTheExitCodeOfThat) {
  EXPECT_EQ(run_to_end(MockScenario::kSuccess).state, JobState::kCompleted);
  EXPECT_EQ(job_error(run_to_end(MockScenario::kJobFailed)).kind(), ErrorKind::kJobFailed);
  EXPECT_EQ(job_error(run_to_end(MockScenario::kJobTimeout)).kind(), ErrorKind::kTimeout);
  EXPECT_EQ(job_error(run_to_end(MockScenario::kJobCancelled)).kind(), ErrorKind::kJobCancelled);
  EXPECT_EQ(job_error(run_to_end(MockScenario::kOutOfMemory)).kind(), ErrorKind::kOutOfMemory);
}

TEST(MockJobClient, IsTheSameEachTimeAndKeepsOneJobPerKey) {
  MockJobClient client(MockScenario::kSuccess, {}, [](const MockJob&) {});
  JobSpec spec;
  spec.submission = "key";
  const Job first = client.submit(spec, Attempt::kFirst);
  EXPECT_EQ(client.submit(spec, Attempt::kFirst).id, first.id);
  EXPECT_EQ(run_to_end(MockScenario::kSuccess).id, first.id);
  EXPECT_EQ(client.cancel(first.id).state, JobState::kCancelled);
  EXPECT_TRUE(client.artifacts(first.id).artifacts.empty());
}

}  // namespace
}  // namespace gemma_sft
