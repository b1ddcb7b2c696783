#include "trainer/tunix/job_spec.h"

#include <nlohmann/json.hpp>
#include <variant>

#include "configs/settings.h"
#include "trainer/tunix/job_settings.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const Value& value) {
  struct Converter {
    Json operator()(std::monostate) const { return nullptr; }
    Json operator()(bool on) const { return on; }
    Json operator()(int64_t number) const { return number; }
    Json operator()(double number) const { return number; }
    Json operator()(const std::string& text) const { return text; }
    Json operator()(const std::vector<std::string>& list) const { return list; }
  };
  return std::visit(Converter{}, value);
}

// The section's settings that have an effect, without those that are not given.
Json section(const RunConfig& config, const std::string& prefix) {
  Json json = Json::object();
  for (const Setting& setting : settings()) {
    if (!setting.key.starts_with(prefix) || (setting.has_effect && !setting.has_effect(config))) continue;
    if (!setting.names_run) continue;  // it guards a run on this machine
    const Value value = setting.field.get(config);
    if (setting.key == "training.stochastic_rounding") continue;  // never on here, see job_settings.h
    if (setting.key == "training.activation_checkpointing" && std::holds_alternative<std::string>(value)) {
      json["activation_checkpointing"] = true;  // auto: the service has no such word, see job_settings.h
      continue;
    }
    if (!std::holds_alternative<std::monostate>(value)) json[setting.key.substr(prefix.size())] = json_of(value);
  }
  return json;
}

Json or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

JobSpec make_job_spec(const JobSpecRequest& request) {
  const RunConfig& config = request.config;
  require_job_settings(config);
  JobSpec spec;
  spec.project_id = config.tunix.project_id.value_or("");
  spec.experiment_name = config.tunix.experiment_name.value_or("run_" + request.run_id);
  spec.dataset_id = request.dataset_id;
  spec.run_id = request.run_id;
  spec.submission = request.submission;
  spec.accelerator = config.model.accelerator.value_or("");
  spec.region = config.model.region.value_or("");
  spec.spot = config.tunix.spot.value_or(false);
  spec.output_uri = request.output_uri;
  spec.max_cost_usd = config.tunix.max_cost_usd;

  Json training = section(config, "training.");
  if (request.max_seq_length > 0) training["max_seq_length"] = request.max_seq_length;
  training["lora"] = config.lora.rank > 0 ? section(config, "lora.") : Json(nullptr);
  Json output = {{"uri", or_null(request.output_uri)},
                 {"checkpoint_every", config.output.checkpoint_every},
                 {"keep", config.tunix.keep_checkpoints.value_or(config.output.keep_checkpoints)}};
  if (config.output.model_dtype) output["model_dtype"] = json_of(find_setting("output.model_dtype")->field.get(config));
  Json body = {
      {"project_id", spec.project_id},
      {"experiment_name", spec.experiment_name},
      {"dataset_id", or_null(spec.dataset_id)},
      {"model", {{"base_model", config.model.base_model}, {"revision", or_null(config.model.revision)}}},
      {"training", training},
      {"resources",
       {{"accelerator", or_null(spec.accelerator)}, {"region", or_null(spec.region)}, {"spot", spec.spot}}},
      {"output", output},
      {"max_cost_usd", or_null(config.tunix.max_cost_usd)},
      {"timeout_seconds", or_null(config.tunix.timeout_seconds)},
      {"labels", {{"run_id", spec.run_id}, {"submission", spec.submission}}},
      {"client",
       {{"name", "gemma-sft"}, {"version", request.client_version}, {"config_sha256", request.config_sha256}}}};
  if (request.totals) {
    body["totals"] = {{"rows", request.totals->rows},
                      {"tokens", request.totals->tokens},
                      {"longest_row", request.totals->longest_row}};
  }
  spec.body = body.dump();
  return spec;
}

}  // namespace gemma_sft
