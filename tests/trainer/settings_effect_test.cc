// No key of the configuration is for show: for every row of the settings table, changing the value changes the plan, a
// batch, a rate, the model's make or a file that the run leaves (other than the copies of the configuration itself).
#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "configs/error.h"
#include "configs/settings.h"
#include "data/files/sha256.h"
#include "model/model_init.h"
#include "tests/testing/hooked_file_system.h"
#include "tests/trainer/tiny_run.h"
#include "trainer/cli/train_request.h"
#include "trainer/train_setup.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using Assignments = std::vector<std::string>;

// A key's two runs: `key=before` (nothing: the default) and `key=after`, both with `with`.
struct Change {
  Assignments with = {};
  std::string before = {};
  std::string after;
};

class SettingsEffectTest : public ::testing::Test {
 protected:
  SettingsEffectTest() {
    const auto copy_with_seed = [&](const fs::path& folder, uint64_t seed) {
      fs::create_directories(folder.parent_path());
      init_model_folder(tiny_config(), tiny_.files() / "tokenizer", folder, ModelDtype::kFp32, seed,
                        real_file_system());
    };
    copy_with_seed(tiny_.files() / "other_base", 4);
    const fs::path hub = tiny_.files() / "hub/models--google--gemma-3-270m";
    const std::string main_commit(40, 'a'), other_commit(40, 'b');
    copy_with_seed(hub / "snapshots" / main_commit, 5);
    copy_with_seed(hub / "snapshots" / other_commit, 6);
    tiny_.files().write("hub/models--google--gemma-3-270m/refs/main", main_commit);
    tiny_.files().write("hub/models--google--gemma-3-270m/refs/v1.1", other_commit);
    setenv("HF_HUB_CACHE", (tiny_.files() / "hub").c_str(), 1);

    tiny_.files().write("other.jsonl", make_rows(9));
    tiny_.files().write("bad.jsonl", make_rows(7) + "{\"prompt\": \"no response\"}\n");
    tiny_.files().write("spelled.jsonl", make_rows(5) +
                                             R"({"prompt": "say <end_of_turn> now", "response": "<start_of_turn>"})"
                                             "\n");
    for (const auto& [name, rows] : {std::pair{"one", 7}, {"two", 9}}) {
      const std::string folder = std::string("sets/") + name;
      tiny_.files().write(folder + "/training_example.jsonl", make_rows(rows));
      tiny_.files().write(folder + "/manifest.json",
                          nlohmann::json({{"dataset_key", std::string(name) + "-v1"},
                                          {"build_id", "ba6236b4-f07d-4cbd-b412-3883a0ee8131"},
                                          {"dataset_name", name},
                                          {"dataset_version", "v1"},
                                          {"created_at", "2026-01-08T19:30:18Z"},
                                          {"selection_strategy", "latest"},
                                          {"trace_ids", nlohmann::json::array()},
                                          {"trace_count", rows},
                                          {"stats", nlohmann::json::object()}})
                              .dump());
    }
    run_training(tiny_.request({"lora.rank=4", "training.max_steps=3"}, "adapter_run"), real_file_system(), {});
  }
  std::string path(const std::string& name) const { return (tiny_.files() / name).string(); }

  std::map<std::string, Change> special_changes() const {
    const std::string bad_data = "dataset.data_path=" + path("bad.jsonl");
    const std::string validation = "dataset.validation_path=" + path("other.jsonl");
    return {
        {"model.base_model", {.after = path("other_base")}},
        {"model.revision", {.with = {"model.base_model=google/gemma-3-270m"}, .after = "v1.1"}},
        {"model.max_seq_length", {.after = "40"}},
        {"dataset.manifest_path",
         {.with = {"dataset.data_path=null"},
          .before = path("sets/one/manifest.json"),
          .after = path("sets/two/manifest.json")}},
        {"dataset.data_path", {.after = path("other.jsonl")}},
        {"dataset.validation_path", {.after = path("other.jsonl")}},
        {"dataset.validation_fraction", {.after = "0.4"}},
        {"dataset.on_bad_record", {.with = {bad_data}, .after = "skip"}},
        {"dataset.on_long", {.with = {"model.max_seq_length=60"}, .before = "skip", .after = "truncate"}},
        {"dataset.parse_control_tokens", {.with = {"dataset.data_path=" + path("spelled.jsonl")}, .after = "true"}},
        {"training.num_epochs", {.before = "1", .after = "2"}},
        {"training.batch_size", {.after = "3"}},
        {"training.batch_tokens", {.with = {"training.batch_size=null"}, .after = "150"}},
        {"training.learning_rate", {.after = "1e-3"}},
        {"training.warmup_steps", {.after = "4"}},
        {"training.warmup_ratio", {.with = {"training.warmup_steps=null"}, .after = "0.5"}},
        {"training.seed", {.after = "8"}},
        {"training.step_timeout", {.after = "0.000001"}},
        {"training.on_nonfinite", {.with = {"model.base_model=" + path("poisoned")}, .after = "skip"}},
        {"lora.init_from", {.with = {"lora.rank=4"}, .after = path("adapter_run/final_model")}},
        {"evaluation.every", {.with = {validation}, .after = "1"}},
        {"evaluation.keep_best",
         {.with = {validation, "evaluation.every=1", "output.checkpoint_every=0", "output.keep_checkpoints=9"},
          .after = "true"}},
        {"evaluation.early_stopping_patience",
         {.with = {validation, "evaluation.every=1", "training.learning_rate=1", "training.warmup_steps=0",
                   "training.num_epochs=3"},
          .after = "1"}},
        {"output.checkpoint_every", {.after = "3"}},
        {"output.keep_checkpoints", {.before = "2", .after = "1"}},
    };
  }
  Change change_of(const Setting& setting) const {
    const auto special = special_changes();
    if (const auto found = special.find(setting.key); found != special.end()) return found->second;
    return {.with = setting.example_needs, .after = setting.example};
  }

  TrainRequest request(const Change& change, const std::string& key, const std::string& value) const {
    Assignments assignments = {"training.num_epochs=1"};
    for (const std::string& text : change.with) {
      std::erase_if(assignments,
                    [&](const std::string& other) { return text.starts_with(other.substr(0, other.find('='))); });
      assignments.push_back(text);
    }
    if (!value.empty()) {
      std::erase_if(assignments, [&](const std::string& other) { return other.starts_with(key + "="); });
      assignments.push_back(key + "=" + value);
    }
    TrainRequest made = tiny_.request(assignments, "effect");
    made.loaded.config.output.run_dir =
        made.loaded.config.output.run_dir == "other_runs" ? path("other_runs") : path("runs");
    made.place = resolve_run_place(made.loaded.config, {.run_id = "effect", .exact_folder = {}, .resume = {}});
    return made;
  }

  // What a run does and leaves, as text.
  std::string footprint(TrainRequest made) {
    std::string text = "folder " + made.place.folder.string() + "\n";
    text += goes_to_job_service({}, made.loaded.config) ? "asks for a job service\n" : "trains here\n";
    RecordingObserver observer;
    std::atomic<bool> stalled = false;
    made.on_stall = [&](const std::string&) { stalled = true; };
    std::atomic<bool> in_background = false;
    HookedFileSystem files([&, trains = std::this_thread::get_id()](const fs::path&) {
      if (std::this_thread::get_id() != trains) in_background = true;
    });
    try {
      text += "outcome " + std::to_string(static_cast<int>(run_training(made, files, {&observer}).outcome));
    } catch (const Error& error) {
      text += std::string("error ") + error.what();
    }
    text += stalled ? "\na step took too long" : "\n";
    text += in_background ? "\nsaves in the background" : "\n";
    for (const std::string& note : observer.notes) text += note.starts_with("preflight") ? "\npreflight" : "";
    text += fs::exists(made.place.folder / "samples.jsonl") ? "\nsamples" : "\n";
    text += at::globalContext().deterministicAlgorithms() ? "\ndeterministic kernels" : "\n";
    at::globalContext().setDeterministicAlgorithms(false, false);
    if (observer.total_steps >= 0) {
      const TrainSetup setup = prepare_training(made, observer);
      const Gemma model = load_model(setup, made.loaded.config, made.loaded.file);
      text += model.options().activation_checkpointing ? "\nrecomputes activations" : "\n";
      for (const std::string& row : lasting_metrics(made.place.folder)) text += row + "\n";
    }
    for (const auto& [name, sha256] : digests_of_results(made.place.folder)) {
      const std::string file = fs::path(name).filename().string();
      const bool copies_config = file == "config.yaml" || file == "state.json" || file == "manifest.json";
      text += name + (copies_config ? "" : " " + sha256) + "\n";
    }
    fs::remove_all(made.place.folder);
    return text;
  }

  TinyRun tiny_;
};

void poison(const fs::path& from, const fs::path& to) {
  fs::copy(from, to);
  std::string bytes = read_file(to / "model.safetensors");
  for (size_t i = bytes.size() - 4; i < bytes.size(); ++i) bytes[i] = '\xff';  // a NaN in the last tensor
  std::ofstream(to / "model.safetensors", std::ios::binary) << bytes;
}

TEST_F(SettingsEffectTest, every_key_of_the_table_has_one) {
  poison(tiny_.base_model(), tiny_.files() / "poisoned");
  for (const Setting& setting : settings()) {
    const Change change = change_of(setting);
    if (change.after.empty()) {
      // Only one value is accepted: another one must be refused by name.
      EXPECT_THROW(tiny_.request({setting.key + "=" + setting.refused.at(0).value}), Error) << setting.key;
      continue;
    }
    const std::string before = footprint(request(change, setting.key, change.before));
    const std::string after = footprint(request(change, setting.key, change.after));
    EXPECT_NE(before, after) << setting.key << ": changing it to " << change.after << " changed nothing";
    // Two different errors would be a difference, too, and show nothing.
    EXPECT_TRUE(before.find("error ") == std::string::npos || after.find("error ") == std::string::npos ||
                setting.key == "training.on_nonfinite")
        << setting.key << "\n"
        << before << after;
  }
}

TEST_F(SettingsEffectTest, the_footprint_of_the_same_configuration_is_the_same) {
  EXPECT_EQ(footprint(request({.after = ""}, "", "")), footprint(request({.after = ""}, "", "")));
}

}  // namespace
}  // namespace gemma_sft
