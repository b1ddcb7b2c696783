// Bodies of the service's answers -> values. A body that is not what the contract says is Unreadable, not a crash and
// not a guess.
#pragma once

#include <string>
#include <string_view>

#include "trainer/tunix/job.h"
#include "trainer/tunix/price_table.h"
#include "trainer/tunix/service_errors.h"
#include "trainer/tunix/service_text.h"

namespace gemma_sft {

// Why a body cannot be used, with its beginning.
struct Unreadable {
  std::string why;
};

struct DatasetState {
  std::string id;
  std::string state;  // awaiting_upload, ready, invalid
  uint64_t max_part_bytes = 0;
  std::string problems;  // of an invalid one: "line 3: ..."
};

KeyInfo parse_key_info(std::string_view body, const ServiceText& text);
Quota parse_quota(std::string_view body, const ServiceText& text);
PriceTable parse_accelerators(std::string_view body, const ServiceText& text);
ServiceEstimate parse_estimate(std::string_view body, const ServiceText& text);
DatasetState parse_dataset(std::string_view body, const ServiceText& text);
Job parse_job(std::string_view body, const ServiceText& text);
JobPage parse_job_page(std::string_view body, const ServiceText& text);
// `sequence` and `type` stand for what the body leaves out.
JobEvent parse_event(std::string_view body, int64_t sequence, const std::string& type, const ServiceText& text);
EventPage parse_events(std::string_view body, int64_t after, const ServiceText& text);
ArtifactList parse_artifacts(std::string_view body, const ServiceText& text);
// Never unreadable: what is no error body is shown by its first 200 characters.
ServiceProblem parse_problem(int status, std::string_view body, const ServiceText& text);

}  // namespace gemma_sft
