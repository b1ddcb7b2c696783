"""One row of the other side: trains a model with TRL's SFTTrainer on ready-made tokens and prints one JSON line of what it
took. compare.py starts it; each row is a process of its own."""

import argparse
import json
import os
import sys
import time

BEGIN = time.time()

# What each row changes. The rest is the same for all: fused AdamW, clipping at 1, TRL's own chunked loss, TF32 on.
# models: the model_type that the row can be had for, where that is not all.
ROWS = {
    "eager": {"attention": "eager"},
    "sdpa": {"attention": "sdpa"},
    "sdpa+compile": {"attention": "sdpa", "compile": True},
    "sdpa+liger": {"attention": "sdpa", "liger": True},
    "sdpa+liger+compile": {"attention": "sdpa", "liger": True, "compile": True},
    "sdpa+cce": {"attention": "sdpa", "cce": True, "models": ("gemma2",)},  # cce_patch knows no other Gemma
    "flash": {"attention": "flash_attention_2", "padding_free": True},
    "flash+liger": {"attention": "flash_attention_2", "padding_free": True, "liger": True},
    "unsloth": {"unsloth": True},
}
DTYPES = {"fp32": "float32", "bf16_mixed": "float32", "bf16": "bfloat16"}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=tuple(ROWS), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True, help="JSON lines with input_ids and loss_mask")
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--precision", choices=tuple(DTYPES), required=True)
    parser.add_argument("--lora-rank", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--accumulation", type=int, required=True)
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    return parser.parse_args()


def dataset_of(path):
    from datasets import Dataset

    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return Dataset.from_list([{"input_ids": row["input_ids"],
                               "labels": [i if m else -100 for i, m in zip(row["input_ids"], row["loss_mask"])]}
                              for row in rows])


def model_of(arguments, row):
    import torch

    if row.get("unsloth"):
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(arguments.model, dtype=getattr(torch, DTYPES[arguments.precision]),
                                                     load_in_4bit=False, full_finetuning=arguments.lora_rank == 0)
        if arguments.lora_rank:
            model = FastLanguageModel.get_peft_model(model, r=arguments.lora_rank, lora_alpha=2 * arguments.lora_rank,
                                                     lora_dropout=0, target_modules=LINEARS)
        return model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, DTYPES[arguments.precision]),
                                                 attn_implementation=row["attention"])
    if row.get("cce"):
        from cut_cross_entropy.transformers import cce_patch

        model = cce_patch(model)
    return model


def main():
    arguments = parse()
    row = ROWS[arguments.row]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    on_gpu = arguments.device == "cuda"

    def wait():
        if on_gpu:
            torch.cuda.synchronize()

    class Clock(TrainerCallback):
        """Waits for the device at the first step, where the timed window begins and where it ends; nowhere else."""

        def __init__(self):
            self.losses, self.first, self.begin, self.end = [], None, None, None

        def on_step_end(self, _arguments, state, _control, **_rest):
            if state.global_step in (1, arguments.warm_up, arguments.warm_up + arguments.steps):
                wait()
                now = time.time()
                if state.global_step == 1:
                    self.first = now
                if state.global_step == arguments.warm_up:
                    self.begin = now
                if state.global_step == arguments.warm_up + arguments.steps:
                    self.end = now

        def on_log(self, _arguments, _state, _control, logs=None, **_rest):
            if "loss" in logs:
                self.losses.append(float(logs["loss"]))

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

    peft_config = None
    if arguments.lora_rank and not row.get("unsloth"):
        from peft import LoraConfig

        peft_config = LoraConfig(r=arguments.lora_rank, lora_alpha=2 * arguments.lora_rank, lora_dropout=0.0,
                                 target_modules=LINEARS, task_type="CAUSAL_LM")
    config = SFTConfig(output_dir=os.path.join(arguments.scratch, "trl"), use_cpu=not on_gpu,
                       max_steps=arguments.warm_up + arguments.steps, per_device_train_batch_size=arguments.batch,
                       gradient_accumulation_steps=arguments.accumulation, learning_rate=arguments.rate,
                       lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.01, max_grad_norm=1.0,
                       optim="adamw_torch_fused", packing=False, max_length=None, padding_free=row.get("padding_free", False),
                       gradient_checkpointing=arguments.recompute, bf16=arguments.precision == "bf16_mixed",
                       tf32=True if on_gpu else None, use_liger_kernel=row.get("liger", False),
                       torch_compile=row.get("compile", False),
                       logging_steps=min(10, arguments.warm_up + arguments.steps) if on_gpu else 1, save_strategy="no",
                       report_to=[], disable_tqdm=True, dataloader_num_workers=4 if on_gpu else 0,
                       dataloader_pin_memory=on_gpu)
    clock = Clock()
    trainer = InOrder(model=model_of(arguments, row), args=config, callbacks=[clock], peft_config=peft_config,
                      train_dataset=dataset_of(arguments.rows))
    trainer.train()
    import trl
    import transformers

    result = {"first_step_s": clock.first - BEGIN, "seconds": clock.end - clock.begin, "losses": clock.losses,
              "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}}
    if on_gpu:
        result["peak_allocated"] = torch.cuda.max_memory_allocated()
        result["peak_reserved"] = torch.cuda.max_memory_reserved()
    print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    sys.exit(main())
