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

  // The key, its base64 and percent-encoded forms and any piece of 8 characters of its secret part become ***.
  std::string masked(std::string_view text) const;
  // Masked, at most `max_bytes` long ("..." behind it when cut), control characters and bad UTF-8 escaped; newlines
  // become spaces.
  std::string shown(std::string_view text, size_t max_bytes = 2048) const;

 private:
  std::vector<std::string> forms_;  // longest first
  std::string secret_part_;
};

}  // namespace gemma_sft
