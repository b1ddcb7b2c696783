// What people see while a run goes on: on a terminal one line that is drawn again and again, elsewhere a plain line now
// and then; warnings and notes as lines of their own. Writes only through `write`; opens, owns and decides nothing
// else.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "trainer/run/run_observer.h"

namespace gemma_sft {

struct ProgressOptions {
  bool redraw = false;  // the reader is a terminal that understands "\r" and "erase line"
  bool color = false;
  bool ascii = false;                                // no characters beyond ASCII in the bar
  bool quiet = false;                                // warnings only
  double seconds_between_lines = 10;                 // of plain lines; the first and the last step always show
  double seconds_between_draws = 0.1;                // of the redrawn line
  std::function<int()> columns = [] { return 80; };  // width of the terminal now
  std::function<double()> clock;                     // seconds from any start; empty: the steady clock
  std::function<void(std::string_view)> write;       // required
};

// One thread.
class Progress : public RunObserver {
 public:
  explicit Progress(ProgressOptions options);
  ~Progress() override;  // takes a half-drawn line off the screen
  void on_start(int64_t first_step, int64_t total_steps) override;
  void on_step(const StepRecord& record) override;
  void on_eval(const EvalRecord& record) override;
  void on_checkpoint(const CheckpointRecord& record) override;
  void on_note(const std::string& message) override;
  void on_warning(const std::string& message) override;
  void on_finish() override;

 private:
  void draw(const StepRecord& record);
  void print_line(const std::string& line);
  void erase();

  ProgressOptions options_;
  int64_t total_steps_ = 0;
  double last_step_time_ = -1;
  double seconds_per_step_ = 0;  // smoothed, evaluations and checkpoints included
  double last_shown_ = -1e300;
  bool drawn_ = false;
};

// "42 s", "3 min 07 s", "2 h 05 min", "3 d 04 h"
std::string format_duration(double seconds);

// "saved in 12.30 s", and with a save in the background ", for which training stood still 0.80 s".
std::string describe_save(const CheckpointRecord& record);
// 1234567 -> "1,234,567"
std::string format_count(int64_t count);

// One line about a step, the parts that matter least left out until it takes at most `columns` columns (0: no limit).
std::string describe_step(const StepRecord& record, int64_t total_steps, double seconds_left, int columns, bool bar,
                          bool ascii);

}  // namespace gemma_sft
