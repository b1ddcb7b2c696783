// The fixture tokenizer and the values that the reference implementations gave for it (make_tiny_tokenizer.py).
#pragma once

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/text/tokenizer.h"

namespace gemma_sft {

inline std::filesystem::path fixture_path(const std::string& name) {
  return std::filesystem::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures" / name;
}

inline std::string read_fixture(const std::string& name) {
  std::ifstream file(fixture_path(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::shared_ptr<const Tokenizer> tiny_tokenizer() {
  static const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(fixture_path("tiny_tokenizer.model"));
  return tokenizer;
}

inline const nlohmann::json& tiny_tokenizer_cases() {
  static const nlohmann::json cases = nlohmann::json::parse(read_fixture("tiny_tokenizer_cases.json"));
  return cases;
}

}  // namespace gemma_sft
