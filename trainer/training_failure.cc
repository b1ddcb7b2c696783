#include "trainer/training_failure.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <optional>
#include <regex>

#include "configs/error.h"

namespace gemma_sft {
namespace {

// The amount in "... you tried to allocate 123 bytes" (CPU) or "Tried to allocate 2.00 GiB" (CUDA), as written there.
std::string amount_asked(const std::string& message) {
  static const std::regex pattern("[Tt]ried to allocate ([0-9.]+ [A-Za-z]+)");
  std::smatch match;
  return std::regex_search(message, match, pattern) ? match[1].str() : "an unknown amount";
}

bool says_out_of_memory(const std::string& message) {
  for (const char* words :
       {"can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED"}) {
    if (message.find(words) != std::string::npos) return true;
  }
  return false;
}

std::string explain(const WorkPlace& place, const std::string& asked) {
  std::string where = place.phase;
  if (place.step > 0) where += fmt::format(", step {}", place.step);
  if (place.batch != nullptr) {
    const auto& lengths = place.batch->document_lengths;
    const int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
    where += fmt::format(", micro-batch of {} examples with {} tokens, the longest of {} tokens",
                         place.batch->documents(), place.batch->tokens(), longest);
  }
  return fmt::format(
      "out of memory ({}): tried to allocate {}. Reduce training.batch_size (16 -> 8 -> 4) and set "
      "training.gradient_accumulation_steps: 4 to keep the step's size, set training.activation_checkpointing: true or "
      "lora.rank, lower model.max_seq_length, or use a larger accelerator. Checkpoints saved so far are intact.",
      where, asked);
}

}  // namespace

void with_memory_errors_explained(const WorkPlace& place, const std::function<void()>& work) {
  std::optional<std::string> asked;
  try {
    work();
  } catch (const c10::OutOfMemoryError& error) {
    asked = amount_asked(error.what_without_backtrace());
  } catch (const c10::Error& error) {
    if (!says_out_of_memory(error.what_without_backtrace())) throw;
    asked = amount_asked(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    asked = "an unknown amount";
  }
  if (asked) throw Error(ErrorKind::kOutOfMemory, explain(place, *asked));
}

std::string describe_rows(const std::vector<PackedBatch>& batches) {
  constexpr int64_t kMostNamed = 20;
  std::string names;
  int64_t rows = 0;
  for (const PackedBatch& batch : batches) {
    for (size_t i = 0; i < batch.row_lines.size(); ++i, ++rows) {
      if (rows >= kMostNamed) continue;
      names += fmt::format("{}{}:{} (id {})", rows == 0 ? "" : ", ", batch.file, batch.row_lines[i], batch.row_ids[i]);
    }
  }
  if (rows > kMostNamed) names += fmt::format(" and {} more", rows - kMostNamed);
  return names;
}

}  // namespace gemma_sft
