// The words of a command line -> one plain struct per command. Both executables parse with this, so that the front end
// can check a command before it starts the engine with the same words.
//
// A word that cannot be understood is Error(kUsage) with the nearest known one; a missing option says "required".
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "configs/load_config.h"
#include "trainer/run_training.h"
#include "trainer/tunix/job.h"

namespace gemma_sft {

// What every command takes.
struct CommonArguments {
  bool json = false;     // stdout is one JSON object
  bool quiet = false;    // stderr holds warnings and errors only
  bool verbose = false;  // stderr also says which files were used
  bool ascii = false;    // nothing beyond ASCII on stdout and stderr
};

struct HelpArguments {
  std::string text;
};

struct VersionArguments {};

// Which engine trains: this machine, or a job of a training service.
enum class Backend { kAuto, kNative, kTunix };

struct TrainArguments {
  std::string config;
  bool dry_run = false;
  std::string resume = "auto";          // auto, never or a folder
  std::vector<Assignment> assignments;  // --set, --data, --output-dir, --max-samples, in the order of the command line
  std::string device = "auto";
  std::optional<std::string> output;  // the run folder itself
  std::optional<std::string> run_id;
  std::set<AllowedChange> allowed_changes;
  Backend backend = Backend::kAuto;     // auto: tunix where the configuration has a tunix: section
  std::optional<std::string> base_url;  // of the job service
  std::optional<std::string> prices;    // a price table
  bool wait = true;                     // for the job to end
  bool download = true;                 // its model, when it has ended
};

struct ConfigSchemaArguments {};

struct ConfigShowArguments {
  std::string config;
  std::vector<Assignment> assignments;
};

struct ConfigExplainArguments {
  std::string key;
};

struct TokenizeArguments {
  std::string model;
  std::string input;
  std::optional<std::string> output;  // empty: stdout
  bool add_bos = false;
  bool parse_control_tokens = false;
};

struct ExplainArguments {
  std::string config;
  std::vector<Assignment> assignments;
  int64_t row = 0;  // of the data file, from 1; blank lines do not count
};

struct VerifyArguments {
  std::string folder;  // run folder, checkpoint, model folder or PEFT folder
};

struct SelftestArguments {
  std::optional<std::string> case_folder;  // empty: the cases of the installation
  bool make_script = false;
  std::string device = "auto";
};

struct TokenizerTrainArguments {
  std::vector<std::string> corpus;
  int64_t vocab_size = 8192;
  std::string output;
};

struct SamplingArguments {
  int64_t max_new_tokens = 256;
  double temperature = 0;  // 0: greedy
  int64_t top_k = 0;       // 0: all
  double top_p = 1;
  uint64_t seed = 42;
};

struct GenerateArguments {
  std::string model;
  std::optional<std::string> revision;  // of a hub id
  std::optional<std::string> adapter;   // PEFT folder
  std::optional<std::string> base;      // base model of a PEFT folder
  std::optional<std::string> prompt;    // one of prompt and input
  std::optional<std::string> input;
  std::optional<std::string> output;  // empty: stdout
  SamplingArguments sampling;
  bool ignore_eos = false;
  bool raw = false;
  bool parse_control_tokens = false;
  std::string device = "auto";
  std::optional<Precision> precision;
};

struct EvalArguments {
  std::string model;
  std::optional<std::string> revision;  // as of generate
  std::optional<std::string> adapter;
  std::optional<std::string> base;
  std::string input;
  std::optional<std::string> output;
  DataFormat format = DataFormat::kTrainingExample;
  SamplingArguments sampling;
  bool parse_control_tokens = false;
  std::optional<int64_t> max_samples;
  std::string device = "auto";
  std::optional<Precision> precision;
};

enum class ExportFormat { kModel, kAdapter };

struct ExportArguments {
  std::string input;                // run folder, its final_model, checkpoint, model folder or PEFT folder
  std::optional<std::string> base;  // base model of a PEFT folder; empty: what its adapter_config.json says
  ExportFormat format = ExportFormat::kModel;
  std::optional<ModelDtype> dtype;
  std::string output;
};

struct ModelInitArguments {
  std::optional<std::string> preset;  // one of preset and config
  std::optional<std::string> config;  // a config.json
  std::string tokenizer;
  std::string output;
  std::optional<ModelDtype> dtype;  // empty: what the config.json says, bf16 for a preset
  uint64_t seed = 42;
};

// The command line of the link `eval_generate`: answers to an evaluation set as traces, or a job of a training service.
struct EvalGenerateArguments {
  std::optional<std::string> job_id;
  bool watch = false;
  bool download = false;
  std::optional<std::string> output_dir;
  std::optional<std::string> model;
  std::optional<std::string> eval_set;
  std::optional<std::string> output;
  uint64_t seed = 42;
  std::optional<int64_t> max_examples;
  std::string device = "auto";
};

enum class JobsVerb { kList, kShow, kWatch, kCancel, kDownload, kEstimate, kPreflight, kAuthTest, kQuota };

struct TracesExportArguments {
  std::string manifest;
  std::string output;
  DataFormat format = DataFormat::kTrainingExample;
  bool skip_missing = false;  // leave out traces that the database does not have
};

// `jobs ...`, `preflight`, `auth test` and `quota`. Which fields a verb has, parse_jobs.cc says.
struct JobsArguments {
  JobsVerb verb = JobsVerb::kList;
  std::optional<std::string> id;
  std::optional<std::string> output_dir;
  std::optional<std::string> base_url;
  std::optional<std::string> project_id;
  std::optional<std::string> accelerator;
  std::optional<std::string> region;
  std::optional<std::string> experiment;
  std::optional<JobState> state;
  int64_t limit = 20;
  std::optional<std::string> config;
  std::vector<Assignment> assignments;
  std::optional<std::string> prices;
};

using CommandArguments =
    std::variant<HelpArguments, VersionArguments, TrainArguments, ConfigSchemaArguments, ConfigShowArguments,
                 ConfigExplainArguments, TokenizeArguments, ExplainArguments, VerifyArguments, SelftestArguments,
                 TokenizerTrainArguments, GenerateArguments, EvalArguments, ExportArguments, ModelInitArguments,
                 EvalGenerateArguments, JobsArguments, TracesExportArguments>;

struct CommandLine {
  CommonArguments common;
  CommandArguments arguments;
};

// `program` is argv[0]: its last part decides, so that a link named train_sft_tunix means `train` and one named
// eval_generate the command of that name. `words` are the rest.
CommandLine parse_command_line(const std::string& program, const std::vector<std::string>& words);

// The switches of CommonArguments that stand anywhere in `words`: for reporting an error of parse_command_line.
CommonArguments find_common_arguments(const std::vector<std::string>& words);

}  // namespace gemma_sft
