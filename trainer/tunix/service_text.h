// Text that came from a service, made fit to be shown: our key masked in every form it may come back in, control
// characters escaped, length bounded.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace gemma_sft {

// Immutable. Holds the key: do not print it.
class ServiceText {
 public:
  // `key` may be empty: then only things that look like secrets are masked.
  explicit ServiceText(const std::string& key = "");

  // The key and any 8 characters of its secret part in a row become ***: as they are, percent-encoded, escaped as in
  // JSON, or in base64.
  std::string masked(std::string_view text) const;
  bool holds_key(std::string_view text) const { return masked(text) != text; }
  // Masked, at most `max_bytes` long ("..." behind it when cut), control characters and bad UTF-8 escaped; newlines
  // become spaces.
  std::string shown(std::string_view text, size_t max_bytes = 2048) const;

 private:
  struct Secret {
    std::string text;
    size_t least = 0;  // characters of it in a row that are masked
  };
  std::vector<Secret> secrets_;
};

}  // namespace gemma_sft
