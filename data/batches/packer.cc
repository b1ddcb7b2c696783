#include "data/batches/packer.h"

#include <fmt/format.h>

#include <algorithm>

#include "configs/error.h"

namespace gemma_sft {

PackedBatch pack(const std::vector<TokenizedExample>& examples, const std::vector<int64_t>& lines,
                 const std::string& file, const PackOptions& options) {
  if (examples.empty() || lines.size() != examples.size()) {
    throw Error(ErrorKind::kInternal,
                fmt::format("{} examples with {} lines were to be packed", examples.size(), lines.size()));
  }
  PackedBatch batch;
  batch.file = file;
  batch.row_lines = lines;
  size_t longest = 0;
  size_t total = 0;
  for (const TokenizedExample& example : examples) {
    if (example.input_ids.empty() || example.loss_mask.size() != example.input_ids.size()) {
      throw Error(ErrorKind::kInternal, fmt::format("{}: row {} has {} ids and {} mask values", file, example.id,
                                                    example.input_ids.size(), example.loss_mask.size()));
    }
    longest = std::max(longest, example.input_ids.size());
    total += example.input_ids.size();
  }
  batch.padded_length = options.packing ? 0 : static_cast<int64_t>(longest);
  const size_t places = options.packing ? total : longest * examples.size();
  batch.input_ids.reserve(places);
  batch.targets.reserve(places);
  batch.positions.reserve(places);
  for (const TokenizedExample& example : examples) {
    const size_t length = example.input_ids.size();
    const size_t room = options.packing ? length : longest;
    batch.document_offsets.push_back(static_cast<int64_t>(batch.input_ids.size()));
    batch.document_lengths.push_back(static_cast<int64_t>(length));
    batch.row_ids.push_back(example.id);
    for (size_t t = 0; t < room; ++t) {
      const bool has_target = t + 1 < length && example.loss_mask[t + 1] != 0;
      batch.input_ids.push_back(t < length ? example.input_ids[t] : options.pad_id);
      batch.targets.push_back(has_target ? example.input_ids[t + 1] : -1);
      batch.positions.push_back(static_cast<int64_t>(t));
      batch.target_tokens += has_target ? 1 : 0;
    }
    batch.real_tokens += static_cast<int64_t>(length);
  }
  batch.document_offsets.push_back(static_cast<int64_t>(batch.input_ids.size()));
  return batch;
}

}  // namespace gemma_sft
