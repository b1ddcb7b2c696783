// R5 and R13 for what a run folder holds besides checkpoints: every errno at every system call of the lock, metrics,
// log, skipped rows, manifest and the record of completion, full devices, and locks of processes that were killed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <system_error>

#include "configs/error.h"
#include "data/files/folder_entry.h"
#include "tests/testing/failing_file_system.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/system_calls.h"
#include "tests/testing/temp_dir.h"
#include "trainer/run/run_directory.h"
#include "trainer/run/run_log.h"
#include "trainer/run/run_manifest.h"
#include "trainer/run/skipped_rows.h"
#include "trainer/run/step_rows.h"
#include "trainer/run_completion.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::MatchesRegex;

// Everything that a run writes beside its checkpoints, as run_training does.
void write_run_folder(const fs::path& folder) {
  FileSystem& files = real_file_system();
  const RunLock lock(folder, files);
  MetricsFile metrics(folder, files);
  RunLog log(folder, files);
  metrics.truncate_after(0);
  log.on_start(0, 2);
  SkippedRows skipped(folder, files);
  skipped.add({.place = {"rows.jsonl", 3}, .column = 7, .field = "prompt", .message = "is empty"});
  skipped.publish();
  write_file_durably(files, folder / "config.yaml", "seed: 1\n");
  RunManifest manifest;
  manifest.run_id = "r";
  manifest.artifacts_path = "run";
  manifest.created_at = "2026-01-31T12:00:00.123Z";
  write_run_manifest(folder, manifest, files);
  for (int64_t step = 1; step <= 2; ++step) {
    metrics.on_step({.step = step, .loss = 0.5});
    log.on_step({.step = step, .loss = 0.5});
  }
  metrics.truncate_after(1);
  metrics.on_step({.step = 2, .loss = 0.25});
  metrics.sync();
  RunCompletion completion;
  completion.run_id = "r";
  write_completion(folder, completion, files);
  list_folder(folder);
  log.on_finish();
}

// The lasting part of what is in the folder: names and bytes of the files without times.
std::string lasting(const TempDir& dir) {
  std::string text;
  for (const std::string& name : dir.list()) {
    text += name + "\n";
    if (name.ends_with("config.yaml") || name.ends_with("skipped_rows.jsonl") || name.ends_with("completed.json") ||
        name.ends_with("run_manifest.json")) {
      text += read_file(dir / name);
    }
  }
  return text;
}

TEST(RunFolderFaults, every_errno_of_every_system_call_is_reported_in_words_that_help) {
  const TempDir whole{memory_folder()};
  write_run_folder(whole / "run");
  SuiteCount count("R5 every errno at every system call of a run folder's own files");
  for (const int error : {ENOSPC, EDQUOT, EIO, EROFS, EMFILE}) {
    bool struck = true;
    for (int64_t call = 0; struck; ++call) {
      const TempDir dir{memory_folder()};
      const fs::path folder = dir / "run";
      std::string message, problem;
      SystemCall faulty;
      {
        const WatchedCalls watched(folder, {.call = call, .action = CallAction::kFail, .error_number = error});
        try {
          write_run_folder(folder);
        } catch (const Error& failure) {
          message = failure.what();
          if (failure.kind() != ErrorKind::kIo) problem = "another kind of error";
        }
        struck = watched.has_struck();
        if (!struck) break;
        faulty = watched.calls()[static_cast<size_t>(call)];
      }
      // Closing what was only read, or is synced before, loses nothing; what gets its name next must be whole.
      const bool may_be_silent = faulty.name == "close" && faulty.path.extension() != ".tmp";
      if (message.empty()) {
        if (!may_be_silent) problem = "nobody said so";
      } else {
        for (const std::string& needed :
             {faulty.path.filename().string(), std::string("cannot "), std::generic_category().message(error)}) {
          if (message.find(needed) == std::string::npos) problem = "the message lacks " + needed;
        }
        const bool is_full = error == ENOSPC || error == EDQUOT;
        if (is_full && message.find(" free") == std::string::npos) problem = "the message does not say what is free";
        if (is_full && faulty.name == "write" && message.find(" needed, ") == std::string::npos) {
          problem = "the message does not say what is needed";
        }
      }
      if (problem.empty()) {  // the same again, undisturbed: nothing that was left is in the way
        write_run_folder(folder);
        if (lasting(dir) != lasting(whole)) problem = "left behind: " + lasting(dir);
      }
      EXPECT_TRUE(count.add(problem.empty())) << std::generic_category().message(error) << " at call " << call << ", "
                                              << faulty.name << " " << faulty.path << ": " << problem << "\n"
                                              << message;
    }
  }
  EXPECT_GT(count.cases(), 5 * 60);
}

TEST(RunFolderFaults, interrupted_calls_and_short_writes_are_invisible) {
  const TempDir whole{memory_folder()};
  write_run_folder(whole / "run");
  SuiteCount count("R5 EINTR and short writes at every system call of a run folder's own files");
  for (const CallAction action : {CallAction::kInterrupt, CallAction::kShorten}) {
    bool struck = true;
    for (int64_t call = 0; struck; ++call) {
      const TempDir dir{memory_folder()};
      std::string problem;
      {
        const WatchedCalls watched(dir / "run", {.call = call, .action = action});
        try {
          write_run_folder(dir / "run");
        } catch (const Error& failure) {
          problem = failure.what();
        }
        struck = watched.has_struck();
      }
      if (lasting(dir) != lasting(whole)) problem += " other files than without";
      if (!struck) break;
      EXPECT_TRUE(count.add(problem.empty())) << "call " << call << ": " << problem;
    }
  }
}

// The real file layer, with every file that grows on a full device.
class FullDevice : public FailingFileSystem {
 public:
  std::unique_ptr<WritableFile> open_append(const fs::path&) override {
    return real_file_system().open_append("/dev/full");
  }
};

TEST(RunFolderFaults, a_log_or_metrics_on_a_full_device_end_the_run_with_the_file_s_name) {
  const TempDir dir;
  FullDevice files;
  const std::function<void()> writes[] = {[&] { MetricsFile(dir.path(), files).on_step({.step = 1}); },
                                          [&] { RunLog(dir.path(), files).on_note("a line"); },
                                          [&] { StepRows("/dev/full", real_file_system()).truncate_after(0); }};
  const std::string expected[] = {"/dev/full: cannot write: No space left on device: [0-9]+ bytes needed, .*",
                                  "/dev/full: cannot write: No space left on device: [0-9]+ bytes needed, .*",
                                  "/dev/full: expected a regular file, found a device"};
  for (size_t i = 0; i < std::size(writes); ++i) {
    try {
      writes[i]();
      ADD_FAILURE() << i << ": nobody said so";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      EXPECT_THAT(error.what(), MatchesRegex(expected[i]));
    }
  }
}

TEST(RunFolderFaults, pipes_and_links_in_the_folder_neither_hang_a_run_nor_lead_out_of_it) {
  const TempDir whole;
  write_run_folder(whole / "run");
  SuiteCount count("rel-S8 pipes and links planted under the names of a run folder");
  for (const char* name : {"run.lock", "metrics.jsonl", "run.log", "config.yaml", ".config.yaml.tmp",
                           "run_manifest.json", ".run_manifest.json.tmp", "skipped_rows.jsonl",
                           ".skipped_rows.jsonl.tmp", "completed.json", ".completed.json.tmp"}) {
    for (const bool is_link : {false, true}) {
      const TempDir dir;
      const fs::path precious = dir.write("outside", "precious");
      const fs::path planted = dir / "run" / name;
      fs::create_directories(planted.parent_path());
      if (is_link) {
        fs::create_symlink(precious, planted);
      } else {
        ASSERT_EQ(::mkfifo(planted.c_str(), 0600), 0);
      }
      std::string refusal;
      try {
        write_run_folder(dir / "run");
      } catch (const Error& error) {
        refusal = error.what();
      }
      const bool grows = !std::string_view(name).starts_with(".") && std::string_view(name) != "config.yaml" &&
                         !std::string_view(name).ends_with("json") && std::string_view(name) != "skipped_rows.jsonl";
      const bool told = refusal.find(planted.string() + ": ") == 0 && refusal.ends_with("move it away");
      EXPECT_TRUE(count.add(read_file(precious) == "precious" && (grows ? told : refusal.empty())))
          << name << (is_link ? " is a link: " : " is a pipe: ") << refusal;
    }
  }
}

TEST(RunFolderFaults, the_lock_of_a_killed_process_is_taken_over_and_that_of_a_living_one_is_not) {
  SuiteCount count("R13 stale locks recovered, living owners named");
  const TempDir dir{memory_folder()};
  char host[256] = "";
  ASSERT_EQ(gethostname(host, sizeof(host)), 0);
  for (int i = 0; i < 100; ++i) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      const RunLock lock(dir / "run", real_file_system());
      if (write(ready[1], "x", 1) != 1) _exit(1);
      for (;;) pause();
    }
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    std::string refusal;
    try {
      const RunLock second(dir / "run", real_file_system());
    } catch (const Error& error) {
      refusal = error.what();
    }
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    close(ready[0]);
    close(ready[1]);
    bool taken_over = false;
    try {
      const RunLock mine(dir / "run", real_file_system());
      taken_over = read_file(dir / "run/run.lock").starts_with("process " + std::to_string(getpid()) + " on ");
    } catch (const Error&) {
    }
    const std::string owner = "in use by process " + std::to_string(child) + " on " + host;
    EXPECT_TRUE(count.add(taken_over && refusal.find(owner) != std::string::npos)) << refusal;
  }
}

}  // namespace
}  // namespace gemma_sft
