#include "configs/secrets.h"

#include <array>

namespace gemma_sft {
namespace {

constexpr std::string_view kServiceKey = "tunix_sk_";
constexpr std::string_view kHubToken = "hf_";
constexpr std::string_view kPrivateKey = "-----BEGIN ";
constexpr size_t kHubTokenLength = 20;  // shorter words that begin with hf_ are names, not tokens

bool is_alphanumeric(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool ends_a_word(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '"' || c == '\'' || c == ',';
}

struct Span {
  size_t begin = std::string_view::npos;
  size_t end = std::string_view::npos;
  std::string_view shown;  // what stands in its place
};

Span find_service_key(std::string_view text, size_t from) {
  const size_t begin = text.find(kServiceKey, from);
  if (begin == std::string_view::npos) return {};
  size_t end = begin + kServiceKey.size();
  while (end < text.size() && !ends_a_word(text[end])) ++end;
  while (end > begin && (text[end - 1] == ':' || text[end - 1] == ';')) --end;  // belong to the sentence around it
  return {begin, end, "tunix_sk_***"};
}

Span find_hub_token(std::string_view text, size_t from) {
  for (size_t begin = text.find(kHubToken, from); begin != std::string_view::npos;
       begin = text.find(kHubToken, begin + 1)) {
    if (begin > 0 && is_alphanumeric(text[begin - 1])) continue;
    size_t end = begin + kHubToken.size();
    while (end < text.size() && is_alphanumeric(text[end])) ++end;
    if (end - begin >= kHubTokenLength) return {begin, end, "hf_***"};
  }
  return {};
}

// scheme://user:password@host. The name and the password may hold any character, so the last @ of the word counts.
Span find_url_password(std::string_view text, size_t from) {
  for (size_t scheme = text.find("://", from); scheme != std::string_view::npos;
       scheme = text.find("://", scheme + 3)) {
    const size_t begin = scheme + 3;
    size_t end = begin;
    while (end < text.size() && !ends_a_word(text[end])) ++end;
    const std::string_view word = text.substr(begin, end - begin);
    const size_t at = word.rfind('@');
    if (at == std::string_view::npos || word.substr(0, at).find(':') == std::string_view::npos) {
      continue;
    }
    return {begin, begin + at, "***"};
  }
  return {};
}

Span find_private_key(std::string_view text, size_t from) {
  const size_t begin = text.find(kPrivateKey, from);
  if (begin == std::string_view::npos) return {};
  return {begin, text.size(), "***"};
}

Span find_first(std::string_view text, size_t from) {
  Span first;
  for (const auto find : {find_service_key, find_hub_token, find_url_password, find_private_key}) {
    const Span span = find(text, from);
    if (span.begin < first.begin) first = span;
  }
  return first;
}

// apiKey, api-key and API_KEY are one name.
std::string plain_name(std::string_view key) {
  std::string name;
  for (const char c : key) {
    if (c == '_' || c == '-' || c == '.' || c == ' ') continue;
    name += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return name;
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

}  // namespace

bool names_secret(std::string_view key) {
  const std::string name = plain_name(key);
  for (const std::string_view part :
       {"apikey", "password", "passwd", "passphrase", "secret", "databaseurl", "dburl", "postgresurl",
        "connectionstring", "credential", "accesskey", "privatekey", "authorization"}) {
    if (name.find(part) != std::string::npos) return true;
  }
  if (name == "pwd" || name == "dsn" || name == "bearer" || ends_with(name, "dsn")) return true;
  if (!ends_with(name, "token")) return false;
  for (const std::string_view of_a_vocabulary :
       {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "stop", "end", "start", "per"}) {
    if (ends_with(name, std::string(of_a_vocabulary) + "token")) return false;
  }
  return true;
}

std::string secret_remedy(std::string_view key) {
  const std::string name = plain_name(key);
  const bool database = name.find("url") != std::string::npos || ends_with(name, "dsn") ||
                        name.find("connectionstring") != std::string::npos ||
                        name.find("database") != std::string::npos;
  if (database) {
    return "set the environment variable DATABASE_URL (in the shell or in .env) and remove this";
  }
  if (name.find("hf") == 0 || name.find("hub") != std::string::npos || name.find("huggingface") != std::string::npos) {
    return "remove this: models are read from the local Hugging Face cache, which needs no token";
  }
  for (const std::string_view part : {"key", "token", "authorization", "bearer"}) {
    if (name.find(part) == std::string::npos) continue;
    return "set the environment variable TUNIX_API_KEY (in the shell or in .env) and remove this";
  }
  return "set environment variables (TUNIX_API_KEY, DATABASE_URL, in the shell or in .env) and "
         "remove this";
}

bool holds_secret(std::string_view text) { return find_first(text, 0).begin != std::string_view::npos; }

std::string without_secrets(std::string_view text) {
  std::string result;
  size_t from = 0;
  while (from < text.size()) {
    const Span span = find_first(text, from);
    if (span.begin == std::string_view::npos) break;
    result += text.substr(from, span.begin - from);
    result += span.shown;
    from = span.end;
  }
  return result + std::string(text.substr(from));
}

}  // namespace gemma_sft
