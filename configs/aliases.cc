#include "configs/aliases.h"

namespace gemma_sft {

const std::vector<Alias>& aliases() {
  static const std::string fixed_names = "the name is fixed, so that other tools find it";
  static const std::vector<Alias> list = {
      {.key = "model.name", .target = "model.base_model"},
      {.key = "model.model_id", .target = "model.base_model"},
      {.key = "model.max_length", .target = "model.max_seq_length"},
      {.key = "model.padding",
       .why = "rows are packed, or padded to the longest of their micro-batch "
              "(training.packing)"},
      {.key = "model.truncation", .why = "dataset.on_long says what becomes of long rows"},
      {.key = "training.num_steps", .target = "training.max_steps"},
      {.key = "training.per_device_batch_size", .target = "training.batch_size"},
      {.key = "training.max_seq_length", .target = "model.max_seq_length"},
      {.key = "training.logging_steps", .why = "every step is written to metrics.jsonl"},
      {.key = "training.save_steps", .target = "output.checkpoint_every"},
      {.key = "training.save_every_steps", .target = "output.checkpoint_every"},
      {.key = "training.device",
       .why = "the device belongs to the machine, not to the run; choose it with --device",
       .refused = {{"tpu",
                    "TPUs are reached through the Tunix job service; remove this and give a "
                    "tunix: section"}}},
      {.key = "training.dtype",
       .target = "training.precision",
       .translations = {{"float32", "fp32"}, {"bfloat16", "bf16_mixed"}, {"float16", "fp16"}}},
      {.key = "training.use_bfloat16",
       .target = "training.precision",
       .translations = {{"true", "bf16_mixed"}, {"false", "fp32"}}},
      {.key = "system_instruction", .why = "a system text belongs in the rows, as a system message in `messages`"},
      {.key = "data.format", .target = "dataset.format"},
      {.key = "data.shuffle", .target = "training.shuffle"},
      {.key = "data.shuffle_seed", .why = "training.seed gives the order of the rows"},
      {.key = "dataset.path", .target = "dataset.data_path"},
      {.key = "output.output_dir", .target = "output.run_dir"},
      {.key = "output.checkpoint_dir", .why = fixed_names + ": checkpoint-<step>/"},
      {.key = "output.save_metrics", .why = "metrics are always written"},
      {.key = "output.metrics_file", .why = fixed_names + ": metrics.jsonl"},
      {.key = "output.save_manifest", .why = "the run's manifest is always written"},
      {.key = "output.manifest_file", .why = fixed_names + ": run_manifest.json"},
      {.key = "m34_provenance", .why = "notes on where the values come from are not read"},
      {.key = "meta", .why = "notes are not read"},
      {.key = "version", .why = "there is one version of this format"},
      {.key = "runner", .why = "a tunix: section chooses the job service"},
      {.key = "mode", .why = "supervised fine-tuning is all there is", .accepted = {"sft"}},
  };
  return list;
}

const Alias* find_alias(std::string_view key) {
  for (const Alias& alias : aliases()) {
    if (alias.key == key) return &alias;
  }
  return nullptr;
}

}  // namespace gemma_sft
