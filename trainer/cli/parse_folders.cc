#include "trainer/cli/command_parser.h"
#include "trainer/cli/parse_commands.h"

namespace gemma_sft {

CommandLine parse_model_init(const std::string& program, const Words& rest) {
  return run_parser(
      program, "model init", rest,
      [](CommandParser& parser) {
        parser.text("--preset", "NAME", "a shape by name, such as gemma-3-270m or tiny-gemma-3");
        parser.text("--config", "FILE", "a Hugging Face config.json");
        parser.required_text("--tokenizer", "DIR", "the folder whose tokenizer files are copied; required");
        parser.required_text("--output", "DIR", "a new folder; required");
        parser.text("--dtype", "DTYPE", "fp32, bf16 or fp16 (default: what the config.json says, else bf16)");
        parser.text("--seed", "N", "seed of the weights (default: 42)");
      },
      [](const CommandParser& parser) {
        require_one_of(parser, "--preset", "--config");
        ModelInitArguments init;
        init.preset = parser.find("--preset");
        init.config = parser.find("--config");
        init.tokenizer = parser.get("--tokenizer");
        init.output = parser.get("--output");
        init.dtype = parser.find_choice<ModelDtype>("--dtype");
        init.seed = parser.find_number<uint64_t>("--seed", 0, UINT64_MAX).value_or(init.seed);
        return init;
      });
}

CommandLine parse_tokenizer_train(const std::string& program, const Words& rest) {
  return run_parser(
      program, "tokenizer train", rest,
      [](CommandParser& parser) {
        parser.required_list("--corpus", "FILE...", "text files (UTF-8); required");
        parser.required_text("--vocab-size", "N", "number of pieces; required");
        parser.required_text("--output", "DIR",
                             "folder for tokenizer.model, tokenizer.json, tokenizer_config.json; required");
      },
      [](const CommandParser& parser) {
        return TokenizerTrainArguments{.corpus = parser.all("--corpus"),
                                       .vocab_size = *parser.find_number<int64_t>("--vocab-size", 1, 10'000'000),
                                       .output = parser.get("--output")};
      });
}

CommandLine parse_traces_export(const std::string& program, const Words& rest) {
  TracesExportArguments traces;
  return run_parser(
      program, "traces export", rest,
      [&](CommandParser& parser) {
        parser.required_text("--manifest", "FILE", "manifest whose trace_ids are read; required");
        parser.required_text("--output", "FILE", "where the rows go (JSONL); required");
        parser.text("--format", "FORMAT", "training_example, tunix_sft or trace (default: training_example)");
        parser.flag("--skip-missing", traces.skip_missing, "leave out traces that the database does not have");
      },
      [&](const CommandParser& parser) {
        traces.manifest = parser.get("--manifest");
        traces.output = parser.get("--output");
        traces.format = parser.find_choice<DataFormat>("--format").value_or(traces.format);
        if (traces.format == DataFormat::kTokens) {
          parser.fail("--format tokens: needs a tokenizer; export the traces and run gemma-sft tokenize on the file");
        }
        return traces;
      });
}

CommandLine parse_tokenize(const std::string& program, const Words& rest) {
  TokenizeArguments tokenize;
  return run_parser(
      program, "tokenize", rest,
      [&](CommandParser& parser) {
        parser.required_text("--model", "DIR", "a folder with tokenizer.model, or the file itself; required");
        parser.required_text("--input", "FILE", "rows (JSONL); required");
        parser.text("--output", "FILE", "where the token rows go (default: stdout)");
        parser.flag("--add-bos", tokenize.add_bos, "begin \"text\" rows with BOS");
        parser.flag("--parse-control-tokens", tokenize.parse_control_tokens,
                    "control tokens spelled in the text become their ids, as in transformers");
      },
      [&](const CommandParser& parser) {
        tokenize.model = parser.get("--model");
        tokenize.input = parser.get("--input");
        tokenize.output = parser.find("--output");
        if (parser.common().json && !tokenize.output) parser.fail("--json (a summary on stdout): --output is required");
        return tokenize;
      });
}

CommandLine parse_export(const std::string& program, const Words& rest) {
  return run_parser(
      program, "export", rest,
      [](CommandParser& parser) {
        parser.required_text("--input", "DIR",
                             "a run folder, its final_model, a checkpoint, a model or a PEFT folder; required");
        parser.text("--base", "DIR", "the base model (default: what the PEFT folder or the checkpoint names)");
        parser.text("--format", "FORMAT",
                    "hf or merged: one whole model, with an adapter merged into its base; adapter (or peft): the PEFT "
                    "folder alone (default: hf)");
        parser.text("--dtype", "DTYPE", "of a whole model: fp32, bf16 or fp16 (default: that of the base files)");
        parser.required_text("--output", "DIR", "a new folder; required");
      },
      [](const CommandParser& parser) {
        ExportArguments arguments;
        arguments.input = parser.get("--input");
        arguments.base = parser.find("--base");
        const std::string format = parser.find("--format").value_or("hf");
        if (format == "adapter" || format == "peft") {
          arguments.format = ExportFormat::kAdapter;
        } else if (format != "hf" && format != "merged") {
          parser.fail_choice("--format", format, {"hf", "adapter", "merged"});
        }
        arguments.dtype = parser.find_choice<ModelDtype>("--dtype");
        if (arguments.dtype && arguments.format == ExportFormat::kAdapter) {
          parser.fail("--dtype: an adapter is always written in fp32; leave it out, or take --format merged");
        }
        arguments.output = parser.get("--output");
        return arguments;
      });
}

CommandLine parse_verify(const std::string& program, const Words& rest) {
  return run_parser(
      program, "verify", rest,
      [](CommandParser& parser) {
        parser.required_positional("DIR", "a run folder, a checkpoint, a model folder or a PEFT folder");
      },
      [](const CommandParser& parser) { return VerifyArguments{parser.get("DIR")}; });
}

CommandLine parse_selftest(const std::string& program, const Words& rest) {
  SelftestArguments selftest;
  return run_parser(
      program, "selftest", rest,
      [&](CommandParser& parser) {
        parser.text("--case", "DIR", "a case of your own (default: every case of the installation)");
        parser.flag("--make-script", selftest.make_script,
                    "print the Python script that makes a case from a model of yours");
        add_device_option(parser);
      },
      [&](const CommandParser& parser) {
        selftest.case_folder = parser.find("--case");
        selftest.device = device_of(parser);
        if (selftest.make_script && (selftest.case_folder || parser.find("--device") || parser.common().json)) {
          parser.fail("--make-script prints a script and takes neither --case nor --device nor --json");
        }
        return selftest;
      });
}

}  // namespace gemma_sft
