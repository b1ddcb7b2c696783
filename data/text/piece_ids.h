// Which piece of a vocabulary has a text: the table that rebuilding a sentencepiece model from its merges asks millions
// of times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "data/text/sentencepiece_model.h"

namespace gemma_sft {

// Ids by text. Lookups are nearly all that reading costs, most of them for texts that are no piece: a slot tells so
// without going to the text.
//
// Refers to `pieces`; index() has to be called again when they change. Not thread-safe while it runs.
class PieceIds {
 public:
  explicit PieceIds(const std::vector<Piece>& pieces) : pieces_(pieces) {}

  // Takes in all pieces afresh. The first id whose text another one has already, or -1.
  int32_t index() {
    size_t size = 1024;
    while (size < 2 * pieces_.size()) size *= 2;
    slots_.assign(size, {});
    for (size_t id = 0; id < pieces_.size(); ++id) {
      const size_t hash = std::hash<std::string_view>()(pieces_[id].text);
      Slot& slot = slots_[place_of(pieces_[id].text, hash)];
      if (slot.id >= 0) return static_cast<int32_t>(id);
      slot = {static_cast<uint32_t>(hash >> 32), static_cast<int32_t>(id)};
    }
    return -1;
  }

  // -1 when no piece has this text.
  int32_t find(std::string_view text) const { return slots_[place_of(text, std::hash<std::string_view>()(text))].id; }

 private:
  struct Slot {
    uint32_t high_hash = 0;
    int32_t id = -1;
  };

  // Of the slot that holds `text`, or the empty one where it would go.
  size_t place_of(std::string_view text, size_t hash) const {
    const auto high = static_cast<uint32_t>(hash >> 32);
    size_t at = hash & (slots_.size() - 1);
    while (slots_[at].id >= 0 &&
           (slots_[at].high_hash != high || pieces_[static_cast<size_t>(slots_[at].id)].text != text)) {
      at = (at + 1) & (slots_.size() - 1);
    }
    return at;
  }

  const std::vector<Piece>& pieces_;
  std::vector<Slot> slots_;  // a power of two, at most half full
};

}  // namespace gemma_sft
