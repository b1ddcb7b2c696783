// gemma-sft: what a user types. Answers by itself whatever needs no LibTorch, checks the rest, and becomes the engine
// for it.
#include <string>
#include <variant>
#include <vector>

#include "configs/error.h"
#include "trainer/cli/dry_run.h"
#include "trainer/cli/engine_checks.h"
#include "trainer/cli/front_end_commands.h"
#include "trainer/cli/program.h"
#include "trainer/cli/selftest_script.h"
#include "trainer/cli/start_engine.h"
#include "trainer/cli/train_request.h"

namespace gemma_sft {
namespace {

// The words that the engine gets: a link's name becomes the command it stands for.
std::vector<std::string> engine_words(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const std::string program = argv[0];
  const std::string base = program.substr(program.rfind('/') + 1);
  if (base.starts_with("train_sft_tunix")) words.insert(words.begin(), "train");
  if (base.starts_with("eval_generate")) words.insert(words.begin(), "eval_generate");
  return words;
}

class FrontEnd {
 public:
  FrontEnd(std::vector<std::string> words, const Output& output) : words_(std::move(words)), output_(output) {}

  int operator()(const TrainArguments& arguments) const {
    if (arguments.dry_run) return run_dry_run(arguments, output_);
    const bool is_job = goes_to_job_service(arguments);  // first: it refuses what no job can honour
    if (needs_rows_from_database(arguments)) start_traces_program(words_);
    if (is_job) start_jobs_program(words_);
    check_train(arguments);
    start_engine(words_);
  }
  int operator()(const GenerateArguments& arguments) const {
    check_generate(arguments, output_);
    start_engine(words_);
  }
  int operator()(const EvalArguments& arguments) const {
    check_eval(arguments, output_);
    start_engine(words_);
  }
  int operator()(const ExportArguments& arguments) const {
    check_export(arguments);
    start_engine(words_);
  }
  int operator()(const SelftestArguments& arguments) const {
    if (arguments.make_script) {
      output_.print(selftest_script());
      return 0;
    }
    check_selftest(arguments);
    start_engine(words_);
  }
  int operator()(const EvalGenerateArguments& arguments) const {
    if (arguments.job_id) start_jobs_program(words_);
    check_eval_generate(arguments);
    start_engine(words_);
  }
  int operator()(const JobsArguments&) const { start_jobs_program(words_); }
  int operator()(const TracesExportArguments&) const { start_traces_program(words_); }
  int operator()(const ConfigSchemaArguments&) const { return run_config_schema(output_); }
  int operator()(const ConfigShowArguments& arguments) const { return run_config_show(arguments, output_); }
  int operator()(const ConfigExplainArguments& arguments) const { return run_config_explain(arguments, output_); }
  int operator()(const TokenizeArguments& arguments) const { return run_tokenize(arguments, output_); }
  int operator()(const ExplainArguments& arguments) const { return run_explain(arguments, output_); }
  int operator()(const TokenizerTrainArguments& arguments) const { return run_tokenizer_train(arguments, output_); }
  int operator()(const ModelInitArguments& arguments) const { return run_model_init(arguments, output_); }
  int operator()(const VerifyArguments& arguments) const { return run_verify(arguments, output_); }
  // run_program has answered these.
  int operator()(const HelpArguments&) const { return 0; }
  int operator()(const VersionArguments&) const { return 0; }

 private:
  std::vector<std::string> words_;
  const Output& output_;
};

}  // namespace
}  // namespace gemma_sft

int main(int argc, char** argv) {
  using gemma_sft::CommandLine;
  using gemma_sft::Output;
  return gemma_sft::run_program(argc, argv, [&](const CommandLine& line, const Output& output) {
    return std::visit(gemma_sft::FrontEnd(gemma_sft::engine_words(argc, argv), output), line.arguments);
  });
}
