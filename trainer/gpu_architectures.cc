#include "trainer/gpu_architectures.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <vector>

#include "configs/error.h"

namespace gemma_sft {
namespace {

struct Architecture {
  int number = 0;  // 90 for 9.0, 120 for 12.0
  bool machine_code = true, ptx = true, exact = false;
};

Architecture parse_architecture(std::string_view text) {
  Architecture made;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, made.number);
  std::string_view kind(rest, static_cast<size_t>(end - rest));
  if (!kind.empty() && (kind.front() == 'a' || kind.front() == 'f')) {
    made.exact = true;
    kind.remove_prefix(1);
  }
  made.ptx = kind != "-real";
  made.machine_code = kind != "-virtual";
  if (error != std::errc() || !(kind.empty() || kind == "-real" || kind == "-virtual")) {
    throw Error(ErrorKind::kInternal, fmt::format("\"{}\" is no GPU architecture", text));
  }
  return made;
}

std::vector<Architecture> parse_architectures(const std::string& compiled) {
  std::vector<Architecture> all;
  for (size_t begin = 0; begin < compiled.size();) {
    const size_t end = std::min(compiled.find(',', begin), compiled.size());
    all.push_back(parse_architecture(std::string_view(compiled).substr(begin, end - begin)));
    begin = end + 1;
  }
  return all;
}

}  // namespace

bool runs_on(const std::string& compiled, Capability device) {
  const int number = device.major * 10 + device.minor;
  for (const Architecture& made : parse_architectures(compiled)) {
    if (number == made.number) return true;
    if (made.exact) continue;
    if (made.machine_code && number / 10 == made.number / 10 && number > made.number) return true;
    if (made.ptx && number > made.number) return true;
  }
  return false;
}

std::string describe_architectures(const std::string& compiled) {
  std::string text;
  const std::vector<Architecture> all = parse_architectures(compiled);
  for (size_t i = 0; i < all.size(); ++i) {
    text += i == 0 ? "" : i + 1 == all.size() ? " and " : ", ";
    text += fmt::format("{}.{}", all[i].number / 10, all[i].number % 10);
    if (all[i].ptx && !all[i].exact) text += " or newer";
  }
  return text;
}

}  // namespace gemma_sft
