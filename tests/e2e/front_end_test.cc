// What gemma-sft answers by itself, without LibTorch: conventions that scripts lean on, exit codes, JSON, time and
// memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/files/file_system.h"
#include "tests/e2e/process.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
namespace fs = std::filesystem;

// Exactly one JSON object, and a newline.
nlohmann::json one_object(const std::string& text) {
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  EXPECT_TRUE(json.is_object()) << text;
  return json;
}

const ProcessOptions kInRepository = {.folder = GEMMA_SFT_SOURCE_DIR};

TEST(FrontEnd, HelpIsOnStdoutWithUsageAndExitCodeZero) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"--help"},
                                                                                     {"-h"},
                                                                                     {"train", "--help"},
                                                                                     {"generate", "--help"},
                                                                                     {"model", "init", "-h"},
                                                                                     {"config", "--help"}}) {
    const ProcessResult result = gemma_sft_run(words);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.out, HasSubstr("usage:"));
    EXPECT_EQ(result.err, "");
  }
  EXPECT_THAT(gemma_sft_run({"train", "--help"}).out, HasSubstr("--dry-run"));
  EXPECT_THAT(gemma_sft_run({"--version"}).out, testing::MatchesRegex("gemma-sft [0-9]+\\.[0-9]+\\.[0-9]+\n"));
  EXPECT_EQ(one_object(gemma_sft_run({"--version", "--json"}).out)["name"], "gemma-sft");
}

TEST(FrontEnd, ErrorsGoToStderrAndLeaveStdoutEmpty) {
  const ProcessResult result = gemma_sft_run({"trian"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, StartsWith("error: unknown command \"trian\"; did you mean train?"));
}

TEST(FrontEnd, ADryRunMakesNothingAndShowsItsWarningsOnStderr) {
  const TempDir dir;
  const std::string config = std::string(GEMMA_SFT_SOURCE_DIR) + "/configs/sft_tiny.yaml";
  const ProcessResult result = gemma_sft_run({"train", "--config", config, "--dry-run"}, {.folder = dir.path()});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(dir.list(), testing::ElementsAre());
  EXPECT_THAT(result.err, HasSubstr("warning: training.warmup_steps"));
  EXPECT_THAT(result.err, HasSubstr("warning: output.checkpoint_every"));
  EXPECT_THAT(result.out, Not(HasSubstr("warning")));
}

TEST(FrontEnd, TheProductionConfigurationPassesTheDryRun) {
  const ProcessResult dry =
      gemma_sft_run({"train", "--config", "configs/sft_production.yaml", "--dry-run"}, kInRepository);
  EXPECT_EQ(dry.exit_code, 0) << dry.err;
  EXPECT_THAT(dry.out, HasSubstr("✅ Output dir: gs://tunix-rt-artifacts/training_runs/run_"));
}

TEST(FrontEnd, WithoutAManifestTheSecondLineNamesTheDataFile) {
  const TempDir dir;
  dir.write("rows.jsonl", "");
  dir.write("c.yaml", "model: {base_model: google/gemma-2b-it}\ndataset: {data_path: rows.jsonl}\n");
  const ProcessResult result =
      gemma_sft_run({"train", "--config", "c.yaml", "--dry-run", "--run-id", "abc123"}, {.folder = dir.path()});
  EXPECT_EQ(result.out,
            "✅ Config loaded: c.yaml\n✅ Dataset file: rows.jsonl\n"
            "✅ Output dir: artifacts/training_runs/run_abc123\n✅ Dry-run mode: Exiting without training\n");
  const ProcessResult absent =
      gemma_sft_run({"train", "--config", "c.yaml", "--dry-run", "--data", "gone.jsonl"}, {.folder = dir.path()});
  EXPECT_EQ(absent.exit_code, 3);
  EXPECT_THAT(absent.err, HasSubstr("Data file not found: gone.jsonl (--data)"));
  dir.write("d.yaml", "model: {base_model: google/gemma-2b-it}\ndataset: {data_path: gone.jsonl}\n");
  EXPECT_THAT(gemma_sft_run({"train", "--config", "d.yaml", "--dry-run"}, {.folder = dir.path()}).err,
              HasSubstr("Data file not found: gone.jsonl (d.yaml:2:22)"));
  const ProcessResult manifest =
      gemma_sft_run({"train", "--config", "c.yaml", "--dry-run", "--set", "dataset.manifest_path=gone/manifest.json"},
                    {.folder = dir.path()});
  EXPECT_EQ(manifest.exit_code, 3);
  EXPECT_THAT(manifest.err, HasSubstr("Manifest not found: gone/manifest.json"));
}

TEST(FrontEnd, ADryRunLooksAtEveryPlaceThatIsNamed) {
  const TempDir dir;
  dir.write("rows.jsonl", "");
  dir.write("file", "");
  dir.write("c.yaml", "model: {base_model: google/gemma-2b-it}\ndataset: {data_path: rows.jsonl}\n");
  const auto dry = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"train", "--config", "c.yaml", "--dry-run"};
    words.insert(words.end(), more.begin(), more.end());
    return gemma_sft_run(words, {.folder = dir.path()});
  };
  EXPECT_EQ(dry({"--resume", "gone"}).exit_code, 13);
  EXPECT_THAT(dry({"--resume", "gone"}).err, HasSubstr("--resume gone: not found"));
  EXPECT_EQ(dry({"--data", "."}).exit_code, 3);
  // Where training could not write is a warning: nothing is written now.
  for (const std::string option : {"--output", "--output-dir"}) {
    const ProcessResult bucket = dry({option, "gs://bucket/runs"});
    EXPECT_EQ(bucket.exit_code, 0);
    EXPECT_THAT(bucket.err, HasSubstr("warning: training would stop at once: gs://bucket/runs"));
    EXPECT_THAT(dry({option, "gs://bucket/runs", "--backend", "tunix"}).err, Not(HasSubstr("training would stop")));
    const ProcessResult file = dry({option, "file"});
    EXPECT_EQ(file.exit_code, 0);
    EXPECT_THAT(file.err, HasSubstr("cannot make the run folder"));
  }
}

TEST(FrontEnd, ADryRunWarnsOfWhatTrainingWouldRefuse) {
  const TempDir dir;
  dir.write("rows.jsonl", "");
  dir.write("adapter/adapter_config.json", "{}");
  const std::string model = std::string(GEMMA_SFT_SOURCE_DIR) + "/tests/golden/gemma-1-mqa/model";
  dir.write("c.yaml", "model: {base_model: " + model + "}\ndataset: {data_path: rows.jsonl}\n");
  const auto warnings = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = {"train", "--config", "c.yaml", "--dry-run", "--device", "cpu"};
    words.insert(words.end(), more.begin(), more.end());
    const ProcessResult result = gemma_sft_run(words, {.folder = dir.path()});
    EXPECT_EQ(result.exit_code, 0);
    return result.err;
  };
  EXPECT_EQ(warnings({}), "");
  dir.write("project/config.yaml", "mine");
  EXPECT_THAT(warnings({"--output", "project"}), HasSubstr("project/config.yaml: is there, and no run made it"));
  const ProcessResult refused =
      gemma_sft_run({"train", "--config", "c.yaml", "--output", "project"}, {.folder = dir.path()});
  EXPECT_EQ(refused.exit_code, 2) << refused.err;
  EXPECT_EQ(read_file(dir / "project/config.yaml"), "mine");
  EXPECT_THAT(warnings({"--set", "model.base_model=./gone"}), HasSubstr("warning: training would stop at once: "));
  EXPECT_THAT(warnings({"--set", "model.base_model=google/gemma-2b-it"}), HasSubstr("hf download google/gemma-2b-it"));
  EXPECT_THAT(warnings({"--set", "model.max_seq_length=1000000"}), HasSubstr("more than the model's maximum"));
  EXPECT_THAT(warnings({"--set", "lora.rank=4", "--set", "lora.target_modules=[\"*.90.*\"]"}),
              HasSubstr("matches no linear layer"));
  EXPECT_THAT(warnings({"--set", "lora.rank=4", "--set", "lora.init_from=adapter"}), HasSubstr("adapter_config.json"));
  // A job is another machine's: its service looks at the model.
  EXPECT_THAT(warnings({"--set", "model.base_model=google/gemma-2b-it", "--backend", "tunix"}),
              Not(HasSubstr("training would stop")));
}

TEST(FrontEnd, ExplainJudgesARowAsTrainingDoes) {
  const TempDir dir;
  std::string config = read_file(fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/golden/gemma-3-bf16/model/config.json");
  config.replace(config.find("\"vocab_size\": 112"), 17, "\"vocab_size\": 9999");  // more rows than pieces
  dir.write("model/config.json", config);
  dir.write("model/tokenizer.model",
            read_file(fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures/tiny_tokenizer.model"));
  dir.write("rows.jsonl",
            "{\"input_ids\":[1,9998],\"loss_mask\":[0,1]}\n{\"input_ids\":[1,9999],\"loss_mask\":[0,1]}\n");
  dir.write("c.yaml", "model: {base_model: model}\ndataset: {data_path: rows.jsonl, format: tokens}\n");
  const auto explain = [&](const std::string& row, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"explain", "--config", "c.yaml", "--row", row};
    words.insert(words.end(), more.begin(), more.end());
    return gemma_sft_run(words, {.folder = dir.path()});
  };
  EXPECT_EQ(explain("1").err, "");
  dir.write("more.jsonl", "{\"input_ids\":[1,2],\"loss_mask\":[0,1],\"weight\":0}\n");
  EXPECT_THAT(explain("1", {"--data", "more.jsonl"}).err, HasSubstr("fields of the row that are not read: weight"));
  EXPECT_THAT(explain("2").err,
              HasSubstr("rows.jsonl:2:17: input_ids[1]: expected an id of the vocabulary, 0 to 9998"));
  const ProcessResult longer = explain("1", {"--set", "model.max_seq_length=129"});
  EXPECT_EQ(longer.exit_code, 2);
  EXPECT_THAT(longer.err, HasSubstr("model.max_seq_length: 129 is more than the model's maximum of 128"));
}

TEST(FrontEnd, AnOutputFileNeverTakesThePlaceOfStdoutOrADevice) {
  const TempDir dir;
  dir.write("rows.jsonl", "{\"text\": \"x\"}\n");
  dir.write("out.jsonl", "");
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  const std::string model = std::string(GEMMA_SFT_SOURCE_DIR) + "/tests/golden/tokens";
  const auto tokenize = [&](const std::string& output) {
    return gemma_sft_run({"tokenize", "--model", model, "--input", "rows.jsonl", "--output", output},
                         {.folder = dir.path(), .stdout_to = dir / "out.jsonl"});
  };
  for (const char* output : {"/dev/stdout", "out.jsonl"}) {
    const ProcessResult result = tokenize(output);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err, HasSubstr("is where stdout goes; without --output"));
  }
  EXPECT_EQ(tokenize("pipe").exit_code, 2);
  EXPECT_THAT(tokenize("pipe").err, HasSubstr("is a pipe, socket or device"));
  EXPECT_TRUE(fs::is_fifo(dir / "pipe"));
}

TEST(FrontEnd, GenerateWarnsOfOptionsThatChangeNothingAndNamesTheModelOfARunFolder) {
  const TempDir dir;
  dir.write("run/final_model/config.json", "{}");
  const ProcessResult run = gemma_sft_run({"generate", "--model", "run", "--prompt", "x"}, {.folder = dir.path()});
  EXPECT_EQ(run.exit_code, 12);
  EXPECT_EQ(run.err, "error: run: is a run folder; its model is run/final_model\n");
  const std::string model = std::string(GEMMA_SFT_SOURCE_DIR) + "/tests/golden/gemma-1-mqa/model";
  const ProcessResult unused = gemma_sft_run({"generate", "--model", model, "--revision", "v1.1", "--base", model,
                                              "--top-k", "5", "--prompt", "x", "--max-new-tokens", "1"});
  EXPECT_THAT(unused.err, HasSubstr("warning: --revision has no effect"));
  EXPECT_THAT(unused.err, HasSubstr("warning: --base has no effect"));
  EXPECT_THAT(unused.err, HasSubstr("warning: --top-k and --top-p have no effect"));
}

TEST(FrontEnd, TheOutputPlaceFollowsFlagThenEnvironmentThenFile) {
  const TempDir dir;
  dir.write("rows.jsonl", "");
  dir.write(
      "c.yaml",
      "model: {base_model: google/gemma-2b-it}\ndataset: {data_path: rows.jsonl}\noutput: {run_dir: from_file}\n");
  const auto place = [&](const std::vector<std::string>& more, const std::map<std::string, std::string>& environment) {
    std::vector<std::string> words = {"train", "--config", "c.yaml", "--dry-run", "--run-id", "x"};
    words.insert(words.end(), more.begin(), more.end());
    const std::string out = gemma_sft_run(words, {.folder = dir.path(), .environment = environment}).out;
    const size_t at = out.find("Output dir: ");
    return out.substr(at + 12, out.find('\n', at) - at - 12);
  };
  EXPECT_EQ(place({}, {}), "from_file/run_x");
  EXPECT_EQ(place({}, {{"TRAINING_OUTPUT_DIR", "from_env"}}), "from_env/run_x");
  EXPECT_EQ(place({"--output-dir", "from_flag"}, {{"TRAINING_OUTPUT_DIR", "from_env"}}), "from_flag/run_x");
  EXPECT_EQ(place({"--output", "the/folder"}, {{"TRAINING_OUTPUT_DIR", "from_env"}}), "the/folder");
}

TEST(FrontEnd, JsonIsOneObjectOnStdoutAlsoForErrors) {
  const nlohmann::json dry = one_object(
      gemma_sft_run({"train", "--config", "configs/sft_tiny.yaml", "--dry-run", "--json"}, kInRepository).out);
  EXPECT_EQ(dry["config"], "configs/sft_tiny.yaml");
  EXPECT_EQ(dry["manifest"], "backend/datasets/test-v1/manifest.json");
  EXPECT_THAT(dry["output_dir"].get<std::string>(), HasSubstr(dry["run_id"].get<std::string>()));
  EXPECT_GE(dry["warnings"].size(), 2u);
  const ProcessResult usage = gemma_sft_run({"train", "--json"});
  EXPECT_EQ(usage.exit_code, 2);
  EXPECT_EQ(one_object(usage.out)["error"]["exit_code"], 2);
  EXPECT_EQ(one_object(gemma_sft_run({"train", "--config", "none.yaml", "--json"}).out)["error"]["kind"], "usage");
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"config", "show", "--config", "configs/sft_tiny.yaml", "--json"},
                                             {"config", "explain", "training.learning_rate", "--json"},
                                             {"config", "schema", "--json"}}) {
    const nlohmann::json json = nlohmann::json::parse(gemma_sft_run(words, kInRepository).out, nullptr, false);
    EXPECT_TRUE(json.is_object()) << words[1];
  }
}

TEST(FrontEnd, AsciiOnlyWhereItIsAskedForOrTheLocaleNamesAnotherCodeset) {
  const std::vector<std::string> words = {"train", "--config", "configs/sft_tiny.yaml", "--dry-run"};
  const auto out = [&](std::vector<std::string> more, const std::map<std::string, std::string>& environment) {
    more.insert(more.begin(), words.begin(), words.end());
    return gemma_sft_run(more, {.folder = GEMMA_SFT_SOURCE_DIR, .environment = environment}).out;
  };
  EXPECT_THAT(out({}, {{"LANG", "C"}}), StartsWith("✅ Config loaded"));
  EXPECT_THAT(out({}, {{"LC_ALL", "POSIX"}}), StartsWith("✅ Config loaded"));
  EXPECT_THAT(out({"--ascii"}, {}), StartsWith("[ok] Config loaded"));
  EXPECT_THAT(out({}, {{"LC_ALL", "de_DE.ISO-8859-1"}}), StartsWith("[ok] Config loaded"));
}

TEST(FrontEnd, AFullStdoutIsAnErrorAndAReaderThatLeftIsNot) {
  ProcessOptions options = kInRepository;
  options.stdout_to = "/dev/full";
  const ProcessResult full = gemma_sft_run({"train", "--config", "configs/sft_tiny.yaml", "--dry-run"}, options);
  EXPECT_EQ(full.exit_code, 9);
  EXPECT_THAT(full.err, HasSubstr("stdout"));
  const ProcessResult closed = run_process({"/bin/sh", "-c", program("gemma-sft") + " --help >&-"});
  EXPECT_EQ(closed.exit_code, 9);
  const ProcessResult left =
      run_process({"/bin/sh", "-c", "{ sleep 0.3; " + program("gemma-sft") + " --help; echo $? >&2; } | true"});
  EXPECT_EQ(left.err, "141\n");  // 128 + SIGPIPE, and no word more
}

TEST(FrontEnd, ALimitOfFileSizesIsAnErrorAndNoSignal) {
  const TempDir dir;
  std::string corpus;
  for (int i = 0; i < 3000; ++i) corpus += "stone river " + std::to_string(i) + "\n";
  dir.write("corpus.txt", corpus);
  const ProcessResult result =
      run_process({"/bin/sh", "-c", "ulimit -f 8; exec \"$@\"", "sh", program("gemma-sft"), "tokenizer", "train",
                   "--corpus", "corpus.txt", "--vocab-size", "360", "--output", "tok"},
                  {.folder = dir.path()});
  EXPECT_EQ(result.signal, 0);
  EXPECT_EQ(result.exit_code, 9) << result.err;
  EXPECT_THAT(result.err, HasSubstr("File too large"));
  EXPECT_THAT(result.err, HasSubstr("ulimit -f"));
}

TEST(FrontEnd, TheLinksAcceptThePipelinesCommandLines) {
  const ProcessResult help = run_process({program("train_sft_tunix"), "--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.out, HasSubstr("usage: train_sft_tunix"));
  EXPECT_THAT(help.out, HasSubstr("--dry-run"));
  const ProcessResult missing = run_process({program("train_sft_tunix")});
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_THAT(missing.err, HasSubstr("required"));
  const ProcessResult absent =
      run_process({program("eval_generate"), "--model", "gone", "--eval-set", "gone.jsonl", "--output", "o.jsonl"});
  EXPECT_EQ(absent.exit_code, 3);
  EXPECT_THAT(absent.err, HasSubstr("not found"));
}

struct RefusedCommand {
  std::vector<std::string> words;
  int exit_code;
  std::string says;
};

// `rows.jsonl`, `c.yaml` (its model is absent), `file` and `empty/` are there; nothing else is.
std::vector<RefusedCommand> refused_commands() {
  return {
      {{"train", "--config", "gone.yaml"}, 2, "not found"},
      {{"train", "--config", "c.yaml"}, 12, "not found"},
      {{"train", "--config", "c.yaml", "--set", "model.base_model=google/gemma-2b-it"},
       12,
       "hf download google/gemma-2b-it"},
      {{"train", "--config", "c.yaml", "--data", "gone.jsonl"}, 3, "not found"},
      {{"train", "--config", "c.yaml", "--set", "dataset.validation_path=gone.jsonl"}, 3, "not found"},
      {{"train", "--config", "c.yaml", "--set", "training.optimizer=adafactor"}, 2, "adafactor"},
      {{"generate", "--model", "gone", "--prompt", "x"}, 12, "not found"},
      {{"generate", "--model", "empty", "--prompt", "x"}, 12, "config.json"},
      {{"generate", "--model", "gone", "--input", "gone.jsonl"}, 3, "not found"},
      {{"eval", "--model", "gone", "--input", "rows.jsonl"}, 12, "not found"},
      {{"eval", "--model", "gone", "--input", "gone.jsonl"}, 3, "not found"},
      {{"export", "--input", "gone", "--output", "new"}, 12, "not found"},
      {{"model", "init", "--preset", "gemma-3-1b", "--tokenizer", "gone", "--output", "new"}, 12, "not found"},
      {{"model", "init", "--preset", "gema-3-1b", "--tokenizer", "empty", "--output", "new"},
       2,
       "did you mean gemma-3-1b"},
      {{"model", "init", "--config", "gone.json", "--tokenizer", "empty", "--output", "new"}, 12, "not found"},
      {{"tokenizer", "train", "--corpus", "gone.txt", "--vocab-size", "600", "--output", "new"}, 3, "not found"},
      {{"tokenize", "--model", "gone", "--input", "rows.jsonl"}, 12, "not found"},
      {{"tokenize", "--model", "empty", "--input", "gone.jsonl"}, 3, "not found"},
      {{"explain", "--config", "c.yaml", "--row", "1"}, 12, "not found"},
      {{"explain", "--config", "c.yaml", "--row", "0"}, 2, "--row"},
      {{"verify", "gone"}, 13, "not found"},
      {{"verify", "empty"}, 13, "no checkpoint"},
      {{"config", "explain", "training.learnin_rate"}, 2, "training.learning_rate"},
      {{"config", "show", "--config", "gone.yaml"}, 2, "not found"},
  };
}

TEST(FrontEnd, EveryRefusalHasItsExitCodeSaysWhyAndMakesNothing) {
  const TempDir dir;
  dir.write("rows.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
  dir.write("file", "");
  dir.write("c.yaml", "model: {base_model: ./gone}\ndataset: {data_path: rows.jsonl}\n");
  fs::create_directory(dir / "empty");
  const std::vector<std::string> before = dir.list();
  for (const RefusedCommand& command : refused_commands()) {
    std::string shown;
    for (const std::string& word : command.words) shown += word + " ";
    const ProcessResult result =
        gemma_sft_run(command.words, {.folder = dir.path(), .environment = {{"HF_HOME", (dir / "hub").string()}}});
    EXPECT_EQ(result.exit_code, command.exit_code) << shown << "\n" << result.err;
    EXPECT_THAT(result.err, HasSubstr(command.says)) << shown;
    EXPECT_EQ(result.out, "") << shown;
  }
  EXPECT_EQ(dir.list(), before);
}

#ifndef GEMMA_SFT_SANITIZED
// The best of many runs, because the machine may be busy with something else.
TEST(FrontEnd, QuickAnswersTakeLessThan50MillisecondsAnd50Megabytes) {
  std::vector<std::vector<std::string>> commands = {
      {"--help"},
      {"--version"},
      {"train", "--help"},
      {"train", "--config", "configs/sft_tiny.yaml", "--dry-run"},
      {"train", "--config", "configs/sft_production.yaml", "--dry-run"},
      {"config", "schema"},
      {"config", "show", "--config", "configs/sft_tiny.yaml"},
      {"config", "explain", "training.learning_rate"},
  };
  for (const RefusedCommand& command : refused_commands()) commands.push_back(command.words);
  for (const std::vector<std::string>& words : commands) {
    double seconds = std::numeric_limits<double>::max();
    int64_t bytes = 0;
    for (int repetition = 0; repetition < 20 && seconds >= 0.05; ++repetition) {
      const ProcessResult result = gemma_sft_run(words, kInRepository);
      seconds = std::min(seconds, result.seconds);
      bytes = std::max(bytes, result.peak_memory_bytes);
    }
    EXPECT_LT(seconds, 0.05) << words[0];
    EXPECT_LT(bytes, 50'000'000) << words[0];
  }
}
#endif

TEST(FrontEnd, ItHasNoWayToOpenASocket) {
  const ProcessResult symbols = run_process(
      {"/bin/sh", "-c", "nm -D --undefined-only " + program("gemma-sft") + " | awk '{print $2}' | sed 's/@.*//'"});
  ASSERT_EQ(symbols.exit_code, 0) << symbols.err;
  ASSERT_THAT(symbols.out, HasSubstr("write\n"));  // the list is what it should be
  for (const char* name : {"\nsocket\n", "\nconnect\n", "\ngetaddrinfo\n", "\ngethostbyname\n"}) {
    EXPECT_THAT(symbols.out, Not(HasSubstr(name)));
  }
}

TEST(FrontEnd, AMissingEngineIsNamedWithTheLookedAtPlaces) {
  const TempDir dir;
  fs::copy_file(program("gemma-sft"), dir / "gemma-sft");
  dir.write("base/config.json", read_file(std::string(GEMMA_SFT_SOURCE_DIR) + "/configs/demo/model.json"));
  const ProcessResult result = run_process(
      {(dir / "gemma-sft").string(), "generate", "--model", "base", "--prompt", "x"}, {.folder = dir.path()});
  EXPECT_EQ(result.exit_code, 9);
  EXPECT_THAT(result.err, HasSubstr("gemma-sft-engine not found"));
  EXPECT_THAT(result.err, HasSubstr((dir.path().parent_path() / "libexec/gemma-sft-engine").string()));
}

}  // namespace
}  // namespace gemma_sft
