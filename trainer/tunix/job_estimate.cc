#include "trainer/tunix/job_estimate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "configs/error.h"
#include "model/lora_targets.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
// Share of the peak that training reaches, and hours for providing, loading and compiling. Assumed, not measured: no
// TPU was there to measure on. The text says so.
constexpr Range kUtilization = {0.15, 0.45};
constexpr Range kSetupHours = {0.1, 0.5};
constexpr int64_t kLossChunk = 1024;  // tokens whose logits exist at a time

// How many bytes a weight takes with its gradient and moments, and an activation.
struct Bytes {
  double trained = 16;  // fp32 weight, gradient and two moments
  double frozen = 4;    // LoRA's base
  double saved = 12;    // weight and moments in a checkpoint
  double activation = 4;
};

// What a job computes in where it does not say.
Precision precision_on(const RunConfig& config, const std::string& accelerator) {
  return config.training.precision.value_or(accelerator == "cpu" ? Precision::kFp32 : Precision::kBf16Mixed);
}

Bytes bytes_of(const RunConfig& config, const std::string& accelerator) {
  const Precision precision = precision_on(config, accelerator);
  Bytes bytes;
  if (precision != Precision::kFp32) bytes.frozen = bytes.activation = 2;
  if (precision == Precision::kBf16 && config.lora.rank == 0) {
    bytes.trained = 8;
    bytes.saved = 6;
  }
  return bytes;
}

double activation_bytes(const RunConfig& config, const GemmaConfig& model, int64_t longest, int64_t cores,
                        double element) {
  const int64_t rows_per_core = (config.training.batch_size + cores - 1) / cores;
  const int64_t tokens =
      config.training.batch_tokens ? (*config.training.batch_tokens + cores - 1) / cores : rows_per_core * longest;
  const double d = static_cast<double>(model.hidden_size);
  const double heads = static_cast<double>((2 * model.num_heads + 2 * model.num_kv_heads) * model.head_dim);
  const double scores = 2.0 * static_cast<double>(model.num_heads * longest);
  const double per_layer = 6 * d + heads + scores + 3.0 * static_cast<double>(model.intermediate_size);
  const double layers = static_cast<double>(model.num_layers);
  const bool recomputes = config.training.activation_checkpointing != ActivationCheckpointing::kOff;
  const double kept = recomputes ? layers * d + per_layer : layers * per_layer;
  const double logits = 2.0 * 4 * static_cast<double>(std::min(tokens, kLossChunk) * model.vocab_size);
  return static_cast<double>(tokens) * kept * element + logits;
}

std::string with_commas(double number) {
  const std::string digits = fmt::format("{:.0f}", number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

// Bytes on a core: weights with all that belongs to them, and the activations of the longest rows.
double needed_bytes(const RunConfig& config, const GemmaConfig& model, int64_t longest,
                    const Accelerator& accelerator) {
  const Bytes bytes = bytes_of(config, accelerator.name);
  const bool lora = config.lora.rank > 0;
  const double all = static_cast<double>(model.parameter_count());
  const double trained = lora ? static_cast<double>(lora_parameters(config.lora, model)) : all;
  const double state = bytes.trained * trained + (lora ? bytes.frozen * all : 0);
  return state / static_cast<double>(accelerator.cores) +
         activation_bytes(config, model, longest, accelerator.cores, bytes.activation);
}

// The guide's remedies for want of quota and of memory, each tried on this run.
std::vector<std::string> guide_advice(const RunConfig& config, const GemmaConfig& model, int64_t longest,
                                      const PriceTable& prices) {
  std::vector<std::string> advice;
  const std::string asked = config.model.accelerator.value_or("");
  const Accelerator* accelerator = prices.find(asked);
  if (accelerator == nullptr) return advice;
  const auto holds = [&](const RunConfig& tried, const Accelerator& on) {
    const double needed = needed_bytes(tried, model, longest, on);
    return fmt::format("{} ({:.1f} of {:.1f} GiB a core)",
                       needed <= on.hbm_bytes_per_core ? "holds this run" : "does not hold this run", needed / kGib,
                       on.hbm_bytes_per_core / kGib);
  };
  if (asked == "tpu-v3-8") {
    for (const auto& [name, why] : {std::pair("tpu-v2-8", "out of quota"), std::pair("tpu-v3-32", "out of memory")}) {
      const Accelerator* other = prices.find(name);
      if (other != nullptr) advice.push_back(fmt::format("{}, take {}: it {}", why, name, holds(config, *other)));
    }
  }
  RunConfig smaller = config;
  smaller.training.batch_size = std::min<int64_t>(config.training.batch_size, 4);
  if (smaller.training.batch_size < config.training.batch_size && !config.training.batch_tokens) {
    advice.push_back(fmt::format("out of memory, training.batch_size: 4 with gradient_accumulation_steps: 4: {} {}",
                                 asked, holds(smaller, *accelerator)));
  }
  return advice;
}

std::string dollars(const Range& usd) { return fmt::format("${:.2f} to ${:.2f}", usd.low, usd.high); }

// Passes over the rows. Of a number of steps that are filled up to batch_tokens, at most so many.
double epochs_of(const TrainingSection& training, const EstimateRequest& request) {
  if (!training.max_steps) return training.num_epochs;
  const double steps = static_cast<double>(*training.max_steps);
  const double accumulation = static_cast<double>(training.gradient_accumulation_steps);
  if (training.batch_tokens) {
    const int64_t tokens = request.tokens_per_epoch.value_or(*request.rows * request.longest_row);
    return steps * static_cast<double>(*training.batch_tokens) * accumulation / static_cast<double>(tokens);
  }
  const double rows_per_step = static_cast<double>(training.batch_size) * accumulation;
  return steps / std::ceil(static_cast<double>(*request.rows) / rows_per_step);
}

// Tokens as they are. Gives those that are computed on, where every row takes the place of the longest.
double estimate_tokens(JobEstimate& estimate, const EstimateRequest& request) {
  if (!request.steps || !request.rows || *request.rows <= 0) return 0;
  const double epochs = epochs_of(request.config.training, request);
  const double padded = epochs * static_cast<double>(*request.rows * request.longest_row);
  estimate.tokens_at_most = !request.tokens_per_epoch;
  estimate.tokens = request.tokens_per_epoch ? std::llround(epochs * static_cast<double>(*request.tokens_per_epoch))
                                             : std::llround(padded);
  if (estimate.tokens_at_most) {
    estimate.assumptions.push_back(fmt::format(
        "the rows were not tokenised: each counts as the {} tokens that are allowed at most", request.longest_row));
  }
  return padded;
}

// Parameters, memory on each accelerator of the table, and what is written.
void estimate_bytes(JobEstimate& estimate, const RunConfig& config, const GemmaConfig& model, int64_t longest,
                    const PriceTable& prices) {
  const Bytes bytes = bytes_of(config, estimate.accelerator);
  const bool lora = config.lora.rank > 0;
  estimate.parameters = model.parameter_count();
  estimate.trained_parameters = lora ? lora_parameters(config.lora, model) : estimate.parameters;
  for (const Accelerator& accelerator : prices.accelerators) {
    MemoryFit fit;
    fit.accelerator = accelerator.name;
    fit.available_bytes_per_core = accelerator.hbm_bytes_per_core;
    fit.needed_bytes_per_core = needed_bytes(config, model, longest, accelerator);
    fit.fits = fit.needed_bytes_per_core <= fit.available_bytes_per_core;
    estimate.memory.push_back(std::move(fit));
  }
  estimate.advice = guide_advice(config, model, longest, prices);
  const Precision precision = precision_on(config, estimate.accelerator);
  estimate.assumptions.push_back(fmt::format(
      "memory: {} bytes a trained weight ({}) spread over all cores, and the activations of the longest rows",
      bytes.trained,
      precision == Precision::kBf16 && !lora ? "bf16 weights, gradients and moments"
                                             : "fp32 weights, gradients and moments"));
  const double trained = static_cast<double>(estimate.trained_parameters);
  const double all = static_cast<double>(estimate.parameters);
  estimate.checkpoint_bytes = bytes.saved * trained;
  const bool half = config.output.model_dtype.value_or(ModelDtype::kBf16) != ModelDtype::kFp32;
  estimate.final_model_bytes = lora ? 4.0 * trained : (half ? 2.0 : 4.0) * all;  // an adapter is written in fp32
}

// From the floating point operations of all tokens and the accelerator's speed.
void estimate_hours(JobEstimate& estimate, const RunConfig& config, const Accelerator& accelerator,
                    double computed_tokens) {
  const double passes = (config.lora.rank > 0 ? 4.0 : 6.0) +
                        (config.training.activation_checkpointing != ActivationCheckpointing::kOff ? 2.0 : 0.0);
  const double all = static_cast<double>(estimate.parameters);
  const double peak = accelerator.peak_flops_per_core * static_cast<double>(accelerator.cores);
  const double least = passes * all * static_cast<double>(*estimate.tokens) / peak / 3600;
  const double most = passes * all * computed_tokens / peak / 3600;
  estimate.hours = Range{(estimate.tokens_at_most ? 0 : least / kUtilization.high) + kSetupHours.low,
                         most / kUtilization.low + kSetupHours.high};
  estimate.assumptions.push_back(fmt::format(
      "time: {:.0f} % to {:.0f} % of the peak and {:.1f} to {:.1f} hours to begin with, assumed and not measured",
      100 * kUtilization.low, 100 * kUtilization.high, kSetupHours.low, kSetupHours.high));
}

// Of the hours.
void estimate_cost(JobEstimate& estimate, const Accelerator& accelerator) {
  const std::optional<double> price = estimate.spot ? accelerator.spot_usd_per_hour : accelerator.usd_per_hour;
  if (price) {
    estimate.usd_per_hour = *price;
    estimate.usd = Range{estimate.hours->low * *price, estimate.hours->high * *price};
  } else {
    estimate.assumptions.push_back(fmt::format("the price table has no {}price of {}: the cost is left out",
                                               estimate.spot ? "spot " : "", estimate.accelerator));
  }
}

}  // namespace

const MemoryFit* JobEstimate::find_memory(const std::string& name) const {
  for (const MemoryFit& fit : memory) {
    if (fit.accelerator == name) return &fit;
  }
  return nullptr;
}

std::optional<GemmaConfig> find_published_shape(const std::string& base_model) {
  std::string name = base_model;
  if (!name.starts_with("google/")) return std::nullopt;
  name = name.substr(7);
  for (const std::string_view suffix : {"-it", "-pt"}) {
    if (name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  }
  if (name.starts_with("gemma-1.1-")) name = "gemma-" + name.substr(10);
  return find_preset(name);
}

int64_t lora_parameters(const LoraSection& lora, const GemmaConfig& model) {
  int64_t count = 0;
  for (const LinearLayer& layer : linear_layers(model)) {
    if (is_target(layer.path, lora.target_modules)) count += lora.rank * (layer.in + layer.out);
  }
  return count;
}

JobEstimate estimate_job(const EstimateRequest& request, const PriceTable& prices) {
  JobEstimate estimate;
  estimate.rows = request.rows;
  estimate.steps = request.steps;
  estimate.accelerator = request.config.model.accelerator.value_or("");
  estimate.spot = request.config.tunix.spot.value_or(false);
  estimate.prices_as_of = prices.as_of;
  const double computed_tokens = estimate_tokens(estimate, request);
  if (!request.model) {
    estimate.assumptions.push_back("the model's shape is not known here: memory, time and cost are left out");
    return estimate;
  }
  estimate_bytes(estimate, request.config, *request.model, request.longest_row, prices);
  const Accelerator* accelerator = prices.find(estimate.accelerator);
  if (accelerator == nullptr && !estimate.accelerator.empty()) {
    estimate.assumptions.push_back(
        fmt::format("{} is not in the price table: time and cost are left out", estimate.accelerator));
  }
  if (accelerator == nullptr || !estimate.tokens) return estimate;
  if (!(accelerator->peak_flops_per_core > 0)) {
    estimate.assumptions.push_back(
        fmt::format("the price table has no speed for {}: time and cost are left out", estimate.accelerator));
    return estimate;
  }
  estimate_hours(estimate, request.config, *accelerator, computed_tokens);
  estimate_cost(estimate, *accelerator);
  return estimate;
}

std::string estimate_text(const JobEstimate& estimate) {
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("  {:<12} {}\n", name, value);
  };
  line("steps",
       estimate.steps ? with_commas(static_cast<double>(*estimate.steps)) : "not known before the rows are read");
  if (estimate.tokens) {
    line("tokens", (estimate.tokens_at_most ? "at most " : "") + with_commas(static_cast<double>(*estimate.tokens)));
  }
  if (estimate.parameters > 0) {
    line("parameters", fmt::format("{}, {} of them trained", with_commas(static_cast<double>(estimate.parameters)),
                                   with_commas(static_cast<double>(estimate.trained_parameters))));
  }
  for (const MemoryFit& fit : estimate.memory) {
    line("memory",
         fmt::format("{}: {:.1f} GiB of {:.1f} GiB a core: {}", fit.accelerator, fit.needed_bytes_per_core / kGib,
                     fit.available_bytes_per_core / kGib, fit.fits ? "fits" : "does not fit"));
  }
  if (estimate.hours) {
    line("hours",
         fmt::format("{:.1f} to {:.1f} on {}", estimate.hours->low, estimate.hours->high, estimate.accelerator));
  }
  if (estimate.usd) {
    line("cost", fmt::format("{} at ${:.2f} an hour{} (prices of {})", dollars(*estimate.usd), estimate.usd_per_hour,
                             estimate.spot ? " on spot capacity" : "", estimate.prices_as_of));
  }
  if (estimate.parameters > 0) {
    line("checkpoint", fmt::format("{:.2f} GB each", estimate.checkpoint_bytes / 1e9));
    line("final model", fmt::format("{:.2f} GB", estimate.final_model_bytes / 1e9));
  }
  for (const std::string& advice : estimate.advice) line("guide", advice);
  for (const std::string& assumption : estimate.assumptions) line("assumed", assumption);
  return text;
}

std::string estimate_json(const JobEstimate& estimate) {
  using Json = nlohmann::ordered_json;
  const auto whole = [](const std::optional<int64_t>& value) { return value ? Json(*value) : Json(nullptr); };
  const auto range = [](const std::optional<Range>& value) {
    return value ? Json{{"low", value->low}, {"high", value->high}} : Json(nullptr);
  };
  Json memory = Json::array();
  for (const MemoryFit& fit : estimate.memory) {
    memory.push_back({{"accelerator", fit.accelerator},
                      {"needed_bytes_per_core", std::llround(fit.needed_bytes_per_core)},
                      {"available_bytes_per_core", std::llround(fit.available_bytes_per_core)},
                      {"fits", fit.fits}});
  }
  return utf8_json(Json{{"rows", whole(estimate.rows)},
                        {"steps", whole(estimate.steps)},
                        {"tokens", whole(estimate.tokens)},
                        {"tokens_at_most", estimate.tokens_at_most},
                        {"parameters", estimate.parameters},
                        {"trained_parameters", estimate.trained_parameters},
                        {"accelerator", estimate.accelerator},
                        {"spot", estimate.spot},
                        {"memory", memory},
                        {"hours", range(estimate.hours)},
                        {"usd", range(estimate.usd)},
                        {"usd_per_hour", estimate.usd ? Json(estimate.usd_per_hour) : Json(nullptr)},
                        {"checkpoint_bytes", std::llround(estimate.checkpoint_bytes)},
                        {"final_model_bytes", std::llround(estimate.final_model_bytes)},
                        {"prices_as_of", estimate.prices_as_of},
                        {"advice", estimate.advice},
                        {"assumptions", estimate.assumptions}});
}

std::string smaller_that_fit(const JobEstimate& estimate, const PriceTable& prices, const std::string& name) {
  const Accelerator* asked = prices.find(name);
  std::string list;
  for (auto fit = estimate.memory.rbegin(); asked != nullptr && fit != estimate.memory.rend(); ++fit) {
    const Accelerator* other = prices.find(fit->accelerator);
    const bool smaller = static_cast<double>(other->cores) * other->hbm_bytes_per_core <
                         static_cast<double>(asked->cores) * asked->hbm_bytes_per_core;
    if (fit->fits && smaller) list += (list.empty() ? "" : ", ") + fit->accelerator;
  }
  return list;
}

void require_affordable(const JobEstimate& estimate, const RunConfig& config) {
  if (!config.tunix.max_cost_usd) return;
  const double limit = *config.tunix.max_cost_usd;
  if (!estimate.usd) {
    throw Error(
        ErrorKind::kQuota,
        fmt::format("tunix.max_cost_usd: {}: what the job will cost cannot be estimated (gemma-sft jobs estimate "
                    "says what is missing), so it is not submitted; give a price table with --prices, or take "
                    "the limit out",
                    limit));
  }
  if (estimate.usd->high > limit) {
    throw Error(ErrorKind::kQuota,
                fmt::format("tunix.max_cost_usd: {}: the job may cost {} (prices of {}), so it is not submitted; raise "
                            "the limit, train fewer steps, or take a cheaper accelerator or tunix.spot: true",
                            limit, dollars(*estimate.usd), estimate.prices_as_of));
  }
}

}  // namespace gemma_sft
