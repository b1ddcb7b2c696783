// What accelerators are there, how large they are and what they cost: configs/accelerators.json, built into the
// program, or a file of the user's in the same form.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace gemma_sft {

struct Accelerator {
  std::string name;  // "tpu-v3-8"
  int64_t cores = 0;
  double hbm_bytes_per_core = 0;
  double peak_flops_per_core = 0;  // bf16, floating point operations a second; 0: not known
  std::optional<double> usd_per_hour;
  std::optional<double> spot_usd_per_hour;
};

struct PriceTable {
  std::string as_of;   // the date of the prices
  std::string source;  // where they are from
  std::vector<Accelerator> accelerators;

  const Accelerator* find(const std::string& name) const;
};

// `offered` by a service, with the speeds that `known` tells of accelerators of the same names.
PriceTable with_speeds(PriceTable offered, const PriceTable& known);

const char* built_in_price_text();  // configs/accelerators.json as it was when the program was built
PriceTable built_in_prices();
// Throws Error(kUsage) naming the file and what is wrong with it.
PriceTable load_prices(const std::filesystem::path& file);

}  // namespace gemma_sft
