#include "data/traces/database_address.h"

#include <algorithm>
#include <string_view>

#include "configs/error.h"

namespace gemma_sft {
namespace {

// "?a=1&ssl=require&b=2" -> "?a=1&sslmode=require&b=2"
std::string with_libpq_names(std::string_view query) {
  std::string result;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&', 1), query.size());
    std::string_view part = query.substr(0, end);  // begins with ? or &
    result += part.front();
    part.remove_prefix(1);
    if (part.starts_with("ssl=")) {
      const std::string_view value = part.substr(4);
      part = value == "true" ? "sslmode=require" : value == "false" ? "sslmode=disable" : "";
      if (part.empty()) result.append("sslmode=").append(value);
    }
    result += part;
    query.remove_prefix(end);
  }
  return result;
}

}  // namespace

std::string libpq_address(const std::string& database_url) {
  const size_t scheme_end = database_url.find("://");
  std::string scheme = scheme_end == std::string::npos ? "" : database_url.substr(0, scheme_end);
  scheme = scheme.substr(0, scheme.find('+'));
  if (scheme != "postgresql" && scheme != "postgres") {
    throw Error(ErrorKind::kUsage,
                "DATABASE_URL: expected an address such as postgresql://USER@HOST:5432/DATABASE, a password behind "
                "USER after a "
                "colon (the value is not shown, for it may hold one)");
  }
  const size_t query = database_url.find('?', scheme_end);
  const std::string before = database_url.substr(scheme_end, query == std::string::npos ? query : query - scheme_end);
  return "postgresql" + before +
         (query == std::string::npos ? "" : with_libpq_names(std::string_view(database_url).substr(query)));
}

}  // namespace gemma_sft
