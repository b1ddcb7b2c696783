// The one exception type of the project, and the exit code each kind of failure ends the program with.
//
// Libraries throw `Error` and never print, exit or abort; only `trainer/cli` turns an `Error` into a message on stderr
// and an exit code. A message says place, value and remedy, in that order, and is complete: it is printed as it is.
#pragma once

#include <stdexcept>
#include <string>

namespace gemma_sft {

enum class ErrorKind {
  kUsage,           // command line or configuration that cannot be honoured
  kData,            // manifest or data set
  kAuthentication,  // job service refused the key
  kQuota,           // job service quota or cost limit
  kJobFailed,
  kJobCancelled,
  kTimeout,
  kIo,   // integrity or input/output: disk full, digest mismatch, unreadable file
  kApi,  // job service API or transport
  kOutOfMemory,
  kModel,       // model folder, config.json, weights, tokenizer files
  kCheckpoint,  // no usable checkpoint, or one that belongs to another run
  kNonFinite,   // NaN or Inf in loss, gradient or weights
  kInternal,    // a bug of ours
};

// The documented exit code of the program for a failure of this kind (README, "Exit codes").
int exit_code(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message, int error_number = 0)
      : std::runtime_error(message), kind_(kind), error_number_(error_number) {}
  ErrorKind kind() const { return kind_; }
  int error_number() const { return error_number_; }  // errno of the system call that failed; 0: it was none

 private:
  ErrorKind kind_;
  int error_number_;
};

}  // namespace gemma_sft
