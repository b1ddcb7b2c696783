#include "trainer/tunix/service_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "configs/secrets.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

constexpr size_t kPiece = 8;

std::string base64(std::string_view bytes) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i + 2 < bytes.size(); i += 3) {
    const auto byte = [&](size_t at) { return static_cast<unsigned>(static_cast<unsigned char>(bytes[i + at])); };
    const unsigned group = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (const int shift : {18, 12, 6, 0}) text += kDigits[group >> shift & 63];
  }
  return text;  // whole groups only: what follows depends on the bytes behind
}

std::string percent_encoded(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    text += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return text;
}

void replace_all(std::string& text, const std::string& from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// Runs of at least kPiece characters that stand in `secret`, too.
void mask_pieces(std::string& text, const std::string& secret) {
  for (size_t at = 0; at + kPiece <= text.size(); ++at) {
    size_t length = kPiece;
    if (secret.find(std::string_view(text).substr(at, length)) == std::string::npos) continue;
    while (at + length < text.size() &&
           secret.find(std::string_view(text).substr(at, length + 1)) != std::string::npos) {
      ++length;
    }
    text.replace(at, length, "***");
    at += 2;
  }
}

}  // namespace

ServiceText::ServiceText(const std::string& key) {
  if (key.empty()) return;
  forms_.push_back(key);
  forms_.push_back(percent_encoded(key));
  for (size_t skipped = 0; skipped < 3; ++skipped) {  // base64 of a text that holds it at any offset
    if (key.size() > skipped + 5) forms_.push_back(base64(std::string_view(key).substr(skipped)));
  }
  std::sort(forms_.begin(), forms_.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
  secret_part_ = key;
  for (const std::string_view prefix : {"tunix_sk_dev_", "tunix_sk_prod_", "tunix_sk_"}) {
    if (secret_part_.starts_with(prefix)) secret_part_ = secret_part_.substr(prefix.size());
  }
}

std::string ServiceText::masked(std::string_view text) const {
  std::string result(text);
  for (const std::string& form : forms_) replace_all(result, form, "***");
  if (!secret_part_.empty()) mask_pieces(result, secret_part_);
  return without_secrets(result);
}

std::string ServiceText::shown(std::string_view text, size_t max_bytes) const {
  const std::string safe = masked(text);
  std::string flat;
  for (const char c : std::string_view(safe).substr(0, max_bytes)) flat += c == '\n' || c == '\t' ? ' ' : c;
  std::string quoted = quoted_excerpt(flat, 4 * max_bytes + 16);
  // quoted_excerpt escapes for the terminal; the quotes themselves are not wanted here.
  quoted = quoted.substr(1, quoted.rfind('"') - 1);
  std::string result;
  for (size_t i = 0; i < quoted.size(); ++i) {
    if (quoted[i] == '\\' && i + 1 < quoted.size() && (quoted[i + 1] == '"' || quoted[i + 1] == '\\')) ++i;
    result += quoted[i];
  }
  return safe.size() > max_bytes ? result + "..." : result;
}

}  // namespace gemma_sft
