#include "trainer/tunix/price_table.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "configs/error.h"
#include "data/files/file_system.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::json;

double positive(const Json& entry, const char* name, const std::string& file) {
  const Json& value = entry.at(name);
  if (!value.is_number() || !(value.get<double>() > 0) || value.get<double>() > 1e9) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: {}: \"{}\": expected a number above 0", file,
                                               entry.at("name").get<std::string>(), name));
  }
  return value.get<double>();
}

PriceTable parse(const std::string& text, const std::string& file) {
  try {
    const Json json = Json::parse(text);
    PriceTable table;
    table.as_of = json.at("as_of");
    table.source = json.at("source");
    for (const Json& entry : json.at("accelerators")) {
      Accelerator accelerator;
      accelerator.name = entry.at("name");
      accelerator.cores = static_cast<int64_t>(positive(entry, "cores", file));
      accelerator.hbm_bytes_per_core = positive(entry, "hbm_gib_per_core", file) * 1024 * 1024 * 1024;
      accelerator.peak_flops_per_core = positive(entry, "peak_tflops_per_core", file) * 1e12;
      for (const auto& [name, price] : {std::pair("usd_per_hour", &accelerator.usd_per_hour),
                                        std::pair("spot_usd_per_hour", &accelerator.spot_usd_per_hour)}) {
        if (entry.contains(name) && !entry.at(name).is_null()) *price = positive(entry, name, file);
      }
      if (accelerator.cores < 1) throw Error(ErrorKind::kUsage, fmt::format("{}: \"cores\": expected 1 or more", file));
      table.accelerators.push_back(std::move(accelerator));
    }
    if (table.as_of.empty()) throw Error(ErrorKind::kUsage, fmt::format("{}: \"as_of\": expected a date", file));
    return table;
  } catch (const Json::exception& problem) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: not a price table: {}; configs/accelerators.json shows the form",
                                               file, problem.what()));
  }
}

}  // namespace

const Accelerator* PriceTable::find(const std::string& name) const {
  for (const Accelerator& accelerator : accelerators) {
    if (accelerator.name == name) return &accelerator;
  }
  return nullptr;
}

PriceTable with_speeds(PriceTable offered, const PriceTable& known) {
  for (Accelerator& accelerator : offered.accelerators) {
    if (const Accelerator* same = known.find(accelerator.name)) {
      accelerator.peak_flops_per_core = same->peak_flops_per_core;
    }
  }
  return offered;
}

PriceTable built_in_prices() { return parse(built_in_price_text(), "configs/accelerators.json"); }

PriceTable load_prices(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) {
    throw Error(ErrorKind::kUsage, fmt::format("--prices {}: not found", file.string()));
  }
  return parse(read_file(file, 1 << 20), file.string());
}

}  // namespace gemma_sft
