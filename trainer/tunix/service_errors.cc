#include "trainer/tunix/service_errors.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace gemma_sft {
namespace {

constexpr std::array<std::pair<int, const char*>, 31> kReasons = {{{300, "Multiple Choices"},
                                                                   {301, "Moved Permanently"},
                                                                   {302, "Found"},
                                                                   {303, "See Other"},
                                                                   {304, "Not Modified"},
                                                                   {307, "Temporary Redirect"},
                                                                   {308, "Permanent Redirect"},
                                                                   {400, "Bad Request"},
                                                                   {401, "Unauthorized"},
                                                                   {402, "Payment Required"},
                                                                   {403, "Forbidden"},
                                                                   {404, "Not Found"},
                                                                   {405, "Method Not Allowed"},
                                                                   {406, "Not Acceptable"},
                                                                   {408, "Request Timeout"},
                                                                   {409, "Conflict"},
                                                                   {410, "Gone"},
                                                                   {411, "Length Required"},
                                                                   {412, "Precondition Failed"},
                                                                   {413, "Payload Too Large"},
                                                                   {415, "Unsupported Media Type"},
                                                                   {416, "Range Not Satisfiable"},
                                                                   {422, "Unprocessable Entity"},
                                                                   {425, "Too Early"},
                                                                   {428, "Precondition Required"},
                                                                   {429, "Too Many Requests"},
                                                                   {500, "Internal Server Error"},
                                                                   {501, "Not Implemented"},
                                                                   {502, "Bad Gateway"},
                                                                   {503, "Service Unavailable"},
                                                                   {504, "Gateway Timeout"}}};

ErrorKind kind_of(const ServiceProblem& problem) {
  switch (problem.status) {
    case 401:
    case 403: return ErrorKind::kAuthentication;
    case 402: return ErrorKind::kQuota;
    case 429: return is_about_quota(problem) ? ErrorKind::kQuota : ErrorKind::kApi;
    default: return ErrorKind::kApi;
  }
}

std::string remedy(const ServiceProblem& problem, const ServiceContext& context) {
  switch (problem.status) {
    case 401:
      return fmt::format(
          "The key is read from {}. Try it: curl -H \"Authorization: Bearer $TUNIX_API_KEY\" {}/auth/test; if it has "
          "expired, make a new one",
          context.key_origin, context.base_url);
    case 402: return "Raise tunix.max_cost_usd, or ask for less: fewer steps, a cheaper accelerator, tunix.spot: true";
    case 403:
      return fmt::format(
          "The key is read from {}; check that it belongs to the project (tunix.project_id or "
          "TUNIX_PROJECT_ID)",
          context.key_origin);
    case 422: return "Change what the message names and try again";
    case 429: {
      if (kind_of(problem) != ErrorKind::kQuota) return "Try again later";
      std::string text = "See https://console.cloud.google.com/iam-admin/quotas, wait or ask for more quota";
      if (!problem.resets_at.empty()) text += fmt::format(" (it resets at {})", problem.resets_at);
      if (!context.smaller_accelerators.empty()) {
        return text +
               fmt::format(", or use a smaller accelerator that holds this run: {}", context.smaller_accelerators);
      }
      return text +
             ", or use a smaller accelerator (gemma-sft jobs estimate --config FILE says which ones hold the "
             "run)";
    }
    default: return "";
  }
}

}  // namespace

bool is_about_quota(const ServiceProblem& problem) {
  if (problem.status != 429) return false;
  if (!problem.code.empty()) return problem.code == "quota_exceeded";
  return problem.message.find("quota") != std::string::npos;  // a service without codes
}

const char* reason_phrase(int status) {
  for (const auto& [known, phrase] : kReasons) {
    if (known == status) return phrase;
  }
  return "";
}

ApiError service_error(const ServiceProblem& problem, const ServiceContext& context) {
  std::string text = fmt::format("TunixAPIError: {}", problem.status);
  if (*reason_phrase(problem.status) != '\0') text += fmt::format(" {}", reason_phrase(problem.status));
  text += fmt::format(" - {}", problem.message.empty() ? "the service gave no message" : problem.message);
  const std::string help = remedy(problem, context);
  if (!help.empty()) text += "\n" + help;
  if (!problem.request_id.empty()) text += fmt::format("\nrequest id: {}", problem.request_id);
  if (!context.job_id.empty() && problem.status == 404) {
    text += fmt::format(
        "\nThe service at {} does not know the job {}; its record in the run folder is kept. Was it "
        "submitted to another address (--base-url, TUNIX_BASE_URL), or with another project's key?",
        context.base_url, context.job_id);
  } else if (!context.job_id.empty()) {
    text += fmt::format("\nThe job {} is left as it is: gemma-sft jobs watch {}", context.job_id, context.job_id);
  }
  return ApiError(kind_of(problem), text, problem.status, problem.code);
}

}  // namespace gemma_sft
