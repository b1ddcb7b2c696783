#include <fmt/format.h>

#include <utility>

#include "trainer/cli/command_parser.h"
#include "trainer/cli/parse_commands.h"

namespace gemma_sft {

CommandLine parse_generate(const std::string& program, const Words& rest) {
  GenerateArguments generate;
  return run_parser(
      program, "generate", rest,
      [&](CommandParser& parser) {
        parser.required_text("--model", "DIR", "a model folder, or a hub id in the local cache; required");
        parser.text("--revision", "NAME", "branch, tag or commit of a hub id (default: main)");
        parser.text("--adapter", "DIR", "a PEFT folder (LoRA) to put on the model");
        parser.text("--base", "DIR", "the base model, where --model is a PEFT folder (default: what it names)");
        parser.text("--prompt", "TEXT", "one prompt");
        parser.text("--input", "FILE", "many prompts (JSONL)");
        parser.text("--output", "FILE", "where the answers go (default: stdout)");
        add_sampling_options(parser);
        parser.flag("--ignore-eos", generate.ignore_eos, "go on after a stop token");
        parser.flag("--raw", generate.raw, "no chat template: the prompt is continued as it is, after BOS");
        parser.flag("--parse-control-tokens", generate.parse_control_tokens,
                    "control tokens spelled in a prompt become their ids, as in transformers");
        add_device_option(parser);
      },
      [&](const CommandParser& parser) {
        require_one_of(parser, "--prompt", "--input");
        generate.model = parser.get("--model");
        generate.revision = parser.find("--revision");
        generate.adapter = parser.find("--adapter");
        generate.base = parser.find("--base");
        generate.precision = parser.find_choice<Precision>("--precision");
        generate.prompt = parser.find("--prompt");
        generate.input = parser.find("--input");
        generate.output = parser.find("--output");
        if (parser.common().json && generate.input && !generate.output) {
          parser.fail("--json (a summary on stdout): --output is required");
        }
        generate.sampling = sampling_of(parser);
        generate.device = device_of(parser);
        return generate;
      });
}

CommandLine parse_eval(const std::string& program, const Words& rest) {
  EvalArguments eval;
  return run_parser(
      program, "eval", rest,
      [&](CommandParser& parser) {
        parser.required_text("--model", "DIR", "a model folder, or a hub id in the local cache; required");
        parser.text("--revision", "NAME", "branch, tag or commit of a hub id (default: main)");
        parser.text("--adapter", "DIR", "a PEFT folder (LoRA) to put on the model");
        parser.text("--base", "DIR", "the base model, where --model is a PEFT folder (default: what it names)");
        parser.required_text("--input", "FILE", "rows with prompt and response (JSONL); required");
        parser.text("--output", "FILE", "where every answer goes (JSONL)");
        parser.text("--format", "FORMAT", "training_example, tunix_sft or trace (default: training_example)");
        parser.text("--max-samples", "N", "only the first N rows");
        add_sampling_options(parser);
        parser.flag("--parse-control-tokens", eval.parse_control_tokens,
                    "control tokens spelled in a row become their ids, as with dataset.parse_control_tokens");
        add_device_option(parser);
      },
      [&](const CommandParser& parser) {
        eval.model = parser.get("--model");
        eval.revision = parser.find("--revision");
        eval.adapter = parser.find("--adapter");
        eval.base = parser.find("--base");
        eval.precision = parser.find_choice<Precision>("--precision");
        eval.input = parser.get("--input");
        eval.output = parser.find("--output");
        eval.format = parser.find_choice<DataFormat>("--format").value_or(eval.format);
        if (eval.format == DataFormat::kTokens) {
          parser.fail_choice("--format", "tokens", {"training_example", "tunix_sft", "trace"});
        }
        eval.sampling = sampling_of(parser);
        eval.max_samples = parser.find_number<int64_t>("--max-samples", 1, kAnyCount);
        eval.device = device_of(parser);
        return eval;
      });
}

CommandLine parse_eval_generate(const std::string& program, const Words& rest) {
  EvalGenerateArguments arguments;
  return run_parser(
      program, "eval_generate", rest,
      [&](CommandParser& parser) {
        parser.text("--job-id", "ID", "a job of a training service");
        parser.flag("--watch", arguments.watch, "follow the job until it ends");
        parser.flag("--download", arguments.download, "fetch the job's model");
        parser.text("--output-dir", "DIR", "where the fetched model goes");
        parser.text("--model", "DIR", "a model folder, or a hub id in the local cache");
        parser.text("--eval-set", "FILE", "rows {id, prompt, expected_answer, ...} (JSONL)");
        parser.text("--output", "FILE", "where the traces go (JSONL)");
        parser.text("--seed", "N", "seed (default: 42)");
        parser.text("--max-examples", "N", "only the first N rows");
        add_device_option(parser);
      },
      [&](const CommandParser& parser) {
        arguments.job_id = parser.find("--job-id");
        arguments.output_dir = parser.find("--output-dir");
        arguments.model = parser.find("--model");
        arguments.eval_set = parser.find("--eval-set");
        arguments.output = parser.find("--output");
        arguments.seed = parser.find_number<uint64_t>("--seed", 0, UINT64_MAX).value_or(arguments.seed);
        arguments.max_examples = parser.find_number<int64_t>("--max-examples", 1, kAnyCount);
        arguments.device = device_of(parser);
        if (arguments.job_id) {
          if (!arguments.watch && !arguments.download) parser.fail("--job-id: --watch or --download is required");
          if (arguments.download && !arguments.output_dir) parser.fail("--download: --output-dir is required");
          if (arguments.model || arguments.eval_set) parser.fail("--job-id and --model exclude each other");
          return arguments;
        }
        for (const auto& [given, name] : {std::pair(arguments.model.has_value(), "--model"),
                                          std::pair(arguments.eval_set.has_value(), "--eval-set"),
                                          std::pair(arguments.output.has_value(), "--output")}) {
          if (!given) parser.fail(fmt::format("{} is required", name));
        }
        if (arguments.watch || arguments.download || arguments.output_dir) {
          parser.fail("--watch, --download and --output-dir: --job-id is required");
        }
        return arguments;
      });
}

}  // namespace gemma_sft
