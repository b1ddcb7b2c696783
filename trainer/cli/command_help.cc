#include "trainer/cli/command_help.h"

#include <fmt/format.h>

#include "configs/error.h"

namespace gemma_sft {

const std::vector<CommandHelp>& command_helps() {
  static const std::vector<CommandHelp> table = {
      {"train",
       "fine-tune a model, or only check what would be run (--dry-run)",
       {"train --config configs/sft_tiny.yaml --dry-run",
        "train --config my.yaml --data rows.jsonl --output runs/first",
        "train --config my.yaml --set training.learning_rate=1e-5 --set lora.rank=16"},
       "--config FILE [options]",
       "The same command, started again, continues the same run. SIGTERM, SIGINT, SIGUSR1 and SIGHUP finish the step,\n"
       "save a checkpoint and end with 128 + the signal's number; a second one stops at once."},
      {"generate",
       "answer prompts with a model",
       {"generate --model runs/first/final_model --prompt \"What is 2 + 3?\"",
        "generate --model final_model --input prompts.jsonl --output answers.jsonl"},
       "--model DIR (--prompt TEXT | --input FILE) [options]",
       "Input rows are {id, prompt} or {id, input_ids}; output rows are {id, output_ids, text}: the new tokens only,\n"
       "the stop token included."},
      {"eval",
       "answer a data set and count how many answers are exactly right",
       {"eval --model runs/first/final_model --input test.jsonl --json"},
       "--model DIR --input FILE [options]"},
      {"export",
       "write the result of a run in another form",
       {"export --input runs/first --format hf --output model",
        "export --input runs/lora --format merged --output model",
        "export --input runs/lora/checkpoint-500 --format adapter --output adapter"},
       "--input DIR --output DIR [options]",
       "The folder gets a SHA256SUMS file beside what other tools read; \"gemma-sft verify DIR\" checks both."},
      {"model init",
       "make a model folder with random weights",
       {"model init --preset tiny-gemma-3 --tokenizer tok --output tiny --seed 1",
        "model init --config config.json --tokenizer tok --output tiny"},
       "(--preset NAME | --config FILE) --tokenizer DIR --output DIR [options]"},
      {"tokenizer train",
       "make a tokenizer of Gemma's kind from text files",
       {"tokenizer train --corpus corpus.txt --vocab-size 8192 --output tok"},
       "--corpus FILE... --vocab-size N --output DIR"},
      {"tokenize",
       "turn rows into token ids and loss masks",
       {"tokenize --model tok --input rows.jsonl --output ids.jsonl"},
       "--model DIR --input FILE.jsonl [options]",
       "Training examples become {id, input_ids, loss_mask}. Rows with \"text\" are tokenised as they are:\n"
       "no template, no BOS, mask 0."},
      {"traces export",
       "write the rows of a manifest from the traces in PostgreSQL",
       {"traces export --manifest backend/datasets/test-v1/manifest.json --output rows.jsonl"},
       "--manifest FILE --output FILE [options]",
       "DATABASE_URL, in the environment or in .env, says where the database is. train does this by itself when\n"
       "the rows of a manifest are in no file."},
      {"explain",
       "show what the model sees of one row: text, pieces, ids, mask, positions",
       {"explain --config my.yaml --row 17"},
       "--config FILE --row N [options]"},
      {"config show",
       "print every setting of a configuration and where its value comes from",
       {"config show --config my.yaml", "config show --config my.yaml --set training.batch_size=8 --json"},
       "--config FILE [options]"},
      {"config explain",
       "tell what a key means, its type, range and default",
       {"config explain training.learning_rate"},
       "KEY"},
      {"config schema",
       "print the JSON Schema of the configuration file",
       {"config schema > schema.json"},
       "[options]"},
      {"verify",
       "check a run, a checkpoint, a model or an adapter: digests, and what other tools need",
       {"verify artifacts/training_runs/run_0123456789ab", "verify runs/first/checkpoint-500", "verify merged_model"},
       "DIR",
       "A model or PEFT folder is read again by the rules of transformers, peft, vLLM, llama.cpp and Ollama.\n"
       "Each violation is named with the tool that stumbles over it."},
      {"selftest",
       "replay cases with known logits, loss and gradients on this machine",
       {"selftest", "selftest --device cuda --json", "selftest --make-script > make_case.py",
        "selftest --case my_case --json"},
       "[--case DIR] [--device DEVICE] [options]",
       "Everything is computed in fp32, also where the weights are stored as bf16. Exit code 15: a number is beyond\n"
       "the tolerance of its case."},
      {"jobs list",
       "jobs of the training service, newest first",
       {"jobs list", "jobs list --state running"},
       "[options]"},
      {"jobs show", "one job: state, progress, cost", {"jobs show job_abc123xyz"}, "ID [options]"},
      {"jobs watch",
       "follow a job until it ends",
       {"jobs watch job_abc123xyz"},
       "ID [options]",
       "Ctrl-C detaches; the job goes on. The exit code says how it ended."},
      {"jobs cancel", "end a job", {"jobs cancel job_abc123xyz"}, "ID [options]"},
      {"jobs download",
       "fetch the model of a finished job",
       {"jobs download job_abc123xyz --output-dir models/first"},
       "ID --output-dir DIR [options]",
       "DIR appears when every file is there and has the right digest; started again, it goes on where it stopped."},
      {"jobs estimate",
       "steps, tokens, memory, hours and cost of a job",
       {"jobs estimate --config my.yaml", "jobs estimate --config my.yaml --prices accelerators.json --json"},
       "--config FILE [options]"},
      {"preflight",
       "everything to look at before a job is submitted, with pass or fail",
       {"preflight --config configs/sft_production.yaml"},
       "--config FILE [options]",
       "Rows, the manifest's count, the dry-run, the key, quota, the places that are written to, and the cost.\n"
       "Submits nothing. The exit code is that of the first check that fails."},
      {"auth test", "does the job service accept the key?", {"auth test"}, "[options]"},
      {"quota", "accelerators that are free for a project", {"quota --accelerator tpu-v3-8"}, "[options]"},
      {"eval_generate",
       "answers to an evaluation set as traces, or a job of a training service",
       {"--model runs/first/final_model --eval-set eval_v1.jsonl --output eval_after.jsonl"},
       "(--model DIR --eval-set FILE --output FILE | --job-id ID (--watch | --download --output-dir DIR))",
       "--job-id speaks to the job service, as gemma-sft jobs watch and jobs download do.",
       false},
  };
  return table;
}

const CommandHelp& help_of(const std::string& words) {
  for (const CommandHelp& command : command_helps()) {
    if (command.words == words) return command;
  }
  throw Error(ErrorKind::kInternal, "no help for the command " + words);
}

std::string overview() {
  std::string text =
      "gemma-sft: supervised fine-tuning of Gemma models\n\nexamples:\n"
      "  gemma-sft train --config configs/sft_tiny.yaml --dry-run\n"
      "  gemma-sft train --config my.yaml\n"
      "  gemma-sft generate --model final_model --prompt \"What is 2 + 3?\"\n\n"
      "usage: gemma-sft COMMAND [options]\n\ncommands:\n";
  for (const CommandHelp& command : command_helps()) {
    if (command.listed) text += fmt::format("  {:<16} {}\n", command.words, command.summary);
  }
  return text +
         "\noptions:\n"
         "  -h, --help       this text; after a command: help on that command\n"
         "  --version        version of the program; with --json as one JSON object\n"
         "\nexit codes: 0 ok, 2 usage or configuration, 3 data, 4 authentication, 5 quota or cost, 6 job failed,\n"
         "7 job cancelled, 8 timeout, 9 input/output, 10 job service, 11 memory, 12 model, 13 checkpoint,\n"
         "14 non-finite numbers, 15 selftest beyond its tolerance, 70 internal error, 128 + n stopped by signal n\n";
}

std::string group_help(const std::string& group) {
  std::string text = fmt::format("usage: gemma-sft {} COMMAND [options]\n\ncommands:\n", group);
  for (const CommandHelp& command : command_helps()) {
    if (command.words.starts_with(group + " ")) text += fmt::format("  {:<16} {}\n", command.words, command.summary);
  }
  return text + fmt::format("\nsee: gemma-sft {} COMMAND --help\n", group);
}

}  // namespace gemma_sft
