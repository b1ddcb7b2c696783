// The main job through the program, as a user runs it: train, resume, stop, evaluate, generate, export.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/files/file_system.h"
#include "tests/e2e/workspace.h"

namespace gemma_sft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

nlohmann::json json_of(const std::string& text) { return nlohmann::json::parse(text, nullptr, false); }

std::vector<nlohmann::json> metric_rows(const fs::path& run_folder) {
  std::ifstream stream(run_folder / "metrics.jsonl");
  std::vector<nlohmann::json> rows;
  for (std::string line; std::getline(stream, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

std::vector<double> losses_of(const fs::path& run_folder) {
  std::vector<double> losses;
  for (const nlohmann::json& row : metric_rows(run_folder)) {
    if (row.contains("loss")) losses.push_back(row["loss"]);
  }
  return losses;
}

// Waits until the run has finished `steps` steps.
bool wait_for_steps(Process& process, const fs::path& run_folder, int steps) {
  for (int i = 0; i < 6000; ++i) {
    if (count_lines(run_folder / "metrics.jsonl") >= steps) return true;
    if (process.ends_within(0.01)) return false;
  }
  return false;
}

TEST(Training, ARunPrintsItsStatusLinesLeavesItsFilesAndIsThenLeftAlone) {
  const Workspace work;
  const ProcessResult first = work.run({"train", "--config", "c.yaml"});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.out,
              testing::MatchesRegex("✅ Config loaded: c\\.yaml\n✅ Dataset file: rows\\.jsonl\n"
                                    "✅ Output dir: runs/run_[0-9a-f]+\n"
                                    "✅ Training finished: [0-9]+ steps, loss [0-9.]+, evaluation loss [0-9.]+\n"
                                    "✅ Final model: runs/run_[0-9a-f]+/final_model\n"));
  EXPECT_THAT(first.err, HasSubstr("tokens/s"));
  EXPECT_THAT(first.err, Not(HasSubstr("\r")));  // no terminal: plain lines

  const size_t at = first.out.find("runs/run_");
  const fs::path folder = work / first.out.substr(at, 9 + 12);
  for (const char* name :
       {"config.yaml", "run_manifest.json", "metrics.jsonl", "run.log", "final_model/config.json",
        "final_model/generation_config.json", "final_model/model.safetensors", "final_model/tokenizer.model",
        "final_model/tokenizer.json", "final_model/tokenizer_config.json"}) {
    EXPECT_TRUE(fs::exists(folder / name)) << name;
  }
  for (const char* name : {"tokenizer.model", "tokenizer.json", "tokenizer_config.json"}) {
    EXPECT_EQ(read_file(folder / "final_model" / name), read_file(work / "base" / name)) << name;
  }
  const std::vector<nlohmann::json> rows = metric_rows(folder);
  const size_t steps = losses_of(folder).size();
  EXPECT_EQ(rows[0]["step"], 1);
  EXPECT_EQ(rows[0]["learning_rate"], 0.0);  // the first warm-up step
  EXPECT_LT(losses_of(folder).back(), losses_of(folder).front());
  EXPECT_TRUE(std::any_of(rows.begin(), rows.end(), [](const auto& row) { return row.contains("eval_loss"); }));
  EXPECT_TRUE(fs::exists(folder / ("checkpoint-" + std::to_string(steps))));

  const std::string metrics = read_file(folder / "metrics.jsonl");
  const auto digests = digests_of_results(folder);
  const ProcessResult again = work.run({"train", "--config", "c.yaml"});
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.out, HasSubstr("already finished"));
  EXPECT_EQ(read_file(folder / "metrics.jsonl"), metrics);
  EXPECT_EQ(digests_of_results(folder), digests);

  const ProcessResult anew = work.run({"train", "--config", "c.yaml", "--resume", "never", "--json", "--quiet"});
  ASSERT_EQ(anew.exit_code, 0) << anew.err;
  EXPECT_EQ(anew.err, "");
  const nlohmann::json result = json_of(anew.out);
  ASSERT_TRUE(result.is_object()) << anew.out;
  EXPECT_EQ(result["outcome"], "finished");
  EXPECT_EQ(result["run_folder"].get<std::string>() + "/", fs::relative(folder, work.files().path()).string() + "-2/");
  EXPECT_EQ(losses_of(folder.string() + "-2"), losses_of(folder));
}

TEST(Training, PackedAndPaddedRunsHaveTheSameLosses) {
  const Workspace work;
  ASSERT_EQ(work.train("packed", {"--set", "training.packing=true"}).exit_code, 0);
  ASSERT_EQ(work.train("padded", {"--set", "training.packing=false"}).exit_code, 0);
  const std::vector<double> packed = losses_of(work / "packed");
  const std::vector<double> padded = losses_of(work / "padded");
  ASSERT_EQ(packed.size(), padded.size());
  ASSERT_GE(packed.size(), 25u);
  // The first loss is of equal weights; later ones carry the rounding of the updates on.
  EXPECT_NEAR(packed[0], padded[0], 1e-6);
  for (size_t i = 0; i < packed.size(); ++i) EXPECT_NEAR(packed[i], padded[i], 1e-4) << i;
}

TEST(Training, EachStopSignalFinishesTheStepAndTheSameCommandContinuesExactly) {
  const Workspace work;
  const std::vector<std::string> more = {"--set", "training.max_steps=60", "--set", "output.keep_checkpoints=100"};
  ASSERT_EQ(work.train("undisturbed", more).exit_code, 0);
  for (const int signal : {SIGTERM, SIGINT}) {
    const std::string run = "stopped-by-" + std::to_string(signal);
    Process process(work.train_words(run, more), work.options());
    ASSERT_TRUE(wait_for_steps(process, work / run, 8));
    process.send(signal);
    const ProcessResult stopped = process.wait();
    ASSERT_EQ(stopped.exit_code, 128 + signal) << stopped.err;
    EXPECT_THAT(stopped.err, HasSubstr("the same command continues it"));
    const size_t steps = losses_of(work / run).size();
    ASSERT_LT(steps, 60u);
    EXPECT_TRUE(fs::exists(work / run / ("checkpoint-" + std::to_string(steps)))) << "nothing that was done is lost";
    EXPECT_FALSE(fs::exists(work / run / "final_model"));

    const ProcessResult continued = work.train(run, more);
    ASSERT_EQ(continued.exit_code, 0) << continued.err;
    EXPECT_THAT(continued.err, HasSubstr("continuing from"));
    EXPECT_EQ(lasting_metrics(work / run), lasting_metrics(work / "undisturbed"));
    std::map<std::string, std::string> digests = digests_of_results(work / run);
    std::erase_if(digests, [&](const auto& entry) {  // the one that the stop added
      return steps % 5 != 0 && entry.first.starts_with("checkpoint-" + std::to_string(steps) + "/");
    });
    EXPECT_EQ(digests, digests_of_results(work / "undisturbed"));
  }
}

// A step that takes long, on a fast machine too: tens of thousands of micro-batches before the first update.
std::vector<std::string> long_step_words(const Workspace& work) {
  work.files().write("many.jsonl", make_rows(40'000));
  return {"--data", "many.jsonl",
          "--set",  "training.batch_size=1",
          "--set",  "training.gradient_accumulation_steps=40000",
          "--set",  "dataset.validation_fraction=0",
          "--set",  "evaluation.every=null"};
}

TEST(Training, ASecondSignalStopsAtOnce) {
  const Workspace work;
  const std::vector<std::string> more = long_step_words(work);
  Process process(work.train_words("run", more), work.options());
  for (int i = 0; i < 3000 && count_lines(work / "run/run.log") < 3; ++i) ASSERT_FALSE(process.ends_within(0.01));
  ASSERT_FALSE(process.ends_within(0.5));  // now it is in the middle of its first step
  process.send(SIGTERM);
  EXPECT_FALSE(process.ends_within(1.0)) << "the step is to be finished first";
  process.send(SIGTERM);
  EXPECT_TRUE(process.ends_within(2.0));
  const ProcessResult result = process.wait();
  EXPECT_EQ(result.exit_code, 128 + SIGTERM);
  EXPECT_EQ(count_lines(work / "run/metrics.jsonl"), 0);
}

TEST(Training, TheEngineIsStartedWithThreadsThatSoonSleepWhileTheyWait) {
  const Workspace work;
  Process process(work.train_words("run", long_step_words(work)), work.options());
  for (int i = 0; i < 3000 && count_lines(work / "run/run.log") < 1; ++i) ASSERT_FALSE(process.ends_within(0.01));
  std::ifstream file("/proc/" + std::to_string(process.id()) + "/environ", std::ios::binary);
  const std::string environment((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_THAT(environment, HasSubstr("OMP_WAIT_POLICY=passive"));
  EXPECT_THAT(environment, HasSubstr("GOMP_SPINCOUNT=20000"));
}

TEST(Training, ASecondProcessIsRefusedTheFolderUntilTheFirstOneDies) {
  const Workspace work;
  const std::vector<std::string> more = long_step_words(work);
  Process process(work.train_words("run", more), work.options());
  for (int i = 0; i < 3000 && count_lines(work / "run/run.log") < 1; ++i) ASSERT_FALSE(process.ends_within(0.01));
  const std::string log = read_file(work / "run/run.log");
  const ProcessResult second = work.train("run", more);
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_THAT(second.err, HasSubstr("in use by process " + std::to_string(process.id())));
  EXPECT_THAT(read_file(work / "run/run.log"), Not(HasSubstr("in use by")));
  process.send(SIGKILL);
  EXPECT_EQ(process.wait().signal, SIGKILL);
  EXPECT_EQ(work.train("run").exit_code, 0);  // the stale lock is taken over
}

TEST(Training, WhatChangedIsNamedAndRefusedUnlessAllowed) {
  const Workspace work;
  ASSERT_EQ(work.train("run", {"--set", "training.max_steps=6"}).exit_code, 0);
  const ProcessResult longer = work.train("run", {"--set", "training.max_steps=8"});
  EXPECT_EQ(longer.exit_code, 0) << longer.err;
  EXPECT_THAT(longer.err, HasSubstr("continuing from run/checkpoint-6"));
  std::vector<std::string> other_rate = {"--set", "training.max_steps=10", "--set", "training.learning_rate=1e-4"};
  const ProcessResult refused = work.train("run", other_rate);
  EXPECT_EQ(refused.exit_code, 13);
  EXPECT_THAT(refused.err, HasSubstr("training.learning_rate"));
  EXPECT_THAT(refused.err, HasSubstr("--allow-changed config"));
  other_rate.insert(other_rate.end(), {"--allow-changed", "config"});
  const ProcessResult continued = work.train("run", other_rate);
  EXPECT_EQ(continued.exit_code, 0) << continued.err;
  EXPECT_THAT(continued.err, HasSubstr("training.learning_rate"));
}

TEST(Training, ANamedCheckpointOrRunFolderIsWhereARunStartsFrom) {
  const Workspace work;
  const std::vector<std::string> more = {"--set", "training.max_steps=12"};
  ASSERT_EQ(work.train("run", more).exit_code, 0);
  const std::vector<double> losses = losses_of(work / "run");
  for (const auto& [from, first] : {std::pair("run/checkpoint-10", 10), std::pair("run", 12)}) {
    std::vector<std::string> words = more;
    words.insert(words.end(), {"--resume", from});
    const std::string folder = "from-" + std::to_string(first);
    const ProcessResult result = work.train(folder, words);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.err, HasSubstr("continuing from run/checkpoint-" + std::to_string(first)));
    EXPECT_EQ(losses_of(work / folder), std::vector<double>(losses.begin() + first, losses.end()));
    EXPECT_EQ(read_file(work / folder / "final_model/model.safetensors"),
              read_file(work / "run/final_model/model.safetensors"));
  }
  const ProcessResult absent = work.train("other", {"--resume", "run/checkpoint-11"});
  EXPECT_EQ(absent.exit_code, 13);
  EXPECT_THAT(absent.err, HasSubstr("not found"));
}

TEST(Training, ACheckpointWithAFlippedByteIsPassedOverAndWithoutAnyOtherTheRunIsRefused) {
  const Workspace work;
  const std::vector<std::string> more = {"--set", "training.max_steps=10"};
  ASSERT_EQ(work.train("run", more).exit_code, 0);
  const std::vector<std::string> longer = {"--set", "training.max_steps=12", "--set", "output.keep_checkpoints=9"};
  const auto flip = [&](const std::string& name) {
    std::string bytes = read_file(work / name);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    work.files().write(name, bytes);
  };
  const ProcessResult good = work.run({"verify", "run"});
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_THAT(good.out, HasSubstr("run/final_model: a model"));
  flip("run/final_model/model.safetensors");
  const ProcessResult bad = work.run({"verify", "run/final_model", "--json"});
  EXPECT_EQ(bad.exit_code, 12);
  EXPECT_THAT(bad.out, HasSubstr(R"("kind":"model","ok":false)"));
  EXPECT_THAT(bad.err, HasSubstr("model.safetensors: SHA-256"));
  EXPECT_EQ(work.run({"verify", "run"}).exit_code, 12);
  flip("run/checkpoint-10/model.safetensors");
  EXPECT_EQ(work.run({"verify", "run/checkpoint-10"}).exit_code, 13);
  EXPECT_EQ(work.run({"verify", "run/checkpoint-5"}).exit_code, 0);
  EXPECT_EQ(work.run({"verify", "run"}).exit_code, 13);
  const ProcessResult passed_over = work.train("run", {"--set", "training.max_steps=12", "--run-id", "x"});
  EXPECT_EQ(passed_over.exit_code, 13);  // of another run id: not even looked into
  fs::remove_all(work / "run/final_model");
  const ProcessResult continued = work.train("run", more);
  EXPECT_EQ(continued.exit_code, 0) << continued.err;
  EXPECT_THAT(continued.err, HasSubstr("checkpoint-10: not used"));
  EXPECT_THAT(continued.err, HasSubstr("continuing from run/checkpoint-5"));
}

TEST(Training, ALossThatIsNotANumberEndsTheRunWithItsRowsNamed) {
  const Workspace work;
  const fs::path weights = work / "base/model.safetensors";
  std::string bytes = read_file(weights);
  for (size_t at = bytes.size() - 64; at < bytes.size(); at += 2) {
    bytes[at] = static_cast<char>(0x80);  // 0x7F80: infinity in bf16
    bytes[at + 1] = 0x7F;
  }
  work.files().write("base/model.safetensors", bytes);
  const ProcessResult result = work.train("run");
  EXPECT_EQ(result.exit_code, 14);
  EXPECT_THAT(result.err, HasSubstr("rows.jsonl:"));
  EXPECT_FALSE(fs::exists(work / "run/final_model"));
  EXPECT_THAT(read_file(work / "run/run.log"), HasSubstr("error: "));
}

TEST(Training, RunningOutOfMemoryTellsTheStepTheBatchAndWhatToChange) {
  const Workspace work;
  std::string prompt;
  std::string rows;
  for (int word = 0; word < 3500; ++word) prompt += "stone ";
  for (int row = 0; row < 4; ++row) rows += nlohmann::json({{"prompt", prompt}, {"response", "river"}}).dump() + "\n";
  work.files().write("long.jsonl", rows);
  std::string command = "ulimit -v 900000; exec";
  for (const std::string& word :
       work.train_words("run", {"--data", "long.jsonl", "--set", "model.max_seq_length=8192", "--set",
                                "dataset.validation_fraction=0", "--set", "evaluation.every=null"})) {
    command += " '" + word + "'";
  }
  const ProcessResult result = run_process({"/bin/sh", "-c", command}, work.options());
  EXPECT_EQ(result.exit_code, 11) << result.err;
  EXPECT_THAT(result.err, HasSubstr("step 1"));
  EXPECT_THAT(result.err, HasSubstr("training.batch_size"));
}

TEST(Training, ErrorsOfTheDataAndThePlaceHaveTheirExitCodes) {
  const Workspace work;
  work.files().write("bad.jsonl", make_rows(3) + "{\"id\": \"x\", \"prompt\": \"p\"}\n");
  const ProcessResult data = work.train("run", {"--data", "bad.jsonl"});
  EXPECT_EQ(data.exit_code, 3);
  EXPECT_THAT(data.err, HasSubstr("bad.jsonl:4:"));
  EXPECT_THAT(data.err, HasSubstr("response"));
  const ProcessResult place = work.train("rows.jsonl/below/a/file");
  EXPECT_EQ(place.exit_code, 9);
  EXPECT_THAT(place.err, HasSubstr("rows.jsonl"));
  const ProcessResult skipped =
      work.train("run", {"--data", "bad.jsonl", "--set", "dataset.on_bad_record=skip", "--set",
                         "dataset.validation_fraction=0", "--set", "evaluation.every=null"});
  EXPECT_EQ(skipped.exit_code, 0) << skipped.err;
  EXPECT_THAT(skipped.err, HasSubstr("1 rows skipped"));
  const ProcessResult cuda = work.train("run2", {"--device", "cuda:99"});
  EXPECT_EQ(cuda.exit_code, 2);
}

TEST(Training, TheResultAnswersEvaluatesAndExports) {
  const Workspace work;
  ASSERT_EQ(work.train("run", {"--set", "training.max_steps=6"}).exit_code, 0);
  const ProcessResult answer = work.run({"generate", "--model", "run/final_model", "--prompt",
                                         "Reverse the list: river stone", "--max-new-tokens", "5", "--json"});
  ASSERT_EQ(answer.exit_code, 0) << answer.err;
  EXPECT_TRUE(json_of(answer.out).contains("output_ids")) << answer.out;
  work.files().write("prompts.jsonl",
                     "{\"id\": \"a\", \"prompt\": \"x\"}\n{\"id\": \"b\", \"input_ids\": [2, 5, 6]}\n");
  const ProcessResult many = work.run({"generate", "--model", "run/final_model", "--input", "prompts.jsonl", "--output",
                                       "answers.jsonl", "--max-new-tokens", "4", "--ignore-eos", "--json"});
  ASSERT_EQ(many.exit_code, 0) << many.err;
  EXPECT_EQ(json_of(many.out)["rows"], 2);
  EXPECT_EQ(count_lines(work / "answers.jsonl"), 2);

  const ProcessResult eval = work.run({"eval", "--model", "run/final_model", "--input", "rows.jsonl", "--max-samples",
                                       "3", "--max-new-tokens", "4", "--json"});
  ASSERT_EQ(eval.exit_code, 0) << eval.err;
  EXPECT_EQ(json_of(eval.out)["rows"], 3);
  EXPECT_TRUE(json_of(eval.out)["loss"].is_number());

  work.files().write(
      "set.jsonl",
      "{\"id\": \"e1\", \"prompt\": \"1 + 1?\", \"expected_answer\": \"2\", \"category\": \"arithmetic\"}\n"
      "{\"id\": \"e2\", \"prompt\": \"2 + 2?\", \"expected_answer\": \"4\"}\n");
  const ProcessResult traces = run_process({program("eval_generate"), "--model", "run/final_model", "--eval-set",
                                            "set.jsonl", "--output", "traces.jsonl", "--seed", "1"},
                                           work.options());
  ASSERT_EQ(traces.exit_code, 0) << traces.err;
  std::ifstream stream(work / "traces.jsonl");
  std::string line;
  std::getline(stream, line);
  const nlohmann::json trace = nlohmann::json::parse(line);
  EXPECT_EQ(trace["trace_version"], "1.0");
  EXPECT_EQ(trace["prompt"], "1 + 1?");
  EXPECT_EQ(trace["steps"][0]["i"], 0);
  EXPECT_EQ(trace["meta"]["eval_id"], "e1");
  EXPECT_EQ(trace["meta"]["category"], "arithmetic");

  const ProcessResult exported =
      work.run({"export", "--input", "run", "--format", "merged", "--output", "merged", "--json"});
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_TRUE(fs::exists(work / "merged/model.safetensors"));
}

TEST(Training, ALoraRunLeavesAnAdapterThatAnswersAndMerges) {
  const Workspace work;
  const ProcessResult train = work.train("run", {"--set", "training.max_steps=6", "--set", "lora.rank=4"});
  ASSERT_EQ(train.exit_code, 0) << train.err;
  EXPECT_TRUE(fs::exists(work / "run/final_model/adapter_model.safetensors"));
  const std::vector<std::string> prompt = {"--prompt", "Reverse the list: river stone", "--max-new-tokens", "6",
                                           "--json"};
  const auto answer_of = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "generate");
    words.insert(words.end(), prompt.begin(), prompt.end());
    const ProcessResult result = work.run(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json_of(result.out)["output_ids"];
  };
  const nlohmann::json with_adapter = answer_of({"--model", "base", "--adapter", "run/final_model"});
  EXPECT_EQ(answer_of({"--model", "run/final_model", "--base", "base"}), with_adapter);
  const ProcessResult merged = work.run({"export", "--input", "run/final_model", "--base", "base", "--format", "merged",
                                         "--dtype", "fp32", "--output", "merged"});
  ASSERT_EQ(merged.exit_code, 0) << merged.err;
  EXPECT_EQ(answer_of({"--model", "merged"}), with_adapter);
}

}  // namespace
}  // namespace gemma_sft
