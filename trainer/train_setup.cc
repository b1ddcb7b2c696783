#include "trainer/train_setup.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <algorithm>

#include "configs/configured_path.h"
#include "configs/error.h"
#include "data/batches/index_warnings.h"
#include "data/files/utf8.h"
#include "data/records/manifest.h"
#include "model/adapter_config.h"
#include "model/chunked_cross_entropy.h"
#include "model/hub_cache.h"
#include "model/lora_targets.h"
#include "model/model_folder.h"
#include "model/weights.h"
#include "trainer/activation_budget.h"
#include "trainer/device.h"
#include "trainer/model_source.h"
#include "trainer/run/skipped_rows.h"
#include "trainer/stop_signal.h"
#include "trainer/training_failure.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

std::optional<Manifest> find_manifest(const RunConfig& config, const fs::path& config_file, RunObserver& observer) {
  if (!config.dataset.manifest_path) return std::nullopt;
  const std::string& configured = *config.dataset.manifest_path;
  Manifest manifest = load_manifest(find_configured_path(configured, config_file).value_or(configured), configured);
  for (const std::string& warning : manifest.warnings) observer.on_warning(warning);
  return manifest;
}

fs::path require_training_rows(const RunConfig& config, const std::optional<Manifest>& manifest,
                               const fs::path& config_file) {
  const DataSource source = find_training_rows(config.dataset, manifest, config_file);
  if (source.found) return *source.found;
  std::string tried;
  for (const fs::path& path : source.tried) tried += (tried.empty() ? "" : ", ") + path.string();
  throw Error(
      ErrorKind::kData,
      fmt::format("Dataset file not found: {}; put the rows there, or name them with dataset.data_path or --data",
                  tried));
}

fs::path require_validation_file(const std::string& configured, const fs::path& config_file) {
  if (const auto found = find_configured_path(configured, config_file)) return *found;
  throw Error(ErrorKind::kData, fmt::format("Dataset file not found: {} (dataset.validation_path)", configured));
}

void warn_about(const DatasetIndex& index, RunObserver& observer) {
  for (const std::string& warning : index_warnings(index, kSkippedRowsName)) observer.on_warning(warning);
}

// The result carries the base's template, and is asked by it.
void warn_of_other_template(const fs::path& model_folder, RunObserver& observer) {
  const std::string chat_template = read_chat_template(model_folder);
  if (chat_template.empty() || is_gemma_template(chat_template)) return;
  observer.on_warning(
      fmt::format("{}: its chat template is not Gemma's (it has no <start_of_turn>), but rows are written as Gemma's "
                  "turns: whoever asks the result by that template asks otherwise than it was taught",
                  model_folder.string()));
}

// Evaluations that were asked for and cannot be, or say nothing.
void check_validation(const RunConfig& config, const TrainSetup& setup, RunObserver& observer) {
  const DatasetSection& dataset = config.dataset;
  if (dataset.validation_path && setup.validation_index->sha256 == setup.index->sha256) {
    observer.on_warning(
        "dataset.validation_path: the file holds the rows that are trained on, so that the evaluation loss says "
        "nothing about others");
  }
  if (dataset.validation_fraction == 0 || !setup.validation_rows.empty()) return;
  const std::string problem = fmt::format("dataset.validation_fraction: {} leaves none of the {} rows to validate on",
                                          dataset.validation_fraction, setup.index->train.size());
  const bool needed = config.evaluation.keep_best || config.evaluation.early_stopping_patience;
  if (!needed) return observer.on_warning(problem + ", so that there is no evaluation; raise it");
  throw Error(ErrorKind::kUsage, fmt::format("{}, and evaluation.{} needs some; raise it", problem,
                                             config.evaluation.keep_best ? "keep_best" : "early_stopping_patience"));
}

// What a run writes down names the places it worked with, and JSON is UTF-8. Better now than at the first checkpoint.
void require_utf8(const std::string& what, const fs::path& path, const std::string& remedy = "rename it") {
  if (!find_utf8_problem(path.native())) return;
  throw Error(ErrorKind::kUsage,
              fmt::format("{}: {} is not UTF-8, which the files that a run writes about itself have to be; {}", what,
                          quoted_excerpt(path.native(), 500), remedy));
}

}  // namespace

int64_t count_targets(const std::vector<IndexedRow>& rows) {
  int64_t targets = 0;
  for (const IndexedRow& row : rows) targets += row.target_tokens;
  return targets;
}

TrainSetup prepare_training(const TrainRequest& request, RunObserver& observer,
                            const std::function<void(const RowProblem&)>& on_skipped) {
  const RunConfig& config = request.loaded.config;
  const fs::path config_file = request.loaded.file;
  TrainSetup setup;
  setup.device = choose_device(request.device);
  require_utf8("the run folder", request.place.folder, "give another with --output or --output-dir");
  setup.model_folder = find_base_model(config.model, config_file);
  require_utf8("model.base_model", fs::weakly_canonical(setup.model_folder));
  setup.model_config = load_gemma_config(setup.model_folder);
  if (config.lora.rank == 0) require_carried_files(setup.model_folder);
  if (config.lora.rank > 0 && config.lora.init_from) {
    require_continuation(lora_options(config.lora), find_initial_adapter(config.lora, config_file), setup.model_config);
  }
  ModelDigest model_digest(setup.model_folder);  // while the rows are read
  setup.tokenizer = Tokenizer::load(setup.model_folder);
  setup.manifest = find_manifest(config, config_file, observer);
  const fs::path rows = require_training_rows(config, setup.manifest, config_file);
  require_utf8("the training rows", rows);
  observer.on_note(
      fmt::format("base model: {}; device: {}", setup.model_folder.string(), describe_device(setup.device)));

  const int64_t max_seq_length = choose_max_seq_length(config, setup.model_config.max_position_embeddings);
  IndexOptions options = make_index_options(config, setup.model_config.vocab_size, max_seq_length);
  options.on_skipped = on_skipped;
  setup.index = std::make_shared<DatasetIndex>(index_dataset(rows.string(), *setup.tokenizer, options));
  throw_if_stopped();
  observer.on_note(
      fmt::format("{}: {} rows read, {} to train on with {} target tokens, {} to validate on; longest row {} "
                  "tokens",
                  setup.index->file, setup.index->rows_read, setup.index->train.size(),
                  count_targets(setup.index->train), setup.index->validation.size(), setup.index->longest_tokens));
  warn_about(*setup.index, observer);
  if (config.dataset.validation_path) {
    const fs::path file = require_validation_file(*config.dataset.validation_path, config_file);
    require_utf8("dataset.validation_path", file);
    options.validation_fraction = 0;
    options.max_samples.reset();
    setup.validation_index = std::make_shared<DatasetIndex>(index_dataset(file.string(), *setup.tokenizer, options));
    throw_if_stopped();
    setup.validation_rows = setup.validation_index->train;
    observer.on_note(fmt::format("{}: {} rows to validate on with {} target tokens", file.string(),
                                 setup.validation_rows.size(), count_targets(setup.validation_rows)));
    warn_about(*setup.validation_index, observer);
  } else if (!setup.index->validation.empty()) {
    setup.validation_index = setup.index;
    setup.validation_rows = setup.index->validation;
  }
  check_validation(config, setup, observer);

  setup.plan = make_plan(config, *setup.index, setup.tokenizer->pad_id());
  for (const std::string& warning : plan_warnings(config, setup.plan.total_steps)) observer.on_warning(warning);
  if (config.dataset.format != DataFormat::kTokens) warn_of_other_template(setup.model_folder, observer);

  setup.origin = {.config = config,
                  .precision = choose_precision(config.training.precision, setup.device),
                  .total_steps = setup.plan.total_steps,
                  .data_sha256 = setup.index->sha256,
                  .validation_sha256 = config.dataset.validation_path ? setup.validation_index->sha256 : "",
                  .tokenizer_sha256 = setup.tokenizer->model_sha256(),
                  .model_sha256 = model_digest.get(),
                  .model_folder = fs::weakly_canonical(setup.model_folder).string(),
                  .device = describe_device(setup.device),
                  .threads = at::get_num_threads(),
                  .versions = {{"gemma-sft", GEMMA_SFT_VERSION}, {"libtorch", TORCH_VERSION}}};
  return setup;
}

Gemma load_model(const TrainSetup& setup, const RunConfig& config, const fs::path& config_file) {
  const bool lora = config.lora.rank > 0;
  GemmaOptions options =
      lora ? frozen_model_options(setup.origin.precision, setup.device, setup.model_folder, setup.model_config)
           : model_options(setup.origin.precision, setup.device);
  options.activation_checkpointing = config.training.activation_checkpointing == ActivationCheckpointing::kOn;
  std::optional<Gemma> model;
  with_memory_errors_explained({"loading the model"}, [&] {
    model.emplace(load_gemma(setup.model_folder, options, throw_if_stopped));
    if (lora) model->add_lora(lora_options(config.lora), config.training.seed);
    if (lora && config.lora.init_from) load_adapter(*model, find_initial_adapter(config.lora, config_file));
  });
  model->set_training(true);
  return std::move(*model);
}

ActivationNeed activation_need(const Gemma& model, const LargestMicroBatch& largest) {
  const GemmaConfig& shape = model.config();
  ActivationNeed need{.micro_batch_tokens = largest.places,
                      .value_bytes = static_cast<int64_t>(c10::elementSize(model.options().compute_dtype))};
  for (const Parameter& parameter : model.trainable_parameters()) {
    need.trained_weights += parameter.tensor.numel();
    need.weight_bytes = static_cast<int64_t>(parameter.tensor.element_size());
  }
  // The loss head: a chunk of logits, and the head's gradient in fp32 where it is trained. In the backward pass of an
  // MLP: gradients of gate, up and their product.
  const int64_t head = shape.vocab_size * shape.hidden_size;
  need.other_bytes = kLossChunkBytes + 3 * shape.intermediate_size * need.micro_batch_tokens * need.value_bytes;
  if (!model.has_lora()) need.other_bytes += head * 4;
  const bool is_cast = model.options().storage_dtype != model.options().compute_dtype;
  if (is_cast) need.other_bytes += head * need.value_bytes;
  int64_t matrices = 0, dropped_inputs = 0;
  for (const LinearLayer& layer : linear_layers(shape)) {
    matrices += layer.in * layer.out;
    if (model.has_lora() && model.lora_options().dropout > 0 &&
        is_target(layer.path, model.lora_options().target_modules)) {
      dropped_inputs += layer.in;
    }
  }
  // A frozen matrix is cast again in the backward pass.
  if (is_cast && !model.has_lora()) need.more_bytes = matrices / shape.num_layers * need.value_bytes;
  need.more_bytes_per_token = dropped_inputs * (need.value_bytes + 1) / shape.num_layers;
  return need;
}

void choose_activation_checkpointing(Gemma& model, const LargestMicroBatch& largest, RunObserver& observer) {
  const GemmaConfig& shape = model.config();
  const int64_t available = free_memory_bytes(model.options().device);
  const ActivationPlan plan = plan_activations(shape, activation_need(model, largest), available);
  model.recompute_layers(plan.recomputed_layers);
  const std::string words = describe(plan, shape, available);
  if (plan.fits) {
    observer.on_note(words);
  } else {
    observer.on_warning(words + "; lower training.batch_size or model.max_seq_length, or set lora.rank");
  }
}

}  // namespace gemma_sft
