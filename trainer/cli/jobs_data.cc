#include "trainer/cli/jobs_data.h"

#include <fmt/format.h>

#include "configs/error.h"
#include "data/batches/index_warnings.h"
#include "data/records/example_reader.h"
#include "model/hub_cache.h"
#include "model/lora_targets.h"
#include "trainer/stop_signal.h"
#include "trainer/train_plan.h"
#include "trainer/tunix/job_client.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

std::optional<fs::path> find_model(const LoadedConfig& loaded, Missing missing, const Output& output) {
  const ModelSection& model = loaded.config.model;
  try {
    return find_base_model(model, loaded.file);
  } catch (const Error& error) {
    if (missing == Missing::kIsAnError || error.kind() != ErrorKind::kModel) throw;
    output.warn(fmt::format("{} is not on this machine: rows are not tokenised, and its published shape is taken",
                            model.base_model));
    return std::nullopt;
  }
}

}  // namespace

int64_t count_rows(const fs::path& file, const DatasetSection& dataset) {
  ExampleReader reader(file.string(), dataset.format);
  int64_t rows = 0;
  while (!dataset.max_samples || rows < *dataset.max_samples) {
    const std::unique_ptr<ExampleReader::Row> row = reader.next();
    if (row == nullptr) return rows;
    if (stop_signal() != 0) throw Interrupted{};
    if (const auto* problem = std::get_if<RowProblem>(&row->content)) {
      if (dataset.on_bad_record == OnBadRecord::kSkip) continue;
      throw Error(ErrorKind::kData, problem->message);
    }
    ++rows;
  }
  return rows;
}

JobData read_job_data(const LoadedConfig& loaded, Missing missing, const Output& output) {
  const RunConfig& config = loaded.config;
  const DatasetPlaces dataset = find_dataset(loaded);
  JobData data;
  data.manifest = dataset.manifest;
  if (data.manifest) {
    for (const std::string& warning : data.manifest->warnings) output.warn(warning);
  }
  const auto folder = find_model(loaded, missing, output);
  if (folder) {
    data.model = load_gemma_config(*folder);
    data.tokenizer = Tokenizer::load(*folder);
  } else {
    data.model = find_published_shape(config.model.base_model);
  }
  if (data.model && config.lora.rank > 0) require_targets(config.lora.target_modules, linear_layers(*data.model));
  if (data.model) data.max_seq_length = choose_max_seq_length(config, data.model->max_position_embeddings);
  if (!dataset.rows.found && missing == Missing::kIsAccepted && data.manifest) {
    data.rows = data.manifest->trace_count;
    if (config.dataset.max_samples) data.rows = std::min(*data.rows, *config.dataset.max_samples);
    output.warn(fmt::format("no training rows beside {}: its trace_count is taken for their number",
                            data.manifest->path.string()));
  } else if (data.tokenizer == nullptr) {
    data.rows = count_rows(require_rows(dataset), config.dataset);
  } else {
    const IndexOptions options = make_index_options(config, data.model->vocab_size, data.max_seq_length);
    data.index =
        std::make_shared<DatasetIndex>(index_dataset(require_rows(dataset).string(), *data.tokenizer, options));
    if (stop_signal() != 0) throw Interrupted{};
    data.rows = static_cast<int64_t>(data.index->train.size());
    for (const std::string& warning : index_warnings(*data.index)) output.warn(warning);
    data.steps = make_plan(config, *data.index, data.tokenizer->pad_id()).total_steps;
  }
  if (!data.steps) data.steps = count_steps(config.training, data.rows);
  return data;
}

std::optional<TokenTotals> totals_of(const JobData& data) {
  if (data.index == nullptr || data.index->train.empty()) return std::nullopt;
  TokenTotals totals = {
      .rows = static_cast<int64_t>(data.index->train.size()), .tokens = 0, .longest_row = data.index->longest_tokens};
  for (const IndexedRow& row : data.index->train) totals.tokens += row.tokens;
  return totals;
}

JobEstimate estimate_of(const RunConfig& config, const JobData& data, const PriceTable& prices) {
  EstimateRequest request{.config = config,
                          .model = data.model,
                          .rows = data.rows,
                          .steps = data.steps,
                          .tokens_per_epoch = {},
                          .longest_row = data.max_seq_length};
  if (const auto totals = totals_of(data)) {
    request.tokens_per_epoch = totals->tokens;
    request.longest_row = totals->longest_row;
  }
  return estimate_job(request, prices);
}

}  // namespace gemma_sft
