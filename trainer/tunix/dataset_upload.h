// The rows of a job on their way to the service: in parts, each behind what the service says that it has.
#pragma once

#include <string>

#include "trainer/tunix/job_client.h"
#include "trainer/tunix/service_caller.h"

namespace gemma_sft {

// See JobClient::upload_dataset. The same key gives the same data set, and an interrupted upload goes on. Throws
// Error(kData) when the service does not accept the rows, Error(kIo) when the file is shorter than it was, and what
// ServiceCaller throws.
std::string upload_dataset(ServiceCaller& caller, const DatasetUpload& upload, const std::string& project_id,
                           const std::string& idempotency_key);

}  // namespace gemma_sft
