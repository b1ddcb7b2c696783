// Time as the client of a job service uses it, so that tests need not wait.
#pragma once

namespace gemma_sft {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual double now() const = 0;        // seconds, only goes forward
  virtual double wall_time() const = 0;  // seconds since 1970, UTC
  // Waits; returns early when a stop signal came (see interrupted).
  virtual void sleep(double seconds) = 0;
  virtual bool interrupted() const = 0;
};

// Lives for the whole program. interrupted() is stop_signal() != 0.
Clock& real_clock();

}  // namespace gemma_sft
