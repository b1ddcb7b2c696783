#include "trainer/tunix/service_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "configs/secrets.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

constexpr size_t kPiece = 8;         // so many characters of a secret in a row are masked
constexpr size_t kBase64Piece = 11;  // as many in base64

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

bool is_hex_of(std::string_view digits, char c) {
  unsigned value = 0;
  for (const char digit : digits) {
    if (digit >= '0' && digit <= '9') {
      value = value * 16 + static_cast<unsigned>(digit - '0');
    } else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f') {
      value = value * 16 + static_cast<unsigned>((digit | 0x20) - 'a' + 10);
    } else {
      return false;
    }
  }
  return value == static_cast<unsigned char>(c);
}

// How many bytes of `text` at `at` spell `c`: itself, %2F, \u002f or \/. 0: they do not.
size_t spelled(std::string_view text, size_t at, char c) {
  if (text[at] == c) return 1;
  if (text[at] == '%' && at + 3 <= text.size() && is_hex_of(text.substr(at + 1, 2), c)) return 3;
  if (text[at] != '\\' || at + 1 >= text.size()) return 0;
  if (text[at + 1] == c) return 2;
  return text[at + 1] == 'u' && at + 6 <= text.size() && is_hex_of(text.substr(at + 2, 4), c) ? 6 : 0;
}

// The longest run of characters of `secret` that begins at `at`, in whatever spelling.
struct Run {
  size_t characters = 0, bytes = 0;
};
Run find_run(std::string_view text, size_t at, std::string_view secret) {
  Run longest;
  for (size_t from = 0; from < secret.size(); ++from) {
    Run run;
    while (from + run.characters < secret.size() && at + run.bytes < text.size()) {
      const size_t bytes = spelled(text, at + run.bytes, secret[from + run.characters]);
      if (bytes == 0) break;
      run.bytes += bytes;
      ++run.characters;
    }
    if (run.characters > longest.characters) longest = run;
  }
  return longest;
}

}  // namespace

ServiceText::ServiceText(const std::string& key) {
  if (key.empty()) return;
  secrets_.push_back({key, key.size()});
  std::string secret_part = key;
  for (const std::string_view prefix : {"tunix_sk_dev_", "tunix_sk_prod_", "tunix_sk_"}) {
    if (secret_part.starts_with(prefix)) secret_part = secret_part.substr(prefix.size());
  }
  if (secret_part.size() >= kPiece) secrets_.push_back({secret_part, kPiece});
  for (size_t skipped = 0; skipped < 3 && key.size() > skipped; ++skipped) {  // of a text that holds it at any offset
    std::string form = base64(std::string_view(key).substr(skipped));
    if (form.size() < kBase64Piece) continue;
    secrets_.push_back({form, kBase64Piece});
    std::replace(form.begin(), form.end(), '+', '-');
    std::replace(form.begin(), form.end(), '/', '_');
    if (form != secrets_.back().text) secrets_.push_back({form, kBase64Piece});
  }
}

std::string ServiceText::masked(std::string_view text) const {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    size_t hidden = 0;
    for (const Secret& secret : secrets_) {
      const Run run = find_run(text, at, secret.text);
      if (run.characters >= secret.least) hidden = std::max(hidden, run.bytes);
    }
    result += hidden > 0 ? "***" : text.substr(at, 1);
    at += std::max<size_t>(hidden, 1);
  }
  return without_secrets(result);
}

std::string ServiceText::shown(std::string_view text, size_t max_bytes) const {
  // A secret that is cut here lies far behind what is shown.
  const std::string safe = masked(text.substr(0, 8 * max_bytes + 4096));
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
