// Suites that count their cases: few in the ordinary test command, many in the long run (./bootstrap.sh test-long), all
// of them chosen by one seed. Each suite ends with one line on standard output, which tests/long.sh collects:
//
//   R8 random rotation histories: 10000/10000 (seed 1)
//
// The environment decides: GEMMA_SFT_LONG=1 for the long run, GEMMA_SFT_SEED for the seed (1 without it).
#pragma once

#include <cstdint>
#include <string>

namespace gemma_sft {

bool is_long_run();
uint64_t suite_seed();
// How many cases to run: the one number or the other.
int64_t case_count(int64_t per_change, int64_t long_run);

// Counts the cases of one suite; prints its line when it goes. A test that fails outside of any case, or stops before
// its end, never prints a full count. One thread.
class SuiteCount {
 public:
  // `name` begins with the bar that the suite shows: "R3 kill at every call".
  explicit SuiteCount(std::string name);
  ~SuiteCount();
  SuiteCount(const SuiteCount&) = delete;
  SuiteCount& operator=(const SuiteCount&) = delete;

  // One case that came out well or did not; gives `good` back, so that it can be asserted on at once.
  bool add(bool good);
  int64_t cases() const { return cases_; }
  void note(const std::string& text);  // more for the line: "312 had resumed"

 private:
  std::string name_;
  std::string notes_;
  int64_t good_ = 0;
  int64_t cases_ = 0;
};

// Of the running test: a case is good when it adds none.
int failures_so_far();

// The line of a figure that is no count: `R7 verify speed: 1.4 GB/s (seed 1)`.
void print_figure(const std::string& name, const std::string& figure);

}  // namespace gemma_sft
