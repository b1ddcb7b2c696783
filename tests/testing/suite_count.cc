#include "tests/testing/suite_count.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace gemma_sft {
namespace {

void print_line(const std::string& name, const std::string& figure, const std::string& notes) {
  std::printf("%s: %s (seed %llu%s)\n", name.c_str(), figure.c_str(), static_cast<unsigned long long>(suite_seed()),
              notes.c_str());
  std::fflush(stdout);
}

}  // namespace

bool is_long_run() {
  const char* value = std::getenv("GEMMA_SFT_LONG");
  return value != nullptr && std::string_view(value) == "1";
}

uint64_t suite_seed() {
  const char* value = std::getenv("GEMMA_SFT_SEED");
  return value != nullptr ? std::strtoull(value, nullptr, 10) : 1;
}

int64_t case_count(int64_t per_change, int64_t long_run) { return is_long_run() ? long_run : per_change; }

SuiteCount::SuiteCount(std::string name) : name_(std::move(name)) {}

SuiteCount::~SuiteCount() {
  if (good_ == cases_ && ::testing::Test::HasFailure()) ++cases_;
  print_line(name_, std::to_string(good_) + "/" + std::to_string(cases_), notes_);
}

bool SuiteCount::add(bool good) {
  ++cases_;
  if (good) ++good_;
  return good;
}

void SuiteCount::note(const std::string& text) { notes_ += "; " + text; }

int failures_so_far() {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  return test != nullptr ? test->result()->total_part_count() : 0;
}

void print_figure(const std::string& name, const std::string& figure) { print_line(name, figure, ""); }

}  // namespace gemma_sft
