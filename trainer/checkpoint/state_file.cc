#include "trainer/checkpoint/state_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <nlohmann/json.hpp>

#include "configs/choice_names.h"
#include "configs/error.h"
#include "configs/load_config.h"
#include "configs/value_reader.h"
#include "trainer/checkpoint/checkpoint_format.h"
#include "trainer/checkpoint/json_document.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

template <typename T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

std::optional<double> number_or_nothing(const json& value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

Precision precision_of(const std::string& name) {
  for (Precision precision : {Precision::kFp32, Precision::kBf16Mixed, Precision::kBf16}) {
    if (choice_name(precision) == name) return precision;
  }
  throw std::invalid_argument("precision: " + shown_text(name));
}

// A count of steps, or of what comes at most once a step: no more than the run has made.
int64_t count_up_to(int64_t step, const json& value, const char* field) {
  const int64_t count = whole_number(value, field);
  if (count <= step) return count;
  throw Error(ErrorKind::kCheckpoint,
              fmt::format("{}: expected at most {}, as many as there were steps, found {}", field, step, count));
}

SavedState parse(const json& document) {
  SavedState saved;
  TrainState& state = saved.state;
  state.step = whole_number(document.at("step"), "step");
  const json& cursor = document.at("cursor");
  state.cursor = {.epoch = count_up_to(state.step, cursor.at("epoch"), "epoch"),
                  .step_in_epoch = count_up_to(state.step, cursor.at("step_in_epoch"), "step_in_epoch"),
                  .position = whole_number(cursor.at("position"), "position")};
  state.epoch = document.at("epoch").get<double>();
  state.last_loss = number_or_nothing(document.at("last_loss"));
  state.last_eval_loss = number_or_nothing(document.at("last_eval_loss"));
  if (const json& best = document.at("best"); !best.is_null()) {
    state.best = BestEvaluation{count_up_to(state.step, best.at("step"), "best.step"), best.at("loss").get<double>()};
  }
  state.evaluated_step = count_up_to(state.step, document.at("evaluated_step"), "evaluated_step");
  state.evaluations_without_improvement =
      count_up_to(state.step, document.at("evaluations_without_improvement"), "evaluations_without_improvement");
  state.skipped_in_a_row = count_up_to(state.step, document.at("skipped_in_a_row"), "skipped_in_a_row");

  const json& made_from = document.at("made_from");
  RunOrigin& origin = saved.origin;
  origin.precision = precision_of(made_from.at("precision").get<std::string>());
  origin.total_steps = whole_number(made_from.at("total_steps"), "total_steps");
  origin.data_sha256 = made_from.at("data_sha256").get<std::string>();
  origin.validation_sha256 = made_from.at("validation_sha256").get<std::string>();
  origin.tokenizer_sha256 = made_from.at("tokenizer_sha256").get<std::string>();
  origin.model_sha256 = made_from.at("model_sha256").get<std::string>();
  origin.model_folder = made_from.at("model_folder").get<std::string>();
  origin.device = made_from.at("device").get<std::string>();
  origin.threads = static_cast<int>(std::min<int64_t>(whole_number(made_from.at("threads"), "threads"), INT_MAX));
  origin.versions = made_from.at("versions").get<std::map<std::string, std::string>>();
  return saved;
}

}  // namespace

std::string state_json(const TrainState& state, const RunOrigin& origin) {
  json best = nullptr;
  if (state.best) best = {{"step", state.best->step}, {"loss", state.best->loss}};
  const json document = {{"step", state.step},
                         {"cursor",
                          {{"epoch", state.cursor.epoch},
                           {"step_in_epoch", state.cursor.step_in_epoch},
                           {"position", state.cursor.position}}},
                         {"epoch", state.epoch},
                         {"last_loss", or_null(state.last_loss)},
                         {"last_eval_loss", or_null(state.last_eval_loss)},
                         {"best", best},
                         {"evaluated_step", state.evaluated_step},
                         {"evaluations_without_improvement", state.evaluations_without_improvement},
                         {"skipped_in_a_row", state.skipped_in_a_row},
                         {"made_from",
                          {{"precision", choice_name(origin.precision)},
                           {"total_steps", origin.total_steps},
                           {"data_sha256", origin.data_sha256},
                           {"validation_sha256", origin.validation_sha256},
                           {"tokenizer_sha256", origin.tokenizer_sha256},
                           {"model_sha256", origin.model_sha256},
                           {"base_model", origin.config.model.base_model},
                           {"model_folder", origin.model_folder},
                           {"device", origin.device},
                           {"threads", origin.threads},
                           {"versions", origin.versions}}}};
  return document.dump(2) + "\n";
}

SavedState read_saved_state(const fs::path& checkpoint) {
  const fs::path path = checkpoint / kStateFileName;
  try {
    const json document = read_json_document(path);
    SavedState saved = parse(document);
    const auto step = step_of_checkpoint_name(checkpoint.filename().string());
    if (step && *step != saved.state.step) {
      throw Error(ErrorKind::kCheckpoint,
                  fmt::format("{}: says step {}, the folder's name does not", kStateFileName, saved.state.step));
    }
    LoadOptions nothing_else;  // the file as it was resolved then: no environment, no .env
    nothing_else.environment = [](const std::string&) { return std::nullopt; };
    nothing_else.dotenv = checkpoint / "no-such-file";
    // A relative folder may not be found from here; this name is always a folder's. The real one follows.
    nothing_else.assignments = {{"model.base_model", "\"/\"", kStateFileName}};
    saved.origin.config = load_config((checkpoint / kConfigFileName).string(), nothing_else).config;
    saved.origin.config.model.base_model = document.at("made_from").at("base_model").get<std::string>();
    return saved;
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kCheckpoint,
                fmt::format("{}: cannot be read: {}; move it away to continue from an earlier one", checkpoint.string(),
                            error.what()));
  }
}

}  // namespace gemma_sft
