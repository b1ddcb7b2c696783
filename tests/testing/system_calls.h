// The operating system's calls below a folder, counted, and the n-th one made to fail, be cut short, be interrupted, or
// kill this process with SIGKILL before or after it is done. A program that links gemma_sft_system_calls calls these
// functions instead of libc's, whoever calls them: open, openat, write, fsync, ftruncate, close, rename, mkdir, unlink,
// unlinkat, rmdir. So it sees what FailingFileSystem cannot: the real file layer, call by call, and whatever went
// around it.
//
// The way to use it: watch with no fault and count the calls; then once for every call with that call faulty.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace gemma_sft {

enum class CallAction {
  kNone,
  kFail,        // returns -1 with `error_number` and does nothing (close: closes, and then says so)
  kInterrupt,   // returns -1 with EINTR once, where the call can: open, write, fsync, ftruncate, close; else nothing
  kShorten,     // write: writes half of it, at least one byte; else nothing
  kKillBefore,  // SIGKILL to this process instead of the call
  kKillAfter,   // SIGKILL to this process after the call
  kKillHalfway  // as kKillAfter, with half of a write done
};

struct CallFault {
  int64_t call = -1;  // index of the call, from 0; -1: none
  CallAction action = CallAction::kNone;
  int error_number = 0;  // of kFail
};

struct SystemCall {
  std::string name;            // "write"; "note" for what note() was told
  std::filesystem::path path;  // what is opened, written, removed; of rename the new name
  std::filesystem::path from;  // of rename
  int flags = 0;               // of open
  int64_t offset = 0;          // write: where; ftruncate: the new size
  std::string bytes;           // written
  bool succeeded = false;
};

// Watches calls on paths below `root` until it goes. One at a time. Calls of several threads are counted as they come.
class WatchedCalls {
 public:
  explicit WatchedCalls(std::filesystem::path root, CallFault fault = {});
  ~WatchedCalls();
  WatchedCalls(const WatchedCalls&) = delete;
  WatchedCalls& operator=(const WatchedCalls&) = delete;

  std::vector<SystemCall> calls() const;
  bool has_struck() const;             // the fault came to pass
  void note(const std::string& text);  // a line of the journal that is no call, as `path`
};

}  // namespace gemma_sft
