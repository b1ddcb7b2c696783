"""TRL goes on from our export, and we go on from what TRL saves.

The same rows must have the same ids and the same mask in both; the loss of the first batch that TRL trains on must be the one
that gemma-sft has on it, for our folder and for the folder that TRL saves after a few steps. That folder has a tokenizer.json
and no tokenizer.model; it has to be served by every command, and its tokenizer files must arrive in our result byte for byte.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

ROWS = pathlib.Path(__file__).resolve().parent / "rows.jsonl"
LOSS_ABS = 2e-5
STEPS = 4


def rows():
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]


def train_in_trl(model, output, steps):
    torch.manual_seed(0)
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": row["prompt"]}],
                               "completion": [{"role": "assistant", "content": row["response"]}]} for row in rows()])
    config = SFTConfig(output_dir=str(output), use_cpu=True, max_steps=steps, per_device_train_batch_size=len(data),
                       learning_rate=1e-4, lr_scheduler_type="constant", completion_only_loss=True, packing=False, bf16=False,
                       gradient_checkpointing=False, logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True,
                       max_length=None, model_init_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    trainer = SFTTrainer(model=str(model), args=config, train_dataset=data)
    trainer.train()
    trainer.save_model(str(output))
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    tokenised = [{"input_ids": row["input_ids"], "mask": mask_of(row)} for row in trainer.train_dataset]
    return losses, tokenised


def mask_of(row):
    if "labels" in row:
        return [int(label != -100) for label in row["labels"]]
    return row["completion_mask"]


def exact_loss(model, dataset):
    """TRL's logs round; the same batch again, over the targets that TRL's mask names."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    total, targets = 0.0, 0
    with torch.no_grad():
        for row in dataset:
            ids = torch.tensor([row["input_ids"]])
            nll = -network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            mask = torch.tensor(row["mask"][1:], dtype=torch.bool)
            total, targets = total + nll[mask].double().sum().item(), targets + int(mask.sum())
    return total / targets


def run(arguments, *command):
    return subprocess.run([arguments.bin / "gemma-sft", *map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def first_loss(arguments, model, output):
    config = arguments.work / "one_step.yaml"
    config.write_text("dataset: {data_path: %s}\ntraining: {max_steps: 2, batch_size: %d, learning_rate: 1e-4, precision: fp32}\n"
                      "output: {checkpoint_every: 0}\n" % (ROWS, len(rows())))
    run(arguments, "train", "--config", config, "--device", "cpu", "--set", "model.base_model=%s" % model, "--output", output,
        "--quiet")
    return json.loads((output / "metrics.jsonl").read_text().splitlines()[0])["loss"]


def check_tokens(arguments, model, dataset):
    target = arguments.work / (model.name + "-tokens.jsonl")
    run(arguments, "tokenize", "--model", model, "--input", ROWS, "--output", target, "--quiet")
    ours = [json.loads(line) for line in target.read_text().splitlines()]
    if len(ours) != len(dataset):
        sys.exit("%d rows tokenised, TRL has %d" % (len(ours), len(dataset)))
    for row, other in zip(ours, dataset):
        if row["input_ids"] != other["input_ids"] or row["loss_mask"] != other["mask"]:
            sys.exit("row %s: ids %s, TRL has %s; mask %s, TRL has %s" % (row["id"], row["input_ids"], other["input_ids"],
                                                                        row["loss_mask"], other["mask"]))
    print("  %d rows: ids and completion masks are TRL's (%d tokens, %d of them targets)" % (
        len(ours), sum(len(row["input_ids"]) for row in ours), sum(sum(row["loss_mask"]) for row in ours)))


def check_loss(what, ours, exact, logged):
    if abs(ours - exact) > LOSS_ABS or abs(logged - exact) > 1e-3 * max(1, exact):
        sys.exit("%s: loss %.7f, the reference has %.7f (TRL logged %.4f)" % (what, ours, exact, logged))
    print("  %s: first loss %.6f, within %.1g of the reference; TRL logged %.4f" % (what, ours, abs(ours - exact), logged))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a final_model that gemma-sft wrote")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    saved = arguments.work / "from-trl"
    losses, dataset = train_in_trl(arguments.model, saved, STEPS)
    check_tokens(arguments, arguments.model, dataset)
    check_loss("TRL goes on from ours", first_loss(arguments, arguments.model, arguments.work / "ours"),
               exact_loss(arguments.model, dataset), losses[0])
    if not losses[-1] < losses[0]:
        sys.exit("TRL's loss does not fall from our export: %s" % losses)

    if (saved / "tokenizer.model").exists() or not (saved / "tokenizer.json").exists():
        sys.exit("TRL saved other files than expected: %s" % sorted(path.name for path in saved.iterdir()))
    again, dataset = train_in_trl(saved, arguments.work / "again", 1)
    check_tokens(arguments, saved, dataset)
    ours = arguments.work / "from-theirs"
    check_loss("we go on from TRL's", first_loss(arguments, saved, ours), exact_loss(saved, dataset), again[0])
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (saved / name).exists() and (ours / "final_model" / name).read_bytes() != (saved / name).read_bytes():
            sys.exit("%s changed on its way" % name)
    if (ours / "final_model" / "tokenizer.model").exists():
        sys.exit("a tokenizer.model came from nowhere")
    # The other commands, on the folder without tokenizer.model.
    run(arguments, "generate", "--model", ours / "final_model", "--prompt", rows()[0]["prompt"], "--max-new-tokens", "4",
        "--device", "cpu", "--quiet")
    run(arguments, "explain", "--config", arguments.work / "one_step.yaml", "--set", "model.base_model=%s" % saved, "--row", "1")
    AutoTokenizer.from_pretrained(ours / "final_model")
    print("  generate and explain: served without tokenizer.model; tokenizer files kept byte for byte")


if __name__ == "__main__":
    main()
