"""One trainer of the Hugging Face stack, stepping when told: the other side of side_by_side.py.

Reads lines "N" from stdin, takes N optimizer steps for each and answers with one JSON line of their losses. The first answer
comes by itself, after the first step.
"""

import argparse
import json
import os
import sys

DTYPES = {"fp32": "float32", "bf16_mixed": "float32", "bf16": "bfloat16"}


class Turns:
    """What the trainer has to do, as the other process says it. Answers go to the stdout of before; prints go to stderr."""

    def __init__(self):
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.left = 1
        self.losses = []

    def finished_step(self, loss):
        self.losses.append(loss)
        self.left -= 1
        if self.left > 0:
            return
        print(json.dumps(self.losses), file=self.answers, flush=True)
        self.losses = []
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        self.left = int(line)


def rows_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["input_ids"] for line in file]


def plain_loop(arguments, turns):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=DTYPES[arguments.precision],
                                                 attn_implementation=arguments.attention)
    model.train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": arguments.weight_decay},
                                   {"params": others, "weight_decay": 0.0}], lr=arguments.rate, fused=True)
    forward = torch.compile(model) if arguments.compile else model
    mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.precision == "bf16_mixed")
    batches = [torch.tensor([row]) for row in rows_of(arguments.rows)]
    while True:
        for ids in batches:
            with mixed:
                loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            turns.finished_step(loss.item())


def trl(arguments, turns):
    import torch
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(arguments.threads)

    class InTurns(TrainerCallback):
        def on_log(self, _arguments, _state, _control, logs=None, **_rest):
            if "loss" in logs:
                turns.finished_step(float(logs["loss"]))

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

    config = SFTConfig(output_dir=os.path.join(arguments.scratch, "trl"), use_cpu=True, max_steps=10**6,
                       per_device_train_batch_size=1, learning_rate=arguments.rate, lr_scheduler_type="constant", warmup_steps=0,
                       weight_decay=arguments.weight_decay, max_grad_norm=1.0, optim="adamw_torch_fused", packing=False,
                       max_length=None, gradient_checkpointing=False, bf16=arguments.precision == "bf16_mixed", logging_steps=1,
                       save_strategy="no", report_to=[], disable_tqdm=True, dataloader_num_workers=0,
                       model_init_kwargs={"dtype": DTYPES[arguments.precision], "attn_implementation": arguments.attention})
    trainer = InOrder(model=arguments.model, args=config, callbacks=[InTurns()],
                      train_dataset=Dataset.from_list([{"input_ids": row} for row in rows_of(arguments.rows)]))
    trainer.train()


def products(arguments, turns):
    """No trainer: the rate of a 2048^3 matrix product, in GFLOP/s, as "losses": fp32, bf16."""
    import time

    import torch

    torch.set_num_threads(arguments.threads)
    size, pairs = 2048, []
    for dtype in (torch.float32, torch.bfloat16):
        pairs.append((torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)))
    while True:
        best = []
        for a, b in pairs:
            times = []
            for _ in range(6):
                start = time.perf_counter()
                torch.mm(a, b)
                times.append(time.perf_counter() - start)
            best.append(2 * size**3 / min(times) / 1e9)
        turns.finished_step(best)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainer", choices=("plain", "trl", "products"), required=True)
    parser.add_argument("--model")
    parser.add_argument("--rows")
    parser.add_argument("--scratch")
    parser.add_argument("--precision", choices=tuple(DTYPES))
    parser.add_argument("--attention", choices=("eager", "sdpa"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    {"plain": plain_loop, "trl": trl, "products": products}[arguments.trainer](arguments, Turns())


if __name__ == "__main__":
    main()
