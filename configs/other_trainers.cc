#include "configs/other_trainers.h"

#include <algorithm>
#include <iterator>
#include <string>

namespace gemma_sft {
namespace {

constexpr std::string_view kQuantized =
    "quantized weights are not trained; lora.rank keeps the base model in the number format of its files";
constexpr std::string_view kModelTurns = "the model's turns are trained on and nothing else; remove it";
constexpr std::string_view kMetrics = "metrics are written to metrics.jsonl in the run folder; remove it";
constexpr std::string_view kHub = "nothing is sent to the hub; remove it, and upload final_model/ afterwards";
constexpr std::string_view kKernels = "kernels are chosen by the program; remove it";
constexpr std::string_view kOneDevice = "a run is one process on one device; remove it";
constexpr std::string_view kBetas = "write training.adam_beta1 and training.adam_beta2";
constexpr std::string_view kEvery = "write evaluation.every, or nothing for once an epoch";
constexpr std::string_view kDora = "DoRA is not supported; remove it";

// In order of the names.
constexpr OtherTrainersKey kKeys[] = {
    {"adam_betas", {}, kBetas},
    {"assistant_only_loss", {}, kModelTurns},
    {"attn_implementation", {}, kKernels},
    {"betas", {}, kBetas},
    {"bf16", {}, "write training.precision: bf16_mixed"},
    {"chat_template",
     {},
     "rows are rendered by Gemma's own template; remove it, or write rows of dataset.format: tokens"},
    {"clip_grad_norm", "training.max_grad_norm", {}},
    {"completion_only_loss", {}, kModelTurns},
    {"cutoff_len", "model.max_seq_length", {}},
    {"data_files", "dataset.data_path", {}},
    {"data_seed", "training.seed", {}},
    {"dataloader_num_workers", {}, "batches are made on a thread of their own; remove it"},
    {"dataset_name", "dataset.data_path", {}},
    {"datasets", {}, "write one JSONL file as dataset.data_path"},
    {"deepspeed", {}, kOneDevice},
    {"dora", {}, kDora},
    {"dtype", "training.precision", {}},
    {"early_stopping", "evaluation.early_stopping_patience", {}},
    {"eps", "training.adam_epsilon", {}},
    {"eval_data", "dataset.validation_path", {}},
    {"eval_file", "dataset.validation_path", {}},
    {"eval_steps", "evaluation.every", {}},
    {"eval_strategy", {}, kEvery},
    {"evaluation_strategy", {}, kEvery},
    {"flash_attention", {}, kKernels},
    {"fp16", {}, "write training.precision: bf16_mixed; half precision overflows in Gemma"},
    {"fsdp", {}, kOneDevice},
    {"grad_accum", "training.gradient_accumulation_steps", {}},
    {"grad_accum_steps", "training.gradient_accumulation_steps", {}},
    {"grad_clip", "training.max_grad_norm", {}},
    {"gradient_checkpointing", "training.activation_checkpointing", {}},
    {"gradient_clip_val", "training.max_grad_norm", {}},
    {"gradient_clipping", "training.max_grad_norm", {}},
    {"hub_model_id", {}, kHub},
    {"label_smoothing_factor", {}, "label smoothing is not supported; remove it"},
    {"load_best_model_at_end", "evaluation.keep_best", {}},
    {"load_in_4bit", {}, kQuantized},
    {"load_in_8bit", {}, kQuantized},
    {"logging_dir", {}, kMetrics},
    {"lora_alpha", "lora.alpha", {}},
    {"lora_dropout", "lora.dropout", {}},
    {"lora_r", "lora.rank", {}},
    {"lora_rank", "lora.rank", {}},
    {"lora_target_modules", "lora.target_modules", {}},
    {"lr", "training.learning_rate", {}},
    {"lr_scheduler_type", "training.lr_scheduler", {}},
    {"max_length", "model.max_seq_length", {}},
    {"max_train_samples", "dataset.max_samples", {}},
    {"micro_batch_size", "training.batch_size", {}},
    {"mixed_precision", "training.precision", {}},
    {"model_name", "model.base_model", {}},
    {"model_name_or_path", "model.base_model", {}},
    {"modules_to_save", {}, "LoRA trains its matrices and nothing else; remove it"},
    {"neftune_noise_alpha", {}, "noise on the embeddings is not supported; remove it"},
    {"num_train_epochs", "training.num_epochs", {}},
    {"optim", "training.optimizer", {}},
    {"output_dir", "output.run_dir", {}},
    {"per_device_eval_batch_size", {}, "evaluation takes the batches of training.batch_size; remove it"},
    {"per_device_train_batch_size", "training.batch_size", {}},
    {"pretrained_model_name_or_path", "model.base_model", {}},
    {"push_to_hub", {}, kHub},
    {"qlora", {}, kQuantized},
    {"quantization_config", {}, kQuantized},
    {"r", "lora.rank", {}},
    {"report_to", {}, kMetrics},
    {"resume_from_checkpoint", {}, "the same command goes on with its run; train --resume DIR names a checkpoint"},
    {"sample_packing", "training.packing", {}},
    {"save_steps", "output.checkpoint_every", {}},
    {"save_total_limit", "output.keep_checkpoints", {}},
    {"scheduler", "training.lr_scheduler", {}},
    {"seq_len", "model.max_seq_length", {}},
    {"sequence_len", "model.max_seq_length", {}},
    {"test_size", "dataset.validation_fraction", {}},
    {"torch_compile", {}, kKernels},
    {"torch_dtype", "training.precision", {}},
    {"train_batch_size", "training.batch_size", {}},
    {"train_data", "dataset.data_path", {}},
    {"train_file", "dataset.data_path", {}},
    {"train_on_inputs", {}, kModelTurns},
    {"train_on_prompt", {}, kModelTurns},
    {"train_path", "dataset.data_path", {}},
    {"use_dora", {}, kDora},
    {"use_liger_kernel", {}, kKernels},
    {"use_rslora", "lora.rslora", {}},
    {"val_set_size", "dataset.validation_fraction", {}},
    {"val_split", "dataset.validation_fraction", {}},
    {"validation_file", "dataset.validation_path", {}},
    {"validation_split", "dataset.validation_fraction", {}},
    {"wandb", {}, kMetrics},
    {"wandb_project", {}, kMetrics},
    {"wd", "training.weight_decay", {}},
};

}  // namespace

std::span<const OtherTrainersKey> other_trainers_keys() { return kKeys; }

const OtherTrainersKey* find_other_trainers_key(std::string_view key) {
  constexpr size_t kLongest = 40;
  std::string name(key.substr(key.rfind('.') + 1));  // npos + 1: the whole of it
  if (name.size() > kLongest) return nullptr;
  for (char& c : name) c = c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  const auto found =
      std::lower_bound(std::begin(kKeys), std::end(kKeys), std::string_view(name),
                       [](const OtherTrainersKey& known, std::string_view asked) { return known.name < asked; });
  return found != std::end(kKeys) && found->name == name ? found : nullptr;
}

}  // namespace gemma_sft
