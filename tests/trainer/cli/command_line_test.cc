#include "trainer/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using Words = std::vector<std::string>;

template <typename Arguments>
Arguments parse(const Words& words, const std::string& program = "gemma-sft") {
  return std::get<Arguments>(parse_command_line(program, words).arguments);
}

std::string refusal(const Words& words, const std::string& program = "gemma-sft") {
  try {
    parse_command_line(program, words);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return error.what();
  }
  return "nothing was thrown";
}

TEST(CommandLine, TrainTakesEveryOption) {
  const auto train = parse<TrainArguments>(
      {"train",           "--config", "c.yaml",          "--dry-run",  "--resume", "never",
       "--set",           "a.b=c=d",  "--device",        "cuda:1",     "--data",   "rows #1.jsonl",
       "--output-dir",    "runs",     "--set",           "e.f=[1, 2]", "--run-id", "abc",
       "--max-samples",   "12",       "--allow-changed", "data",       "--json",   "--allow-changed",
       "config,tokenizer"});
  EXPECT_EQ(train.config, "c.yaml");
  EXPECT_TRUE(train.dry_run);
  EXPECT_EQ(train.resume, "never");
  EXPECT_EQ(train.device, "cuda:1");
  EXPECT_EQ(train.run_id, "abc");
  EXPECT_EQ(train.allowed_changes.size(), 3u);
  std::vector<std::string> assignments;
  for (const Assignment& one : train.assignments) assignments.push_back(one.origin + " " + one.key + "=" + one.value);
  EXPECT_THAT(assignments, testing::ElementsAre("--set a.b=c=d", "--data dataset.data_path=rows #1.jsonl",
                                                "--output-dir output.run_dir=runs", "--set e.f=[1, 2]",
                                                "--max-samples dataset.max_samples=12"));
}

TEST(CommandLine, EveryCommandThatReadsAConfigurationTakesOtherRows) {
  const auto data_of = [](const std::vector<Assignment>& assignments) {
    return assignments.size() == 1 ? assignments[0].key + "=" + assignments[0].value : "not one assignment";
  };
  const std::string expected = "dataset.data_path=my.jsonl";
  EXPECT_EQ(
      data_of(parse<ExplainArguments>({"explain", "--config", "c", "--row", "1", "--data", "my.jsonl"}).assignments),
      expected);
  EXPECT_EQ(data_of(parse<ConfigShowArguments>({"config", "show", "--config", "c", "--data", "my.jsonl"}).assignments),
            expected);
  EXPECT_EQ(data_of(parse<JobsArguments>({"preflight", "--config", "c", "--data", "my.jsonl"}).assignments), expected);
}

TEST(CommandLine, AValueMayFollowAnEqualsSignAndMayBeEmptyOrLookLikeAnOption) {
  EXPECT_EQ(parse<TrainArguments>({"train", "--config=a=b.yaml"}).config, "a=b.yaml");
  EXPECT_EQ(parse<GenerateArguments>({"generate", "--model=m", "--prompt="}).prompt, "");
  EXPECT_EQ(parse<GenerateArguments>({"generate", "--model=m", "--prompt", ""}).prompt, "");
  EXPECT_EQ(parse<GenerateArguments>({"generate", "--model=m", "--prompt", "-5 + 3"}).prompt, "-5 + 3");
  EXPECT_EQ(parse<GenerateArguments>({"generate", "--model=m", "--prompt=--json"}).prompt, "--json");
  EXPECT_EQ(parse<GenerateArguments>({"generate", "--model=m", "--prompt", "a,b [c] 'd' \"e\"\n"}).prompt,
            "a,b [c] 'd' \"e\"\n");
}

TEST(CommandLine, ARepeatedSetDoesNotSwallowWhatFollows) {
  EXPECT_THAT(refusal({"train", "--config", "c", "--set", "a=b", "extra"}), HasSubstr("unexpected argument \"extra\""));
  EXPECT_EQ(parse<TokenizerTrainArguments>(
                {"tokenizer", "train", "--corpus", "a", "b", "--corpus", "c", "--vocab-size", "600", "--output", "o"})
                .corpus,
            (Words{"a", "b", "c"}));
}

TEST(CommandLine, SwitchesMayStandBeforeTheCommand) {
  const CommandLine line = parse_command_line("/usr/bin/gemma-sft", {"--json", "--ascii", "config", "schema"});
  EXPECT_TRUE(line.common.json);
  EXPECT_TRUE(line.common.ascii);
  EXPECT_FALSE(line.common.quiet);
  EXPECT_TRUE(std::holds_alternative<ConfigSchemaArguments>(line.arguments));
}

TEST(CommandLine, WhatIsMissingIsNamedAsRequired) {
  EXPECT_THAT(refusal({"train"}), HasSubstr("--config is required"));
  EXPECT_THAT(refusal({"train", "--dry-run"}), HasSubstr("required"));
  EXPECT_THAT(refusal({"generate", "--model", "m"}), HasSubstr("--prompt or --input is required"));
  EXPECT_THAT(refusal({"model", "init", "--tokenizer", "t", "--output", "o"}),
              HasSubstr("--preset or --config is required"));
  EXPECT_THAT(refusal({"config", "explain"}), HasSubstr("KEY is required"));
  EXPECT_THAT(refusal({}), HasSubstr("a command is required"));
  EXPECT_THAT(refusal({"config"}), HasSubstr("config: a command is required"));
  EXPECT_THAT(refusal({}, "train_sft_tunix"), HasSubstr("train_sft_tunix: --config is required"));
  EXPECT_THAT(refusal({"--model", "m"}, "eval_generate"), HasSubstr("--eval-set is required"));
  EXPECT_THAT(refusal({"--job-id", "job_1"}, "eval_generate"), HasSubstr("--watch or --download is required"));
  EXPECT_THAT(refusal({"--job-id", "job_1", "--download"}, "eval_generate"), HasSubstr("--output-dir is required"));
}

TEST(CommandLine, AMistypedWordGetsTheNearestKnownOne) {
  EXPECT_THAT(refusal({"train", "--confg", "c"}), HasSubstr("unknown option --confg; did you mean --config?"));
  EXPECT_THAT(refusal({"train", "--config", "c", "--dryrun"}), HasSubstr("did you mean --dry-run?"));
  EXPECT_THAT(refusal({"trian"}), HasSubstr("unknown command \"trian\"; did you mean train?"));
  EXPECT_THAT(refusal({"config", "shw"}), HasSubstr("did you mean show?"));
  EXPECT_THAT(refusal({"train", "--config", "c", "--device", "cdua"}), HasSubstr("did you mean cuda?"));
  EXPECT_THAT(refusal({"train", "--config", "c", "--device", "gpu"}), HasSubstr("found \"gpu\"; a GPU is cuda here"));
  EXPECT_THAT(refusal({"train", "--config", "c", "--device", "tpu"}), HasSubstr("the Tunix job service"));
  EXPECT_THAT(refusal({"train", "--config", "c", "--allow-changed", "data,confg"}), HasSubstr("did you mean config?"));
}

TEST(CommandLine, BadValuesAreRefusedWithWhatWasExpected) {
  EXPECT_THAT(refusal({"train", "--config"}), HasSubstr("--config needs a value"));
  EXPECT_THAT(refusal({"train", "--config", "--dry-run"}), HasSubstr("write --config=--dry-run"));
  EXPECT_THAT(refusal({"train", "--config", "a", "--config", "b"}), HasSubstr("--config is given more than once"));
  EXPECT_THAT(refusal({"train", "--config", "a", "--json=1"}), HasSubstr("--json takes no value"));
  EXPECT_THAT(refusal({"train", "--config", "a", "--set", "novalue"}), HasSubstr("expected key=value"));
  EXPECT_THAT(refusal({"train", "--config", "a", "--set", "=x"}), HasSubstr("expected key=value"));
  EXPECT_THAT(refusal({"train", "--config", "a", "--max-samples", "0"}), HasSubstr("whole number from 1"));
  EXPECT_THAT(refusal({"train", "--config", "a", "--max-samples", "12abc"}), HasSubstr("found \"12abc\""));
  EXPECT_THAT(refusal({"train", "--config", "a", "--output", "b", "--output-dir", "c"}),
              HasSubstr("exclude each other"));
  EXPECT_THAT(refusal({"train", "--config", "a", "--device", "cuda:x"}), HasSubstr("--device"));
  for (const char* value : {"nan", "-1", "inf", "1e3", ""}) {
    EXPECT_THAT(refusal({"generate", "--model", "m", "--prompt", "p", std::string("--temperature=") + value}),
                HasSubstr("--temperature"))
        << value;
  }
  EXPECT_THAT(refusal({"generate", "--model", "m", "--prompt", "p", "--top-p", "0"}), HasSubstr("--top-p"));
  EXPECT_THAT(refusal({"generate", "--model", "m", "--prompt", "p", "--seed", "18446744073709551616"}),
              HasSubstr("--seed"));
  EXPECT_EQ(parse<GenerateArguments>({"generate", "--model", "m", "--prompt", "p", "--seed", "18446744073709551615"})
                .sampling.seed,
            18446744073709551615ull);
}

TEST(CommandLine, HelpShowsExamplesBeforeTheUsageForEveryCommand) {
  const std::vector<Words> commands = {{"train"},
                                       {"generate"},
                                       {"eval"},
                                       {"export"},
                                       {"model", "init"},
                                       {"tokenizer", "train"},
                                       {"tokenize"},
                                       {"explain"},
                                       {"config", "show"},
                                       {"config", "explain"},
                                       {"config", "schema"},
                                       {"verify"},
                                       {"selftest"},
                                       {"eval_generate"},
                                       {"jobs", "list"},
                                       {"jobs", "show"},
                                       {"jobs", "watch"},
                                       {"jobs", "cancel"},
                                       {"jobs", "download"},
                                       {"jobs", "estimate"},
                                       {"preflight"},
                                       {"auth", "test"},
                                       {"quota"}};
  for (Words words : commands) {
    for (const char* flag : {"--help", "-h"}) {
      Words with_flag = words;
      with_flag.push_back(flag);
      const std::string text = parse<HelpArguments>(with_flag).text;
      const size_t examples = text.find("examples:");
      const size_t usage = text.find("usage: gemma-sft " + words[0]);
      ASSERT_NE(examples, std::string::npos) << words[0];
      ASSERT_NE(usage, std::string::npos) << words[0];
      EXPECT_LT(examples, usage);
      EXPECT_THAT(text, HasSubstr("-h, --help"));
    }
  }
  EXPECT_THAT(parse<HelpArguments>({"--help"}).text, HasSubstr("usage: gemma-sft COMMAND"));
  EXPECT_THAT(parse<HelpArguments>({"help", "train"}).text, HasSubstr("--dry-run"));
  EXPECT_THAT(parse<HelpArguments>({"config", "--help"}).text, HasSubstr("config show"));
  EXPECT_THAT(parse<HelpArguments>({"--help"}, "x/train_sft_tunix").text, HasSubstr("usage: train_sft_tunix --config"));
  EXPECT_THAT(parse<HelpArguments>({"--help"}, "eval_generate").text, StartsWith("eval_generate: "));
  EXPECT_NO_THROW(parse<HelpArguments>({"train", "--config", "c", "--unknown", "--help"}));
}

TEST(CommandLine, TheLinksTakeTheCommandLinesOfThePipeline) {
  const auto train =
      parse<TrainArguments>({"--config", "configs/sft_tiny.yaml", "--dry-run"}, "/opt/bin/train_sft_tunix");
  EXPECT_TRUE(train.dry_run);
  const auto with_data = parse<TrainArguments>(
      {"--config", "c", "--data", "d.jsonl", "--output", "out", "--max-samples", "5"}, "train_sft_tunix");
  EXPECT_EQ(with_data.output, "out");
  EXPECT_EQ(parse<EvalGenerateArguments>({"--job-id", "job_abc123xyz", "--watch"}, "eval_generate").job_id,
            "job_abc123xyz");
  const auto download = parse<EvalGenerateArguments>(
      {"--job-id", "job_abc123xyz", "--download", "--output-dir", "artifacts/models/high_card_duel_v1"},
      "eval_generate");
  EXPECT_EQ(download.output_dir, "artifacts/models/high_card_duel_v1");
  const auto eval = parse<EvalGenerateArguments>({"--model", "m", "--eval-set", "e.jsonl", "--output", "o.jsonl",
                                                  "--seed", "1", "--max-examples", "3", "--device", "auto"},
                                                 "eval_generate");
  EXPECT_EQ(eval.max_examples, 3);
  EXPECT_EQ(eval.seed, 1u);
}

TEST(CommandLine, EvalTakesARevisionAsGenerateDoes) {
  EXPECT_EQ(parse<GenerateArguments>({"generate", "--model", "m", "--prompt", "p", "--revision", "v1.1"}).revision,
            "v1.1");
  EXPECT_EQ(parse<EvalArguments>({"eval", "--model", "m", "--input", "i", "--revision", "v1.1"}).revision, "v1.1");
  EXPECT_EQ(parse<EvalArguments>({"eval", "--model", "m", "--input", "i"}).revision, std::nullopt);
}

TEST(CommandLine, TheHelpOfTrainNamesEverySignalThatStopsIt) {
  const std::string help = parse<HelpArguments>({"train", "--help"}).text;
  for (const char* signal : {"SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"}) EXPECT_THAT(help, HasSubstr(signal));
}

TEST(CommandLine, NoLineOfTheExitCodesIsIndented) {
  const std::string help = parse<HelpArguments>({"--help"}).text;
  const std::string codes = help.substr(help.find("exit codes:"));
  EXPECT_EQ(codes.find("\n "), std::string::npos) << codes;
  EXPECT_THAT(codes, HasSubstr("15 selftest beyond its tolerance"));
}

TEST(CommandLine, ExportKnowsThreeFormats) {
  const auto format = [](const char* name) {
    return parse<ExportArguments>({"export", "--input", "i", "--output", "o", "--format", name}).format;
  };
  EXPECT_EQ(format("hf"), ExportFormat::kModel);
  EXPECT_EQ(format("merged"), ExportFormat::kModel);
  EXPECT_EQ(format("adapter"), ExportFormat::kAdapter);
  EXPECT_EQ(format("peft"), ExportFormat::kAdapter);
  EXPECT_EQ(parse<ExportArguments>({"export", "--input", "i", "--output", "o"}).format, ExportFormat::kModel);
  EXPECT_THAT(refusal({"export", "--input", "i", "--output", "o", "--format", "gguf"}),
              HasSubstr("expected one of hf, adapter, merged"));
  EXPECT_THAT(refusal({"export", "--input", "i", "--output", "o", "--format", "adapter", "--dtype", "bf16"}),
              HasSubstr("--dtype"));
}

TEST(CommandLine, SelftestTakesACaseOrPrintsItsScript) {
  const auto own = parse<SelftestArguments>({"selftest", "--case", "c", "--device", "cuda:1"});
  EXPECT_EQ(own.case_folder, "c");
  EXPECT_EQ(own.device, "cuda:1");
  EXPECT_FALSE(own.make_script);
  EXPECT_FALSE(parse<SelftestArguments>({"selftest"}).case_folder.has_value());
  EXPECT_TRUE(parse<SelftestArguments>({"selftest", "--make-script"}).make_script);
  EXPECT_THAT(refusal({"selftest", "--make-script", "--case", "c"}), HasSubstr("takes neither"));
  EXPECT_THAT(refusal({"selftest", "--make-script", "--device", "cpu"}), HasSubstr("takes neither"));
  EXPECT_THAT(refusal({"selftest", "--case"}), HasSubstr("--case needs a value"));
  EXPECT_THAT(refusal({"selftest", "c"}), HasSubstr("unexpected argument"));
}

TEST(CommandLine, VersionIsAskedWithOrWithoutJson) {
  EXPECT_TRUE(std::holds_alternative<VersionArguments>(parse_command_line("gemma-sft", {"--version"}).arguments));
  EXPECT_TRUE(parse_command_line("gemma-sft", {"--version", "--json"}).common.json);
}

}  // namespace
}  // namespace gemma_sft
