#include "trainer/tunix/http_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace gemma_sft {

std::optional<std::string> HttpResponse::find_header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return std::nullopt;
}

std::string HttpOrigin::text() const {
  const bool usual = port == (scheme == "https" ? 443 : 80);
  return usual ? fmt::format("{}://{}", scheme, host) : fmt::format("{}://{}:{}", scheme, host, port);
}

bool HttpOrigin::is_loopback() const {
  if (host == "localhost" || host == "[::1]") return true;
  return host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string::npos;
}

std::optional<HttpOrigin> find_origin(std::string_view url) {
  HttpOrigin origin;
  const size_t colon = url.find("://");
  if (colon == std::string_view::npos) return std::nullopt;
  const auto lower = [](std::string_view text) {
    std::string result(text);
    for (char& c : result) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return result;
  };
  origin.scheme = lower(url.substr(0, colon));
  if (origin.scheme != "https" && origin.scheme != "http") return std::nullopt;
  const std::string_view rest = url.substr(colon + 3);
  std::string_view authority = rest.substr(0, rest.find_first_of("/?#\\"));
  for (const char c : url) {
    if (c <= ' ' || c == '\x7f' || c == '\\') return std::nullopt;
  }
  if (authority.empty() || authority.find('@') != std::string_view::npos) return std::nullopt;
  origin.port = origin.scheme == "https" ? 443 : 80;
  const size_t bracket = authority.rfind(']');
  const size_t port_at = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (port_at != std::string_view::npos) {
    const std::string_view digits = authority.substr(port_at + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), origin.port);
    if (error != std::errc() || end != digits.data() + digits.size() || origin.port < 1 || origin.port > 65535) {
      return std::nullopt;
    }
    authority = authority.substr(0, port_at);
  }
  origin.host = lower(authority);
  if (origin.host.empty()) return std::nullopt;
  return origin;
}

std::string percent_encoded(std::string_view text, std::string_view kept) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
                       c == '.' || c == '_' || c == '~' || kept.find(c) != std::string_view::npos;
    result += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return result;
}

std::optional<uint64_t> parse_header_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string resolve_location(const std::string& base, const std::string& location) {
  if (location.starts_with("//")) return base.substr(0, base.find("://") + 1) + location;
  if (!location.starts_with("/")) return location;
  return base.substr(0, base.find('/', base.find("://") + 3)) + location;
}

}  // namespace gemma_sft
