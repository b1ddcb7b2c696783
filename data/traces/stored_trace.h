// A reasoning trace as the tunix-rt database keeps it: a row of its table `traces`.
#pragma once

#include <string>

namespace gemma_sft {

struct StoredTrace {
  std::string id;             // UUID, lower case
  std::string trace_version;  // "1.0"
  std::string created_at;     // ISO 8601 in UTC, as Python's isoformat writes it: 2025-12-21T10:00:00.250000+00:00
  std::string payload;        // JSON text {prompt, steps, final_answer, meta}, unchecked
};

}  // namespace gemma_sft
