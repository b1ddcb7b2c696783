#include "trainer/tunix/retry.h"

#include <ctime>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "trainer/tunix/job_client.h"

namespace gemma_sft {
namespace {

constexpr double kFirstDelay = 1;
constexpr double kLongestDelay = 60;

}  // namespace

std::optional<double> parse_retry_after(const std::string& text, double wall_time) {
  if (text.empty() || text.size() > 64) return std::nullopt;
  if (text.find_first_not_of("0123456789") == std::string::npos) {
    double seconds = 0;
    for (const char c : text) seconds = seconds * 10 + (c - '0');
    return seconds;
  }
  std::tm parts{};
  const char* end = strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (end == nullptr || *end != '\0') return std::nullopt;
  const double seconds = static_cast<double>(timegm(&parts)) - wall_time;
  return std::max(seconds, 0.0);
}

Retry::Retry(Clock& clock, double seconds, std::mt19937_64& random)
    : clock_(clock), random_(random), seconds_(seconds), end_(clock.now() + seconds) {}

double Retry::left() const { return end_ - clock_.now(); }

bool Retry::wait(const std::optional<double>& retry_after) {
  if (left() <= 0) return false;
  const double longest = std::min(kLongestDelay, kFirstDelay * std::pow(2.0, std::min(delays_++, 10)));
  double delay = std::uniform_real_distribution<double>(0, longest)(random_);
  if (retry_after) delay = std::max(delay, *retry_after);  // "0" and dates long past are no licence to hammer
  clock_.sleep(std::min(delay, left()));
  if (clock_.interrupted()) throw Interrupted{};
  ++attempts_;
  return true;
}

void Retry::restart() {
  end_ = clock_.now() + seconds_;
  delays_ = 0;
}

}  // namespace gemma_sft
