#include "trainer/run/progress.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "configs/scalar.h"

namespace gemma_sft {
namespace {

constexpr const char* kErase = "\r\x1b[K";
constexpr double kSmoothing = 0.1;  // weight of the newest step in the mean that the time left comes from

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Columns of UTF-8 text, every character taken as one column: true for what this file prints.
int columns_of(const std::string& text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string draw_bar(double share, int width, bool ascii) {
  const int filled = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * width));
  std::string bar;
  for (int i = 0; i < width; ++i) {
    if (ascii) {
      bar += i < filled ? "#" : ".";
    } else {
      bar += i < filled ? "━" : "─";
    }
  }
  return bar;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const int64_t s = std::llround(std::min(seconds, 1e9));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
  return fmt::format("{} d {:02} h", s / 86400, s % 86400 / 3600);
}

std::string format_count(int64_t count) {
  std::string digits = std::to_string(count);
  const int first = digits[0] == '-' ? 1 : 0;
  for (int at = static_cast<int>(digits.size()) - 3; at > first; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string describe_step(const StepRecord& record, int64_t total_steps, double seconds_left, int columns, bool bar,
                          bool ascii) {
  struct Part {
    std::string text;
    int rank;  // the highest goes first when the line is too long
  };
  const double share = total_steps > 0 ? static_cast<double>(record.step) / static_cast<double>(total_steps) : 0.0;
  std::vector<Part> parts;
  parts.push_back({fmt::format("step {}/{}", record.step, total_steps), 0});
  if (bar) parts.push_back({draw_bar(share, 20, ascii), 5});
  parts.push_back({fmt::format("{:.0f} %", std::floor(share * 100)), 6});
  parts.push_back({fmt::format("loss {:.4f}", record.loss), 1});
  parts.push_back({fmt::format("rate {:.2e}", record.learning_rate), 4});
  parts.push_back({format_count(std::llround(record.tokens_per_second)) + " tokens/s", 3});
  if (record.step < total_steps && seconds_left >= 0) parts.push_back({format_duration(seconds_left) + " left", 2});
  const auto join = [&parts] {
    std::string line;
    for (const Part& part : parts) line += (line.empty() ? "" : "  ") + part.text;
    return line;
  };
  while (columns > 0 && parts.size() > 1 && columns_of(join()) > columns) {
    parts.erase(
        std::max_element(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.rank < b.rank; }));
  }
  return join();
}

Progress::Progress(ProgressOptions options) : options_(std::move(options)) {
  if (!options_.clock) options_.clock = steady_seconds;
}

Progress::~Progress() {
  try {
    erase();
  } catch (...) {  // the screen is the least of the worries of whoever is unwinding
  }
}

void Progress::on_start(int64_t /*first_step*/, int64_t total_steps) {
  total_steps_ = total_steps;
  last_step_time_ = options_.clock();
  seconds_per_step_ = 0;
}

void Progress::on_step(const StepRecord& record) {
  const double now = options_.clock();
  const double taken = now - last_step_time_;
  last_step_time_ = now;
  seconds_per_step_ = seconds_per_step_ == 0 ? taken : (1 - kSmoothing) * seconds_per_step_ + kSmoothing * taken;
  if (options_.quiet) return;
  const bool last = record.step >= total_steps_;
  const double pause = options_.redraw ? options_.seconds_between_draws : options_.seconds_between_lines;
  if (!last && now - last_shown_ < pause) return;
  last_shown_ = now;
  draw(record);
}

void Progress::draw(const StepRecord& record) {
  const double left = seconds_per_step_ * static_cast<double>(total_steps_ - record.step);
  if (!options_.redraw) {
    options_.write(describe_step(record, total_steps_, left, 0, false, options_.ascii) + "\n");
    return;
  }
  // The last column stays empty: some terminals wrap as soon as it is filled.
  const int columns = std::max(options_.columns() - 1, 10);
  options_.write(kErase + describe_step(record, total_steps_, left, columns, true, options_.ascii));
  drawn_ = true;
  if (record.step >= total_steps_) {
    options_.write("\n");
    drawn_ = false;
  }
}

void Progress::erase() {
  if (!drawn_) return;
  drawn_ = false;
  options_.write(kErase);
}

void Progress::print_line(const std::string& line) {
  erase();
  options_.write(line + "\n");
}

void Progress::on_eval(const EvalRecord& record) {
  if (options_.quiet) return;
  print_line(fmt::format("step {}: evaluation loss {:.4f} over {} tokens in {:.1f} s{}", record.step, record.eval_loss,
                         format_count(record.eval_tokens), record.eval_seconds,
                         record.best ? ", the best so far" : ""));
}

void Progress::on_checkpoint(const CheckpointRecord& record) {
  if (options_.quiet) return;
  print_line(fmt::format("step {}: checkpoint {}: {}", record.step, describe_save(record),
                         without_controls(record.folder, "")));
}

std::string describe_save(const CheckpointRecord& record) {
  std::string text = fmt::format("saved in {:.2f} s", record.seconds);
  if (record.waited_seconds < record.seconds) {
    text += fmt::format(", for which training stood still {:.2f} s", record.waited_seconds);
  }
  return text;
}

void Progress::on_note(const std::string& message) {
  if (!options_.quiet) print_line(without_controls(message));
}

void Progress::on_warning(const std::string& message) {
  print_line((options_.color ? "\x1b[33mwarning:\x1b[0m " : "warning: ") + without_controls(message));
}

void Progress::on_finish() { erase(); }

}  // namespace gemma_sft
