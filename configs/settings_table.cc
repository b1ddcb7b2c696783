// The table of all settings: one entry for each key, by section.
#include "configs/settings.h"

#include <fmt/format.h>

#include <limits>
#include <type_traits>

#include "configs/choice_names.h"
#include "configs/module_pattern.h"

namespace gemma_sft {
namespace {

// How a C++ type appears in the table.
template <typename T>
struct Appearance {  // enumerations
  static constexpr ValueType type = ValueType::kChoice;
  static std::vector<std::string> choices() { return {Choices<T>::names.begin(), Choices<T>::names.end()}; }
  static Value read(T value) { return std::string(choice_name(value)); }
  static T write(const Value& value) {
    const std::string& name = std::get<std::string>(value);
    for (size_t i = 0; i < Choices<T>::names.size(); ++i) {
      if (Choices<T>::names[i] == name) return static_cast<T>(i);
    }
    throw std::bad_variant_access();
  }
};
// A switch with a third position: on and off appear as the truth values that they are in YAML and JSON.
template <>
struct Appearance<ActivationCheckpointing> {
  static constexpr ValueType type = ValueType::kChoice;
  static std::vector<std::string> choices() {
    return {Choices<ActivationCheckpointing>::names.begin(), Choices<ActivationCheckpointing>::names.end()};
  }
  static Value read(ActivationCheckpointing value) {
    if (value == ActivationCheckpointing::kAuto) return std::string(choice_name(value));
    return value == ActivationCheckpointing::kOn;
  }
  static ActivationCheckpointing write(const Value& value) {
    if (const bool* on = std::get_if<bool>(&value)) {
      return *on ? ActivationCheckpointing::kOn : ActivationCheckpointing::kOff;
    }
    const std::string& name = std::get<std::string>(value);
    if (name == "auto") return ActivationCheckpointing::kAuto;
    return name == "true" ? ActivationCheckpointing::kOn : ActivationCheckpointing::kOff;
  }
};
template <typename T, ValueType kType>
struct Same {
  static constexpr ValueType type = kType;
  static std::vector<std::string> choices() { return {}; }
  static Value read(const T& value) { return value; }
  static T write(const Value& value) { return std::get<T>(value); }
};
template <>
struct Appearance<bool> : Same<bool, ValueType::kSwitch> {};
template <>
struct Appearance<int64_t> : Same<int64_t, ValueType::kWholeNumber> {};
template <>
struct Appearance<double> : Same<double, ValueType::kNumber> {};
template <>
struct Appearance<std::string> : Same<std::string, ValueType::kText> {};
template <>
struct Appearance<std::vector<std::string>> : Same<std::vector<std::string>, ValueType::kTextList> {};
template <>
struct Appearance<uint64_t> : Same<int64_t, ValueType::kWholeNumber> {
  static Value read(uint64_t value) { return static_cast<int64_t>(value); }
  static uint64_t write(const Value& value) { return static_cast<uint64_t>(std::get<int64_t>(value)); }
};

template <typename T>
struct Unwrapped {
  using type = T;
  static constexpr bool optional = false;
};
template <typename T>
struct Unwrapped<std::optional<T>> {
  using type = T;
  static constexpr bool optional = true;
};

template <auto kSection, auto kMember>
Field field() {
  using Stored = std::remove_cvref_t<decltype(std::declval<RunConfig>().*kSection.*kMember)>;
  using Plain = typename Unwrapped<Stored>::type;
  using Appears = Appearance<Plain>;
  Field result{Appears::type, Unwrapped<Stored>::optional, Appears::choices(), nullptr, nullptr};
  result.get = [](const RunConfig& config) -> Value {
    const Stored& stored = config.*kSection.*kMember;
    if constexpr (Unwrapped<Stored>::optional) {
      return stored ? Appears::read(*stored) : Value();
    } else {
      return Appears::read(stored);
    }
  };
  result.set = [](RunConfig& config, const Value& value) {
    Stored& stored = config.*kSection.*kMember;
    if constexpr (Unwrapped<Stored>::optional) {
      if (std::holds_alternative<std::monostate>(value)) {
        stored.reset();
        return;
      }
    }
    stored = Appears::write(value);
  };
  return result;
}

template <auto kMember>
Field in_model() {
  return field<&RunConfig::model, kMember>();
}
template <auto kMember>
Field in_dataset() {
  return field<&RunConfig::dataset, kMember>();
}
template <auto kMember>
Field in_training() {
  return field<&RunConfig::training, kMember>();
}
template <auto kMember>
Field in_lora() {
  return field<&RunConfig::lora, kMember>();
}
template <auto kMember>
Field in_evaluation() {
  return field<&RunConfig::evaluation, kMember>();
}
template <auto kMember>
Field in_output() {
  return field<&RunConfig::output, kMember>();
}
template <auto kMember>
Field in_tunix() {
  return field<&RunConfig::tunix, kMember>();
}

// A text that stands in the file as a choice, because only some words are valid.
Field only(Field text, std::vector<std::string> choices) {
  text.type = ValueType::kChoice;
  text.choices = std::move(choices);
  return text;
}

// ${HOME} anywhere, $HOME as the beginning of a folder's name.
bool holds_variable(const std::string& text) {
  for (size_t at = text.find('$'); at != std::string::npos; at = text.find('$', at + 1)) {
    const char next = at + 1 < text.size() ? text[at + 1] : '\0';
    const bool begins_a_name = at == 0 || text[at - 1] == '/';
    const bool is_letter = (next >= 'A' && next <= 'Z') || (next >= 'a' && next <= 'z') || next == '_';
    if (next == '{' || (begins_a_name && is_letter)) return true;
  }
  return false;
}

std::string path_problem(const std::string& text) {
  if (text == "~" || text.substr(0, 2) == "~/") return "~ is not expanded; write the whole path";
  if (holds_variable(text)) return "variables are not expanded; write the path itself";
  return "";
}

std::string output_problem(const std::string& text) {
  if (text.substr(0, 5) == "gs://") {
    const size_t end = text.find('/', 5);
    const size_t length = (end == std::string::npos ? text.size() : end) - 5;
    return length == 0 ? "no bucket after gs://; write gs://bucket/folder" : "";
  }
  const size_t scheme = text.find("://");
  if (scheme != std::string::npos) {
    return fmt::format("{}:// is not supported; write a folder or gs://bucket/folder", text.substr(0, scheme));
  }
  return path_problem(text);
}

std::string url_problem(const std::string& text) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (text.size() > scheme.size() && text.substr(0, scheme.size()) == scheme && text[scheme.size()] != '/') {
      return "";
    }
  }
  return "write an address such as https://api.tunix.ai/v1";
}

bool trains_lora(const RunConfig& config) { return config.lora.rank > 0; }
bool counts_examples(const RunConfig& config) { return !config.training.batch_tokens; }
bool trains_bf16_weights(const RunConfig& config) {
  return config.training.precision == Precision::kBf16 && config.lora.rank == 0;
}
bool decays(const RunConfig& config) { return config.training.lr_scheduler != Scheduler::kConstant; }

constexpr int64_t kMostSteps = 1'000'000'000;
constexpr int64_t kMostSamples = 1'000'000'000'000;
constexpr auto kGuide = SettingSource::kGuide;
constexpr auto kTunixRt = SettingSource::kTunixRt;
constexpr auto kGemmaSft = SettingSource::kGemmaSft;

std::vector<Setting> model_settings() {
  return {
      {.key = "model.base_model",
       .field = in_model<&ModelSection::base_model>(),
       .source = kGuide,
       .help = "Model to start from: the id of a Gemma 1, 1.1, 2 or 3 model on the Hugging Face "
               "hub, found in the local cache, or a folder.",
       .required = true,
       .text_problem = path_problem,
       .example = "google/gemma-3-1b-it"},
      {.key = "model.revision",
       .field = in_model<&ModelSection::revision>(),
       .source = kTunixRt,
       .help = "Commit, branch or tag of the hub model.",
       .not_given = "main",
       .refused = {{"flax", "that branch holds Flax weights, which are not read; use main"}},
       .example = "v1.1"},
      {.key = "model.max_seq_length",
       .field = in_model<&ModelSection::max_seq_length>(),
       .help = "Longest example in tokens; dataset.on_long says what becomes of longer ones.",
       .not_given = "the model's maximum or 2048, the smaller",
       .whole = WholeRange{2, 1'048'576},
       .example = "1024"},
      {.key = "model.tunix_job_config.accelerator",
       .field = in_model<&ModelSection::accelerator>(),
       .source = kGuide,
       .help = "Accelerator of a job on the Tunix service, such as tpu-v3-8.",
       .not_given = "the service chooses",
       .changes_training = false,
       .example = "tpu-v3-8"},
      {.key = "model.tunix_job_config.region",
       .field = in_model<&ModelSection::region>(),
       .source = kGuide,
       .help = "Region of a job on the Tunix service, such as us-central1.",
       .not_given = "the service chooses",
       .changes_training = false,
       .example = "us-central1"},
  };
}

std::vector<Setting> dataset_settings() {
  return {
      {.key = "dataset.manifest_path",
       .field = in_dataset<&DatasetSection::manifest_path>(),
       .source = kGuide,
       .help = "Manifest of the data set. Without dataset.data_path the rows are the file "
               "<format>.jsonl or dataset.jsonl beside it. A relative path is tried against the "
               "working directory, then against each folder above this file.",
       .not_given = "dataset.data_path is required",
       .text_problem = path_problem,
       .example = "data/manifest.json"},
      {.key = "dataset.data_path",
       .field = in_dataset<&DatasetSection::data_path>(),
       .help = "JSONL file with the training rows; found as dataset.manifest_path is. --data "
               "stands for it.",
       .not_given = "dataset.manifest_path is required",
       .text_problem = path_problem,
       .example = "data/other.jsonl"},
      {.key = "dataset.format",
       .field = in_dataset<&DatasetSection::format>(),
       .source = kGuide,
       .help = "Shape of the rows.",
       .example = "tunix_sft"},
      {.key = "dataset.validation_path",
       .field = in_dataset<&DatasetSection::validation_path>(),
       .help = "JSONL file with rows that are evaluated and never trained on.",
       .not_given = "no file",
       .changes_training = false,
       .text_problem = path_problem,
       .example = "data/validation.jsonl"},
      {.key = "dataset.validation_fraction",
       .field = in_dataset<&DatasetSection::validation_fraction>(),
       .help = "Share of the prompts, chosen by a hash of the prompt, that is kept for evaluation.",
       .number = NumberRange{.minimum = 0, .maximum = 1, .with_maximum = false},
       .example = "0.1"},
      {.key = "dataset.on_bad_record",
       .field = in_dataset<&DatasetSection::on_bad_record>(),
       .help = "A row that is not as it should be: stop before step 1 with all of them, or skip and "
               "list them in the run folder.",
       .example = "skip"},
      {.key = "dataset.on_long",
       .field = in_dataset<&DatasetSection::on_long>(),
       .help = "A row longer than model.max_seq_length: stop before step 1, skip it, or cut its end "
               "off; skipped and cut rows are listed in the run folder.",
       .example = "skip"},
      {.key = "dataset.max_samples",
       .field = in_dataset<&DatasetSection::max_samples>(),
       .help = "Use only so many rows, the first good ones of the data file. --max-samples stands for it.",
       .not_given = "all rows",
       .whole = WholeRange{1, kMostSamples},
       .example = "10"},
      {.key = "dataset.parse_control_tokens",
       .field = in_dataset<&DatasetSection::parse_control_tokens>(),
       .help = "Let text such as <start_of_turn> inside rows become control tokens, as transformers "
               "does. By default it stays text.",
       .example = "true"},
  };
}

std::vector<Setting> training_settings() {
  return {
      {.key = "training.max_steps",
       .field = in_training<&TrainingSection::max_steps>(),
       .help = "Number of optimizer steps; wins over training.num_epochs.",
       .not_given = "training.num_epochs decides",
       .whole = WholeRange{1, kMostSteps},
       .example = "7"},
      {.key = "training.num_epochs",
       .field = in_training<&TrainingSection::num_epochs>(),
       .source = kGuide,
       .help = "Passes over the data; may be a fraction.",
       .number = NumberRange{.minimum = 0, .maximum = 1e6, .with_minimum = false},
       .example = "1"},
      {.key = "training.batch_size",
       .field = in_training<&TrainingSection::batch_size>(),
       .source = kGuide,
       .help = "Examples per micro-batch, packed or padded. An optimizer step takes batch_size times "
               "gradient_accumulation_steps examples.",
       .whole = WholeRange{1, 65'536},
       .has_effect = counts_examples,
       .example = "2"},
      {.key = "training.batch_tokens",
       .field = in_training<&TrainingSection::batch_tokens>(),
       .help = "Instead of batch_size: fill each micro-batch up to this many tokens.",
       .not_given = "training.batch_size decides",
       .whole = WholeRange{2, 16'777'216},
       .example = "4096"},
      {.key = "training.gradient_accumulation_steps",
       .field = in_training<&TrainingSection::gradient_accumulation_steps>(),
       .source = kTunixRt,
       .help = "Micro-batches per optimizer step.",
       .whole = WholeRange{1, 65'536},
       .example = "2"},
      {.key = "training.learning_rate",
       .field = in_training<&TrainingSection::learning_rate>(),
       .source = kGuide,
       .help = "Peak learning rate.",
       .number = NumberRange{.minimum = 0, .maximum = 1, .with_minimum = false},
       .example = "1e-3"},
      {.key = "training.lr_scheduler",
       .field = in_training<&TrainingSection::lr_scheduler>(),
       .source = kTunixRt,
       .help = "How the learning rate falls after the warm-up.",
       .example = "cosine"},
      {.key = "training.min_lr_ratio",
       .field = in_training<&TrainingSection::min_lr_ratio>(),
       .help = "Floor of the learning rate after the warm-up, as a share of the peak.",
       .number = NumberRange{.minimum = 0, .maximum = 1},
       .has_effect = decays,
       .example = "0.1"},
      {.key = "training.warmup_steps",
       .field = in_training<&TrainingSection::warmup_steps>(),
       .source = kGuide,
       .help = "Optimizer steps over which the learning rate rises from 0 to its peak.",
       .not_given = "training.warmup_ratio decides",
       .whole = WholeRange{0, kMostSteps},
       .example = "2"},
      {.key = "training.warmup_ratio",
       .field = in_training<&TrainingSection::warmup_ratio>(),
       .source = kGuide,
       .help = "Warm-up as a share of all optimizer steps.",
       .not_given = "no warm-up unless training.warmup_steps is given",
       .number = NumberRange{.minimum = 0, .maximum = 1},
       .example = "0.5"},
      {.key = "training.weight_decay",
       .field = in_training<&TrainingSection::weight_decay>(),
       .source = kTunixRt,
       .help = "AdamW's weight decay; norm weights are left out of it.",
       .number = NumberRange{.minimum = 0, .maximum = 1},
       .example = "0.5"},
      {.key = "training.adam_beta1",
       .field = in_training<&TrainingSection::adam_beta1>(),
       .help = "AdamW's decay of the first moment.",
       .number = NumberRange{.minimum = 0, .maximum = 1, .with_maximum = false},
       .example = "0.8"},
      {.key = "training.adam_beta2",
       .field = in_training<&TrainingSection::adam_beta2>(),
       .help = "AdamW's decay of the second moment.",
       .number = NumberRange{.minimum = 0, .maximum = 1, .with_maximum = false},
       .example = "0.95"},
      {.key = "training.adam_epsilon",
       .field = in_training<&TrainingSection::adam_epsilon>(),
       .help = "AdamW's epsilon.",
       .number = NumberRange{.minimum = 0, .maximum = 1, .with_minimum = false},
       .example = "1e-4"},
      {.key = "training.max_grad_norm",
       .field = in_training<&TrainingSection::max_grad_norm>(),
       .help = "Gradients are scaled down to this global norm; 0 switches that off.",
       .number = NumberRange{.minimum = 0, .maximum = 1e9},
       .example = "0.01"},
      {.key = "training.seed",
       .field = in_training<&TrainingSection::seed>(),
       .source = kTunixRt,
       .help = "Seed of the data order, dropout and LoRA's initial weights.",
       .whole = WholeRange{0, std::numeric_limits<int64_t>::max()},
       .example = "7"},
      {.key = "training.precision",
       .field = in_training<&TrainingSection::precision>(),
       .help = "bf16_mixed computes in bf16 with fp32 master weights and moments, bf16 keeps "
               "everything in bf16.",
       .not_given = "bf16_mixed on CUDA, fp32 on the CPU",
       .refused = {{"fp16",
                    "Gemma's activations overflow half precision, whose largest value is 65504; "
                    "use bf16_mixed, bf16 or fp32"},
                   {"float16", "it is fp16, in which Gemma's activations overflow; use bf16_mixed, bf16 or fp32"},
                   {"bfloat16", "write bf16_mixed, which keeps fp32 weights beside, or bf16"},
                   {"float32", "write fp32"}},
       .example = "bf16_mixed"},
      {.key = "training.stochastic_rounding",
       .field = in_training<&TrainingSection::stochastic_rounding>(),
       .help = "With precision: bf16, round updated weights up or down at random, right on average: to the nearest, "
               "updates below a 512th of a weight are lost.",
       .has_effect = trains_bf16_weights,
       .example = "true",
       .example_needs = {"training.precision=bf16"}},
      {.key = "training.shuffle",
       .field = in_training<&TrainingSection::shuffle>(),
       .help = "Another order in each epoch, given by training.seed; false keeps the file's order.",
       .example = "false"},
      {.key = "training.packing",
       .field = in_training<&TrainingSection::packing>(),
       .help = "Lay the examples of a micro-batch end to end without padding; they do not see each "
               "other. false pads each to the longest.",
       .example = "false"},
      {.key = "training.activation_checkpointing",
       .field = in_training<&TrainingSection::activation_checkpointing>(),
       .help = "Compute each block's activations again in the backward pass: less memory, more time. auto does so "
               "for as few blocks as memory asks for.",
       .example = "true"},
      {.key = "training.deterministic",
       .field = in_training<&TrainingSection::deterministic>(),
       .help = "Use only kernels that give the same bits each time; a restart on another device, with another "
               "number of threads or another version is refused.",
       .example = "true"},
      {.key = "training.on_nonfinite",
       .field = in_training<&TrainingSection::on_nonfinite>(),
       .help = "A loss or gradient norm that is NaN or infinite: stop before the update, or skip the "
               "step, a bounded number of times.",
       .example = "skip"},
      {.key = "training.preflight",
       .field = in_training<&TrainingSection::preflight>(),
       .help = "Before the first step, run the largest micro-batch of the whole run forward and backward, so that too "
               "little memory shows now and not hours later. Changes no number of the run.",
       .changes_training = false,
       .names_run = false,
       .example = "false"},
      {.key = "training.step_timeout",
       .field = in_training<&TrainingSection::step_timeout>(),
       .help =
           "Seconds that an optimizer step may take, from its data to its update, or a micro-batch of an evaluation; "
           "what takes longer is named with what it was at, and the run ends with exit code 8.",
       .not_given = "no limit",
       .number = NumberRange{.minimum = 0, .maximum = 1e7, .with_minimum = false},
       .changes_training = false,
       .names_run = false,
       .example = "600"},
      {.key = "training.optimizer",
       .field = only(in_training<&TrainingSection::optimizer>(), {"adamw"}),
       .source = kTunixRt,
       .help = "The optimizer.",
       .refused = {{"adafactor",
                    "this trainer's optimizer is adamw, and to train with it unasked would be silent; say adamw, with "
                    "lora.rank or precision: bf16 where memory is short"},
                   {"adamw_torch", "write adamw"},
                   {"adamw_torch_fused", "write adamw"}}},
  };
}

std::vector<Setting> lora_settings() {
  return {
      {.key = "lora.rank",
       .field = in_lora<&LoraSection::rank>(),
       .help = "Rank of the LoRA matrices; 0 trains all weights.",
       .whole = WholeRange{0, 4096},
       .example = "4"},
      {.key = "lora.alpha",
       .field = in_lora<&LoraSection::alpha>(),
       .help = "LoRA's scale: its output is multiplied by alpha / rank.",
       .number = NumberRange{.minimum = 0, .maximum = 1e6, .with_minimum = false},
       .has_effect = trains_lora,
       .example = "8",
       .example_needs = {"lora.rank=4"}},
      {.key = "lora.dropout",
       .field = in_lora<&LoraSection::dropout>(),
       .help = "Dropout on LoRA's input while training.",
       .number = NumberRange{.minimum = 0, .maximum = 1, .with_maximum = false},
       .has_effect = trains_lora,
       .example = "0.5",
       .example_needs = {"lora.rank=4"}},
      {.key = "lora.target_modules",
       .field = in_lora<&LoraSection::target_modules>(),
       .help = "Linear layers that get LoRA matrices: names, module paths, or patterns with * and ?.",
       .text_problem = target_problem,
       .has_effect = trains_lora,
       .example = "[q_proj, v_proj]",
       .example_needs = {"lora.rank=4"}},
      {.key = "lora.rslora",
       .field = in_lora<&LoraSection::rslora>(),
       .help = "Scale by alpha / sqrt(rank) instead.",
       .has_effect = trains_lora,
       .example = "true",
       .example_needs = {"lora.rank=4"}},
      {.key = "lora.init_from",
       .field = in_lora<&LoraSection::init_from>(),
       .help = "PEFT folder whose matrices training continues from; rank, alpha, rslora and layers must be its own.",
       .not_given = "new matrices",
       .text_problem = path_problem,
       .has_effect = trains_lora,
       .example = "runs/adapter",
       .example_needs = {"lora.rank=4"}},
  };
}

std::vector<Setting> evaluation_settings() {
  return {
      {.key = "evaluation.every",
       .field = in_evaluation<&EvaluationSection::every>(),
       .help = "Evaluate the validation rows every so many optimizer steps.",
       .not_given = "after each epoch and at the end, where there is validation data",
       .whole = WholeRange{1, kMostSteps},
       .changes_training = false,
       .example = "1",
       .example_needs = {"dataset.validation_fraction=0.3"}},
      {.key = "evaluation.keep_best",
       .field = in_evaluation<&EvaluationSection::keep_best>(),
       .help = "Keep the checkpoint with the smallest evaluation loss and make it the final model.",
       .changes_training = false,
       .example = "true",
       .example_needs = {"dataset.validation_fraction=0.3"}},
      {.key = "evaluation.early_stopping_patience",
       .field = in_evaluation<&EvaluationSection::early_stopping_patience>(),
       .help = "Stop after so many evaluations in a row without a smaller loss.",
       .not_given = "train to the end",
       .whole = WholeRange{1, 1'000'000},
       .changes_training = false,
       .example = "1",
       .example_needs = {"dataset.validation_fraction=0.3"}},
  };
}

std::vector<Setting> output_settings() {
  return {
      {.key = "output.run_dir",
       .field = in_output<&OutputSection::run_dir>(),
       .source = kGuide,
       .help = "Parent of the run folders run_<id>, relative to the working directory, or a gs:// "
               "address. --output-dir stands for it.",
       .changes_training = false,
       .names_run = false,
       .text_problem = output_problem,
       .example = "other_runs"},
      {.key = "output.checkpoint_every",
       .field = in_output<&OutputSection::checkpoint_every>(),
       .source = kGuide,
       .help = "Optimizer steps between checkpoints; the end is always one, 0 means only there.",
       .whole = WholeRange{0, kMostSteps},
       .changes_training = false,
       .names_run = false,
       .example = "2"},
      {.key = "output.keep_checkpoints",
       .field = in_output<&OutputSection::keep_checkpoints>(),
       .help = "How many of the newest checkpoints are kept.",
       .whole = WholeRange{1, 1'000'000},
       .changes_training = false,
       .names_run = false,
       .example = "1"},
      {.key = "output.model_dtype",
       .field = in_output<&OutputSection::model_dtype>(),
       .help = "Number format of the weights in final_model/.",
       .not_given = "that of the base model's files",
       .changes_training = false,
       .names_run = false,
       .example = "bf16"},
      {.key = "output.background_save",
       .field = in_output<&OutputSection::background_save>(),
       .help = "Write checkpoints from a copy in the host's memory while training goes on; needs room for a copy of "
               "weights and moments, without it training waits. The files are the same.",
       .not_given = "on a GPU yes, on the CPU no",
       .changes_training = false,
       .names_run = false,
       .example = "true"},
      {.key = "output.log_samples",
       .field = in_output<&OutputSection::log_samples>(),
       .help = "Write the ids of the rows that each step trained on to samples.jsonl.",
       .changes_training = false,
       .names_run = false,
       .example = "false"},
  };
}

std::vector<Setting> tunix_settings() {
  return {
      {.key = "tunix.api_base_url",
       .field = in_tunix<&TunixSection::api_base_url>(),
       .source = kGuide,
       .help = "Address of the Tunix job service.",
       .not_given = "https://api.tunix.ai/v1",
       .changes_training = false,
       .text_problem = url_problem,
       .example = "https://jobs.example.org/v1"},
      {.key = "tunix.project_id",
       .field = in_tunix<&TunixSection::project_id>(),
       .source = kGuide,
       .help = "Project that the job belongs to.",
       .not_given = "TUNIX_PROJECT_ID is required to submit a job",
       .changes_training = false,
       .example = "my-project"},
      {.key = "tunix.experiment_name",
       .field = in_tunix<&TunixSection::experiment_name>(),
       .source = kGuide,
       .help = "Name under which the job is shown.",
       .not_given = "the run id",
       .changes_training = false,
       .example = "first-try"},
      {.key = "tunix.spot",
       .field = in_tunix<&TunixSection::spot>(),
       .help = "Run the job on spot capacity: cheaper, and it may be interrupted.",
       .not_given = "false",
       .changes_training = false,
       .example = "true"},
      {.key = "tunix.timeout_seconds",
       .field = in_tunix<&TunixSection::timeout_seconds>(),
       .help = "The service ends the job after so many seconds.",
       .not_given = "the service's own limit",
       .whole = WholeRange{60, 10'000'000},
       .changes_training = false,
       .example = "86400"},
      {.key = "tunix.max_cost_usd",
       .field = in_tunix<&TunixSection::max_cost_usd>(),
       .help = "A job that may cost more US dollars is not submitted, and the service stops one that gets there.",
       .not_given = "no limit",
       .number = NumberRange{0, 1e6, false, true},
       .changes_training = false,
       .example = "25.5"},
      {.key = "tunix.keep_checkpoints",
       .field = in_tunix<&TunixSection::keep_checkpoints>(),
       .help = "How many of its newest checkpoints the job keeps.",
       .not_given = "output.keep_checkpoints",
       .whole = WholeRange{1, 1'000'000},
       .changes_training = false,
       .example = "1"},
  };
}

}  // namespace

const std::vector<Setting>& settings() {
  static const std::vector<Setting> table = [] {
    std::vector<Setting> all;
    for (auto section : {model_settings, dataset_settings, training_settings, lora_settings, evaluation_settings,
                         output_settings, tunix_settings}) {
      for (Setting& setting : section()) all.push_back(std::move(setting));
    }
    return all;
  }();
  return table;
}

}  // namespace gemma_sft
