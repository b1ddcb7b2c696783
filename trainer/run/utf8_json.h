// JSON as text that is UTF-8 whatever is in it: names of files and ids of rows may be any bytes, which become U+FFFD.
#pragma once

#include <string>

namespace gemma_sft {

// `json` is a nlohmann::json or ordered_json. `indent` -1: one line.
template <typename Json>
std::string utf8_json(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace gemma_sft
