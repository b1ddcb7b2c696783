// When a call that failed is tried again: exponential delays with full jitter, Retry-After where the server gives it,
// and an end.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>

#include "trainer/tunix/clock.h"

namespace gemma_sft {

// Retry-After: seconds, or an HTTP date. nullopt: neither, or negative.
std::optional<double> parse_retry_after(const std::string& text, double wall_time);

class Retry {
 public:
  // Tries until `seconds` from now.
  Retry(Clock& clock, double seconds, std::mt19937_64& random);

  // Seconds that the next attempt may take.
  double left() const;
  // Waits before another attempt; false: the time is over, give up. Throws Interrupted when a stop signal came.
  bool wait(const std::optional<double>& retry_after);
  // Something was achieved: delays and time begin anew.
  void restart();
  int attempts() const { return attempts_; }
  double seconds() const { return seconds_; }

 private:
  Clock& clock_;
  std::mt19937_64& random_;
  double seconds_;
  double end_;
  int attempts_ = 1;
  int delays_ = 0;
};

}  // namespace gemma_sft
