#include "trainer/run/run_log.h"

#include <chrono>
#include <exception>
#include <mutex>

#include <fmt/format.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>

#include "configs/scalar.h"
#include "trainer/run/progress.h"

namespace gemma_sft {
namespace {

constexpr double kSecondsBetweenSteps = 10;

// spdlog formats, the file layer writes: a test can make any write fail.
class FileLayerSink : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 public:
  explicit FileLayerSink(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  // spdlog turns exceptions of a sink into calls of a handler that gets a text; the exception itself is kept for
  // rethrow().
  void rethrow() {
    if (std::exception_ptr failure = std::exchange(failure_, nullptr)) std::rethrow_exception(failure);
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    try {
      file_->append(line.data(), line.size());
    } catch (...) {
      failure_ = std::current_exception();
    }
  }
  void flush_() override {}  // every line is one write

 private:
  std::unique_ptr<WritableFile> file_;
  std::exception_ptr failure_;
};

}  // namespace

struct RunLog::State {
  std::filesystem::path path;
  FileSystem* files = nullptr;
  std::shared_ptr<FileLayerSink> sink;
  std::unique_ptr<spdlog::logger> logger;
  int64_t total_steps = 0;
  std::chrono::steady_clock::time_point last_step_line{};

  void open() {
    sink = std::make_shared<FileLayerSink>(files->open_append(path));
    logger = std::make_unique<spdlog::logger>("run", sink);
    logger->set_formatter(
        std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%eZ %l: %v", spdlog::pattern_time_type::utc));
  }

  void log(spdlog::level::level_enum level, const std::string& message) {
    if (!logger) open();
    logger->log(level, without_controls(message));
    sink->rethrow();
  }
};

RunLog::RunLog(const std::filesystem::path& folder, FileSystem& files) : state_(std::make_unique<State>()) {
  state_->path = folder / "run.log";
  state_->files = &files;
}

RunLog::~RunLog() = default;

void RunLog::on_start(int64_t first_step, int64_t total_steps) {
  state_->total_steps = total_steps;
  state_->log(spdlog::level::info, fmt::format("training from step {} to {}", first_step, total_steps));
}

void RunLog::on_step(const StepRecord& record) {
  const auto now = std::chrono::steady_clock::now();
  const double waited = std::chrono::duration<double>(now - state_->last_step_line).count();
  if (waited < kSecondsBetweenSteps && record.step < state_->total_steps) return;
  state_->last_step_line = now;
  state_->log(
      spdlog::level::info,
      fmt::format("step {}/{}: loss {:.6f}, rate {:.4e}, gradient norm {:.4f}, {:.0f} tokens/s", record.step,
                  state_->total_steps, record.loss, record.learning_rate, record.grad_norm, record.tokens_per_second));
}

void RunLog::on_eval(const EvalRecord& record) {
  state_->log(spdlog::level::info, fmt::format("step {}: evaluation loss {:.6f} over {} tokens{}", record.step,
                                               record.eval_loss, record.eval_tokens, record.best ? ", best" : ""));
}

void RunLog::on_checkpoint(const CheckpointRecord& record) {
  state_->log(spdlog::level::info, fmt::format("step {}: checkpoint {} {}", record.step,
                                               without_controls(record.folder, ""), describe_save(record)));
}

void RunLog::on_note(const std::string& message) { state_->log(spdlog::level::info, message); }

void RunLog::on_warning(const std::string& message) { state_->log(spdlog::level::warn, message); }

void RunLog::on_error(const std::string& message) noexcept {
  try {
    if (state_->logger) state_->log(spdlog::level::err, message);
  } catch (...) {
    // The disk may be full, which may be what the message says; stderr tells it too.
  }
}

void RunLog::on_finish() { state_->log(spdlog::level::info, "finished"); }

}  // namespace gemma_sft
