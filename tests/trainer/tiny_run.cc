#include "tests/trainer/tiny_run.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/files/sha256.h"
#include "model/model_init.h"
#include "model/weights.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kRows = 11;

Assignment assignment_of(const std::string& text) {
  const size_t equals = text.find('=');
  return {text.substr(0, equals), text.substr(equals + 1), "--set"};
}

}  // namespace

GemmaConfig tiny_config() {
  GemmaConfig config = *find_preset("tiny-gemma-3");
  config.vocab_size = 512;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_layers = 2;
  config.layer_kinds = {LayerKind::kSliding, LayerKind::kGlobal};
  config.sliding_window = 8;
  return config;
}

std::string make_rows(int64_t rows) {
  const std::vector<std::string> words = {"table", "apple", "number", "basket", "sum", "larger", "row", "prompt"};
  std::string text;
  for (int64_t i = 0; i < rows; ++i) {
    std::string prompt = fmt::format("What is {} + {}?", i, 3 * i + 1);
    std::string response;
    for (int64_t k = 0; k <= i % 5; ++k) {
      prompt += " " + words[static_cast<size_t>((i + k) % 8)];
      response += words[static_cast<size_t>((i * 3 + k) % 8)] + " ";
    }
    text += fmt::format(R"({{"id": "row-{}", "prompt": "{}", "response": "{}Answer: {}", "metadata": {{}}}})", i,
                        prompt, response, 4 * i + 1) +
            "\n";
  }
  return text;
}

TinyRun::TinyRun() {
  at::set_num_threads(1);  // threads only cost time at this size; resume_test also runs with more
  const fs::path tokenizer = files_ / "tokenizer";
  fs::create_directories(tokenizer);
  fs::copy_file(fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures/tiny_tokenizer.model",
                tokenizer / "tokenizer.model");
  init_model_folder(tiny_config(), tokenizer, base_model(), ModelDtype::kFp32, /*seed=*/3, real_file_system());
  files_.write("data.jsonl", make_rows(kRows));
}

TrainRequest TinyRun::request(const std::vector<std::string>& assignments, const std::string& run) const {
  const fs::path file = files_.write("config.yaml", fmt::format(R"(model:
  base_model: {}
dataset:
  data_path: {}
training:
  num_epochs: 3
  batch_size: 2
  learning_rate: 1e-2
  warmup_steps: 2
  seed: 7
output:
  checkpoint_every: 2
  keep_checkpoints: 2
)",
                                                                base_model().string(), data().string()));
  LoadOptions options;
  options.environment = [](const std::string&) { return std::nullopt; };
  options.dotenv = files_ / "no-such-file";
  for (const std::string& text : assignments) options.assignments.push_back(assignment_of(text));
  TrainRequest request;
  request.loaded = load_config(file.string(), options);
  request.place = {.id = run, .folder = run_folder(run)};
  request.device = "cpu";
  return request;
}

std::map<std::string, std::string> digests_of_results(const fs::path& run_folder) {
  std::map<std::string, std::string> digests;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(run_folder)) {
    const std::string name = entry.path().lexically_relative(run_folder).string();
    if (!entry.is_regular_file() || !(name.starts_with("checkpoint-") || name.starts_with("final_model"))) continue;
    digests[name] = sha256_file(entry.path());
  }
  return digests;
}

std::vector<std::string> lasting_metrics(const fs::path& run_folder) {
  std::vector<std::string> rows;
  std::ifstream stream(run_folder / "metrics.jsonl");
  for (std::string line; std::getline(stream, line);) {
    nlohmann::json row = nlohmann::json::parse(line);
    for (const char* changing :
         {"tokens_per_second", "step_seconds", "data_wait_seconds", "peak_memory_bytes", "timestamp", "eval_seconds"}) {
      row.erase(changing);
    }
    rows.push_back(row.dump());
  }
  return rows;
}

Gemma load_tiny_model(const TinyRun& run, const GemmaOptions& options) { return load_gemma(run.base_model(), options); }

}  // namespace gemma_sft
