#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "trainer/cli/command_parser.h"
#include "trainer/cli/parse_commands.h"

namespace gemma_sft {

CommandLine parse_train(const std::string& program, const Words& rest) {
  bool dry_run = false, no_wait = false, no_download = false;
  return run_parser(
      program, "train", rest,
      [&](CommandParser& parser) {
        parser.required_text("--config", "FILE", "the configuration (YAML); required");
        parser.flag("--dry-run", dry_run, "check configuration, manifest and places, then exit; makes nothing");
        parser.text("--resume", "MODE",
                    "auto: continue this run where it stopped (default); never: take a new folder; or a checkpoint "
                    "folder or run folder to start from");
        add_value_options(parser);
        add_device_option(parser);
        parser.text("--output", "DIR", "the run folder itself");
        parser.text("--output-dir", "DIR", "the folder that run_<id> is made in: stands for output.run_dir");
        parser.text("--run-id", "ID", "name of the run (default: 12 hex digits of the configuration's SHA-256)");
        parser.text("--max-samples", "N", "train on the first N good rows: stands for dataset.max_samples");
        parser.texts("--allow-changed", "WHAT", "continue although data, config or tokenizer changed; may be repeated");
        parser.text("--backend", "NAME",
                    "native: this machine; tunix: a job of the training service (default: tunix where the "
                    "configuration has a tunix: section or model.tunix_job_config)");
        parser.text("--base-url", "URL", "job service: its address (default: tunix.api_base_url)");
        parser.text("--prices", "FILE", "job service: a price table in the form of configs/accelerators.json");
        parser.flag("--no-wait", no_wait, "job service: submit and leave");
        parser.flag("--no-download", no_download, "job service: leave the model where it is");
      },
      [&](const CommandParser& parser) {
        TrainArguments train;
        train.config = parser.get("--config");
        train.dry_run = dry_run;
        train.resume = parser.find("--resume").value_or("auto");
        if (train.resume.empty()) parser.fail("--resume: expected auto, never or a folder, found \"\"");
        train.assignments = assignments_of(parser);
        train.device = device_of(parser);
        train.output = parser.find("--output");
        train.run_id = parser.find("--run-id");
        const std::string backend = parser.find("--backend").value_or("auto");
        if (backend == "native" || backend == "tunix") {
          train.backend = backend == "native" ? Backend::kNative : Backend::kTunix;
        } else if (backend != "auto") {
          parser.fail_choice("--backend", backend, {"native", "tunix"});
        }
        train.base_url = parser.find("--base-url");
        train.prices = parser.find("--prices");
        train.wait = !no_wait;
        train.download = !no_download;
        if (train.output && parser.find("--output-dir")) {
          parser.fail("--output (the run folder) and --output-dir (its parent) exclude each other");
        }
        for (const std::string& list : parser.all("--allow-changed")) {
          for (size_t at = 0; at <= list.size();) {
            const size_t comma = std::min(list.find(',', at), list.size());
            const std::string word = list.substr(at, comma - at);
            static const std::array<std::string, 3> known = {"data", "config", "tokenizer"};
            const auto found = std::find(known.begin(), known.end(), word);
            if (found == known.end()) parser.fail_choice("--allow-changed", word, {known.begin(), known.end()});
            train.allowed_changes.insert(static_cast<AllowedChange>(found - known.begin()));
            at = comma + 1;
          }
        }
        return train;
      });
}

CommandLine parse_explain(const std::string& program, const Words& rest) {
  return run_parser(
      program, "explain", rest,
      [](CommandParser& parser) {
        parser.required_text("--config", "FILE", "the configuration (YAML); required");
        parser.required_text("--row", "N", "row of the data file, from 1 (blank lines do not count); required");
        add_value_options(parser);
      },
      [](const CommandParser& parser) {
        return ExplainArguments{.config = parser.get("--config"),
                                .assignments = assignments_of(parser),
                                .row = *parser.find_number<int64_t>("--row", 1, kAnyCount)};
      });
}

CommandLine parse_config_show(const std::string& program, const Words& rest) {
  return run_parser(
      program, "config show", rest,
      [](CommandParser& parser) {
        parser.required_text("--config", "FILE", "the configuration (YAML); required");
        add_value_options(parser);
      },
      [](const CommandParser& parser) {
        return ConfigShowArguments{.config = parser.get("--config"), .assignments = assignments_of(parser)};
      });
}

CommandLine parse_config_explain(const std::string& program, const Words& rest) {
  return run_parser(
      program, "config explain", rest,
      [](CommandParser& parser) {
        parser.required_positional("KEY", "a key, such as training.learning_rate, or a section");
      },
      [](const CommandParser& parser) { return ConfigExplainArguments{parser.get("KEY")}; });
}

CommandLine parse_config_schema(const std::string& program, const Words& rest) {
  return run_parser(
      program, "config schema", rest, [](CommandParser&) {},
      [](const CommandParser&) { return ConfigSchemaArguments{}; });
}

}  // namespace gemma_sft
