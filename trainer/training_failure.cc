#include "trainer/training_failure.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <optional>
#include <regex>
#include <system_error>

#include "configs/error.h"
#include "configs/value_reader.h"
#include "trainer/allocation_failure.h"

namespace gemma_sft {
namespace {

// The amount in "... you tried to allocate 123 bytes" (CPU) or "Tried to allocate 2.00 GiB" (CUDA), as written there.
std::string amount_asked(const std::string& message) {
  static const std::regex pattern("[Tt]ried to allocate ([0-9.]+ [A-Za-z]+)");
  std::smatch match;
  return std::regex_search(message, match, pattern) ? match[1].str() : "an unknown amount";
}

constexpr const char* kUnknownAmount = "an unknown amount (Cannot allocate memory)";  // ENOMEM's words

bool says_out_of_memory(const std::string& message) {
  // "primitive": oneDNN found no room for a kernel's code or scratch space, and says no more than that.
  for (const char* words : {"can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
                            "could not create a primitive", "could not execute a primitive"}) {
    if (message.find(words) != std::string::npos) return true;
  }
  return false;
}

// Where the process has less address space than the machine has memory, that is what ran out.
std::string describe_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return fmt::format(" This process is limited to {} bytes of address space (ulimit -v).", limit.rlim_cur);
}

// An id is what its file says, of any length and with any character.
std::string shown_id(const std::string& id) { return shown_text(id, 200); }

// ", the longest of 3500 tokens at data/train.jsonl:9 (id b)"
std::string describe_longest(const PackedBatch& batch) {
  const auto& lengths = batch.document_lengths;
  if (lengths.empty()) return "";
  const auto longest = static_cast<size_t>(std::max_element(lengths.begin(), lengths.end()) - lengths.begin());
  std::string text = fmt::format(", the longest of {} tokens", lengths[longest]);
  if (longest < batch.row_lines.size()) {
    text += fmt::format(" at {}:{} (id {})", batch.file, batch.row_lines[longest], shown_id(batch.row_ids[longest]));
  }
  return text;
}

std::string explain(const WorkPlace& place, const std::string& asked) {
  std::string where = place.phase;
  if (place.step > 0) where += fmt::format(", step {}", place.step);
  if (place.batch != nullptr) {
    where += fmt::format(", micro-batch of {} examples with {} tokens{}", place.batch->documents(),
                         place.batch->tokens(), describe_longest(*place.batch));
  }
  return fmt::format("out of memory ({}): tried to allocate {}. {}{}", where, asked, place.remedy, describe_limit());
}

}  // namespace

void with_memory_errors_explained(const WorkPlace& place, const std::function<void()>& work) {
  std::optional<std::string> asked;
  try {
    work();
  } catch (const Error&) {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    asked = amount_asked(error.what_without_backtrace());
  } catch (const c10::Error& error) {
    if (!says_out_of_memory(error.what_without_backtrace())) throw;
    asked = amount_asked(error.what_without_backtrace());
  } catch (const AllocationFailure& error) {
    asked = fmt::format("{} bytes", error.bytes);
  } catch (const std::bad_alloc&) {  // not from `new` (trainer/allocation_failure.h): from the system or a library
    asked = kUnknownAmount;
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) {
      asked = "the stack of a thread, unless it is a limit of threads that was reached (ulimit -u, pids.max)";
    } else if (error.code() == std::errc::not_enough_memory) {  // of a folder's listing, for instance
      asked = kUnknownAmount;
    } else {
      throw;
    }
  } catch (const std::exception& error) {
    if (!says_out_of_memory(error.what())) throw;
    asked = fmt::format("an unknown amount ({})", error.what());
  }
  if (asked) throw Error(ErrorKind::kOutOfMemory, explain(place, *asked));
}

double without_sign_of_nan(double number) { return std::isnan(number) ? std::fabs(number) : number; }

std::string describe_rows(const std::vector<PackedBatch>& batches) {
  constexpr int64_t kMostNamed = 20;
  std::string names;
  int64_t rows = 0;
  for (const PackedBatch& batch : batches) {
    for (size_t i = 0; i < batch.row_lines.size(); ++i, ++rows) {
      if (rows >= kMostNamed) continue;
      names += fmt::format("{}{}:{} (id {})", rows == 0 ? "" : ", ", batch.file, batch.row_lines[i],
                           shown_id(batch.row_ids[i]));
    }
  }
  if (rows > kMostNamed) names += fmt::format(" and {} more", rows - kMostNamed);
  return names;
}

}  // namespace gemma_sft
