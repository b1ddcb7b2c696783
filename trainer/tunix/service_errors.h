// An answer that is not 2xx -> the Error that ends the program, in the words of the guide: "TunixAPIError: 401
// Unauthorized - Invalid API key", with the remedy below.
#pragma once

#include <string>

#include "trainer/tunix/job.h"

namespace gemma_sft {

// What the service said. Texts are fit to be shown.
struct ServiceProblem {
  int status = 0;
  std::string code = {};  // "invalid_api_key", ...; empty: none
  std::string message = {};
  std::string request_id = {};  // empty: none
  std::string resets_at = {};   // of a quota; empty: not told
};

// What was asked, for the remedy.
struct ServiceContext {
  std::string base_url = "https://api.tunix.ai/v1";
  std::string key_origin = "TUNIX_API_KEY";  // "TUNIX_API_KEY in .env"
  std::string smaller_accelerators = {};     // those that hold the run, as a list; empty: none or not known
  std::string job_id = {};                   // a job that goes on whatever this call met
};

// A 429 that waiting a minute does not help against.
bool is_about_quota(const ServiceProblem& problem);

const char* reason_phrase(int status);  // "Unauthorized"; "" when unknown

ApiError service_error(const ServiceProblem& problem, const ServiceContext& context);

}  // namespace gemma_sft
