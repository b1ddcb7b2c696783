// What a row of a data set is, once read: turns of a conversation, or ready-made tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gemma_sft {

enum class Role { kSystem, kUser, kModel };

struct Turn {
  Role role = Role::kUser;
  std::string text;  // UTF-8, as written in the row: not trimmed, control tokens untouched
};

// `{id, input_ids, loss_mask}`: mask 1 where the token itself is a target.
struct TokenizedExample {
  std::string id;
  std::vector<int32_t> input_ids;
  std::vector<uint8_t> loss_mask;
};

// Where a row stands, for messages: "data/train.jsonl:17".
struct RowPlace {
  std::string file;
  int64_t line = 0;  // from 1
};

struct Example {
  std::string id;  // the row's, or "<file>:<line>"
  RowPlace place;
  std::vector<Turn> turns;                 // empty when `tokens` is set
  std::optional<TokenizedExample> tokens;  // format `tokens`
  // Fields that the format does not name and that were not read: "system", "messages[].weight". The first few.
  std::vector<std::string> unread_fields = {};
};

}  // namespace gemma_sft
