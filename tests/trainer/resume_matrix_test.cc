// R1: a run that is stopped after a step and started again ends with the same bytes, and the same rows in the same
// order, as one that was not. Every step of a run is tried, for configurations out of {packed, padded} x {shuffled, in
// order} x {full, LoRA with dropout} x {fp32, bf16, bf16_mixed} x {1, 2 micro-batches}: six of them that hold every
// value twice or thrice, chosen by the seed; all 48 in the long run. The steps are those in the middle of an epoch, at
// its very end, and of later epochs.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>

#include "tests/testing/suite_count.h"
#include "tests/trainer/send_signal.h"
#include "tests/trainer/tiny_run.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

using Assignments = std::vector<std::string>;

struct StopAfter : RunObserver {
  explicit StopAfter(int64_t step) : at(step) {}
  void on_step(const StepRecord& record) override {
    if (record.step == at) send_stop_signal(SIGTERM);
  }
  int64_t at;
};

RunResult train(const TrainRequest& request, RunObserver* observer = nullptr) {
  install_stop_signals();
  std::vector<RunObserver*> observers;
  if (observer != nullptr) observers.push_back(observer);
  const RunResult result = run_training(request, real_file_system(), observers);
  install_stop_signals();
  return result;
}

// A place in the matrix.
struct Place {
  bool packing, shuffle, lora;
  int precision, accumulation;
};

Assignments assignments_of(const Place& place) {
  const char* precisions[] = {"fp32", "bf16", "bf16_mixed"};
  Assignments all = {"training.num_epochs=2.5", "output.keep_checkpoints=100",
                     std::string("training.packing=") + (place.packing ? "true" : "false"),
                     std::string("training.shuffle=") + (place.shuffle ? "true" : "false"),
                     std::string("training.precision=") + precisions[place.precision]};
  // Two rows a step either way: six steps an epoch of eleven rows, fifteen in the run.
  if (place.accumulation == 2) {
    all.insert(all.end(), {"training.batch_size=1", "training.gradient_accumulation_steps=2"});
  }
  if (place.lora) all.insert(all.end(), {"lora.rank=2", "lora.dropout=0.3"});
  return all;
}

std::string name_of(const Place& place) {
  std::string name;
  for (const std::string& text : assignments_of(place)) name += text.substr(text.find('.') + 1) + " ";
  return name;
}

std::vector<Place> whole_matrix() {
  std::vector<Place> all;
  for (int i = 0; i < 48; ++i) all.push_back({(i & 1) != 0, (i & 2) != 0, (i & 4) != 0, i / 16, 1 + ((i >> 3) & 1)});
  return all;
}

// Six places: each precision twice, each other value three times.
std::vector<Place> sample_of_matrix(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Place> sample(6);
  const auto deal = [&](const auto& set) {
    std::vector<int> values = {0, 1, 2, 3, 4, 5};
    std::shuffle(values.begin(), values.end(), random);
    for (size_t i = 0; i < 6; ++i) set(sample[i], values[i]);
  };
  deal([](Place& place, int value) { place.packing = value < 3; });
  deal([](Place& place, int value) { place.shuffle = value < 3; });
  deal([](Place& place, int value) { place.lora = value < 3; });
  deal([](Place& place, int value) { place.precision = value / 2; });
  deal([](Place& place, int value) { place.accumulation = 1 + value / 3; });
  return sample;
}

std::string samples_of(const fs::path& run_folder) { return read_file(run_folder / "samples.jsonl"); }

std::vector<std::string> flat_samples(const fs::path& run_folder) {
  std::vector<std::string> ids;
  std::istringstream stream(samples_of(run_folder));
  int64_t step = 0;
  for (std::string line; std::getline(stream, line);) {
    const nlohmann::json row = nlohmann::json::parse(line);
    EXPECT_EQ(row["step"], ++step);
    for (const auto& batch : row["micro_batches"]) {
      for (const auto& id : batch) ids.push_back(id);
    }
  }
  return ids;
}

// Every epoch has each of the eleven rows once.
void expect_whole_epochs(const std::vector<std::string>& ids) {
  constexpr size_t kRows = 11;
  ASSERT_GE(ids.size(), 2 * kRows);
  for (size_t epoch = 0; epoch < 2; ++epoch) {
    const std::set<std::string> rows(ids.begin() + static_cast<ptrdiff_t>(epoch * kRows),
                                     ids.begin() + static_cast<ptrdiff_t>((epoch + 1) * kRows));
    EXPECT_EQ(rows.size(), kRows) << "epoch " << epoch;
  }
}

TEST(ResumeMatrix, R1_stopped_after_any_step_a_run_ends_with_the_same_bytes_and_the_same_rows) {
  SuiteCount count("R1 stopped after a step and resumed, to the byte");
  const std::vector<Place> places = is_long_run() ? whole_matrix() : sample_of_matrix(suite_seed());
  for (size_t i = 0; i < places.size(); ++i) {
    SCOPED_TRACE(name_of(places[i]));
    const TinyRun tiny;
    const std::string run = "whole-" + std::to_string(i);
    const TrainRequest whole_request = tiny.request(assignments_of(places[i]), run);
    const RunResult whole = train(whole_request);
    ASSERT_EQ(whole.outcome, RunOutcome::kFinished);
    ASSERT_EQ(whole.steps, 15);
    const fs::path folder = tiny.run_folder(run);
    expect_whole_epochs(flat_samples(folder));
    const auto wanted = digests_of_results(folder);
    ASSERT_GT(wanted.size(), 7u * 5u);  // seven checkpoints and final_model

    for (int64_t stop = 1; stop <= whole.steps; ++stop) {
      TrainRequest request = tiny.request(assignments_of(places[i]), "stopped-" + std::to_string(stop));
      request.place.id = run;  // it is in the checkpoints
      StopAfter stopper(stop);
      const RunResult first = train(request, &stopper);
      const RunResult second = train(request);
      auto digests = digests_of_results(request.place.folder);
      if (stop % 2 != 0 && stop != whole.steps) {  // a checkpoint that only the stopped run has
        std::erase_if(digests, [&](const auto& entry) {
          return entry.first.starts_with("checkpoint-" + std::to_string(stop) + "/");
        });
      }
      const bool same = first.outcome == RunOutcome::kStopped && first.steps == stop &&
                        second.outcome == RunOutcome::kFinished && digests == wanted &&
                        lasting_metrics(request.place.folder) == lasting_metrics(folder) &&
                        samples_of(request.place.folder) == samples_of(folder);
      EXPECT_TRUE(count.add(same)) << "stopped after step " << stop << ", seed " << suite_seed();
      fs::remove_all(request.place.folder);
    }
  }
  count.note(std::to_string(places.size()) + " of 48 configurations, 15 steps each");
}

TEST(ResumeMatrix, R1_stopped_after_every_single_step_in_turn) {
  const TinyRun tiny;
  const Assignments assignments = {"lora.rank=2", "lora.dropout=0.3", "output.keep_checkpoints=100"};
  const RunResult whole = train(tiny.request(assignments, "whole"));
  TrainRequest request = tiny.request(assignments);
  request.place.id = "whole";
  for (int64_t step = 1; step <= whole.steps; ++step) {
    StopAfter stopper(step);
    ASSERT_EQ(train(request, &stopper).outcome, RunOutcome::kStopped);
  }
  ASSERT_EQ(train(request).outcome, RunOutcome::kFinished);
  EXPECT_EQ(samples_of(request.place.folder), samples_of(tiny.run_folder("whole")));
  EXPECT_EQ(lasting_metrics(request.place.folder), lasting_metrics(tiny.run_folder("whole")));
  EXPECT_EQ(read_file(request.place.folder / "final_model/adapter_model.safetensors"),
            read_file(tiny.run_folder("whole") / "final_model/adapter_model.safetensors"));
}

// A signal that cuts off an evaluation, and another one right after it was made up for: the state that is saved knows
// of no evaluation then, and its row must not be there twice.
TEST(ResumeMatrix, R1_an_evaluation_that_is_made_up_for_twice_is_written_once) {
  struct StopAtEvaluation : StopAfter {
    using StopAfter::StopAfter;
    void on_step(const StepRecord&) override {}
    void on_eval(const EvalRecord& record) override {
      if (record.step == at) send_stop_signal(SIGTERM);
    }
  };
  const TinyRun tiny;
  const Assignments assignments = {"dataset.validation_fraction=0.3", "evaluation.every=3",
                                   "output.checkpoint_every=0"};
  const RunResult whole = train(tiny.request(assignments, "whole"));
  TrainRequest request = tiny.request(assignments);
  request.place.id = "whole";
  StopAfter in_step(6);
  ASSERT_EQ(train(request, &in_step).steps, 6);
  for (int i = 0; i < 2; ++i) {
    StopAtEvaluation in_evaluation(6);
    ASSERT_EQ(train(request, &in_evaluation).steps, 6);
  }
  ASSERT_EQ(train(request).outcome, RunOutcome::kFinished);
  EXPECT_EQ(lasting_metrics(request.place.folder), lasting_metrics(tiny.run_folder("whole")));
  EXPECT_EQ(read_file(request.place.folder / "final_model/model.safetensors"),
            read_file(tiny.run_folder("whole") / "final_model/model.safetensors"));
  EXPECT_GE(whole.steps, 9);
}

// Two runs of the matrix that differ in nothing but their seed do differ: the comparison above can fail.
TEST(ResumeMatrix, another_seed_gives_other_rows_and_other_bytes) {
  const TinyRun tiny;
  train(tiny.request({}, "one"));
  train(tiny.request({"training.seed=8"}, "two"));
  EXPECT_NE(samples_of(tiny.run_folder("one")), samples_of(tiny.run_folder("two")));
  EXPECT_NE(digests_of_results(tiny.run_folder("one")), digests_of_results(tiny.run_folder("two")));
}

}  // namespace
}  // namespace gemma_sft
