#include "configs/error.h"

namespace gemma_sft {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage: return 2;
    case ErrorKind::kData: return 3;
    case ErrorKind::kAuthentication: return 4;
    case ErrorKind::kQuota: return 5;
    case ErrorKind::kJobFailed: return 6;
    case ErrorKind::kJobCancelled: return 7;
    case ErrorKind::kTimeout: return 8;
    case ErrorKind::kIo: return 9;
    case ErrorKind::kApi: return 10;
    case ErrorKind::kOutOfMemory: return 11;
    case ErrorKind::kModel: return 12;
    case ErrorKind::kCheckpoint: return 13;
    case ErrorKind::kNonFinite: return 14;
    case ErrorKind::kInternal: return 70;
  }
  return 70;
}

}  // namespace gemma_sft
