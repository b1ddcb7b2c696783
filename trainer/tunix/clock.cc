#include "trainer/tunix/clock.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "trainer/stop_signal.h"

namespace gemma_sft {
namespace {

class RealClock : public Clock {
 public:
  double now() const override {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  double wall_time() const override {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  }
  void sleep(double seconds) override {
    constexpr double kLook = 0.05;
    for (const double end = now() + seconds; now() < end && !interrupted();) {
      std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(end - now(), 0.0, kLook)));
    }
  }
  bool interrupted() const override { return stop_signal() != 0; }
};

}  // namespace

Clock& real_clock() {
  static RealClock clock;
  return clock;
}

}  // namespace gemma_sft
