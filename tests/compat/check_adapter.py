"""Adapters that peft makes, in gemma-sft: their logits as text, their training, and which of them are refused.

peft adapts the model with a random adapter and saves it. gemma-sft merges it into the base; the merged weights must be peft's
merge_and_unload, and the logits those of the adapted model. Training continues it (lora.init_from): the loss of the first step
must be peft's, and an update of rate 0 leaves the matrices as they are. What gemma-sft cannot honour it must refuse.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

LOGITS_ABS = 1e-4
LOSS_ABS = 1e-5
CASES = {
    "names of layers": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "all linear layers, rsLoRA": dict(r=3, lora_alpha=16, target_modules="all-linear", use_rslora=True),
    "a pattern, one layer in two": dict(r=2, lora_alpha=2, target_modules=r".*layers\.[02]\..*\.(up|down)_proj"),
    "names, some layers": dict(r=1, lora_alpha=5, target_modules=["o_proj", "gate_proj"], layers_to_transform=[1]),
    "all but some": dict(r=2, lora_alpha=7, target_modules="all-linear", exclude_modules=["k_proj", "down_proj"]),
    "ends of paths, gaussian": dict(r=2, lora_alpha=3, target_modules=["self_attn.q_proj", "0.mlp.up_proj"],
                                    init_lora_weights="gaussian"),
}
REFUSED = {
    "alpha_pattern": dict(target_modules=["q_proj", "v_proj"], alpha_pattern={"v_proj": 32}),
    "rank_pattern": dict(target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2}),
    "use_dora": dict(target_modules=["q_proj"], use_dora=True),
    "modules_to_save": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "bias": dict(target_modules=["q_proj"], bias="all"),
    "lora_bias": dict(target_modules=["q_proj"], lora_bias=True),
    "embed_tokens": dict(target_modules=["q_proj", "embed_tokens"]),
    "trainable_token_indices": dict(target_modules=["q_proj"], trainable_token_indices=[3]),
    "target_parameters": dict(target_modules=["q_proj"], target_parameters=["mlp.up_proj.weight"]),
    "init_lora_weights": dict(target_modules=["q_proj"], init_lora_weights="pissa"),
}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def make_adapter(model, folder, seed, settings):
    torch.manual_seed(seed)
    adapted = get_peft_model(load(model), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings)).eval()
    with torch.no_grad():
        for key, value in adapted.named_parameters():
            if "lora_B" in key:
                value.normal_(std=0.3)
    adapted.save_pretrained(str(folder))
    return adapted


def run(arguments, *words, **options):
    return subprocess.run([arguments.bin / "gemma-sft", *map(str, words), "--quiet"], stdout=subprocess.DEVNULL, **options)


def check_merged(arguments, adapted, folder, merged, ids):
    run(arguments, "export", "--input", folder, "--base", arguments.model, "--format", "merged", "--dtype", "fp32", "--output", merged,
        check=True)
    with torch.no_grad():
        expected, found, base = adapted(ids).logits, load(merged)(ids).logits, load(arguments.model)(ids).logits
    worst, effect = (found - expected).abs().max().item(), (expected - base).abs().max().item()
    if worst > LOGITS_ABS or effect < 100 * LOGITS_ABS:
        sys.exit("%s: logits differ by %.3g; the adapter moves them by %.3g" % (folder, worst, effect))
    run(arguments, "generate", "--model", arguments.model, "--adapter", folder, "--prompt", "x", "--max-new-tokens", "2", "--device", "cpu",
        check=True)
    return worst, effect


def check_continued(arguments, adapted, folder, output, ids):
    """One step of rate 0 on one row of tokens."""
    config = json.loads((folder / "adapter_config.json").read_text())
    before = load_file(folder / "adapter_model.safetensors")
    prefix, suffix = "base_model.model.", ".lora_A.weight"
    layers = [name[len(prefix):-len(suffix)] for name in before if name.endswith(suffix)]
    rows = output.parent / "one_row.jsonl"
    rows.write_text(json.dumps({"input_ids": ids[0].tolist(), "loss_mask": [0] + [1] * (ids.shape[1] - 1)}) + "\n")
    lines = ["model: {base_model: %s}" % arguments.model, "dataset: {data_path: %s, format: tokens}" % rows,
             "training: {max_steps: 1, batch_size: 1, warmup_steps: 1, learning_rate: 1e-3, precision: fp32}",
             "lora: {rank: %d, alpha: %s, rslora: %s, init_from: %s, target_modules: [%s]}" % (
                 config["r"], config["lora_alpha"], str(config["use_rslora"]).lower(), folder, ", ".join(layers)),
             "output: {checkpoint_every: 0}"]
    yaml = output.parent / "continue.yaml"
    yaml.write_text("\n".join(lines) + "\n")
    run(arguments, "train", "--config", yaml, "--device", "cpu", "--output", output, check=True)
    ours = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    with torch.no_grad():
        logits = adapted(ids).logits[0, :-1]
    theirs = torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()
    if not math.isclose(ours, theirs, abs_tol=LOSS_ABS):
        sys.exit("%s: continued with a loss of %.7f, peft has %.7f" % (folder, ours, theirs))
    after = load_file(output / "final_model" / "adapter_model.safetensors")
    if set(after) != set(before) or any((after[name] - before[name].float()).abs().max() > 0 for name in before):
        sys.exit("%s: the matrices are not those that training began with" % folder)
    changed = yaml.with_name("changed.yaml")
    changed.write_text(yaml.read_text().replace("alpha: ", "alpha: 1"))
    if run(arguments, "train", "--config", changed, "--device", "cpu", "--output", output.with_name("changed"),
           stderr=subprocess.DEVNULL).returncode != 2:
        sys.exit("%s: continued with another alpha" % folder)
    return abs(ours - theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="the base")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    pieces = len(AutoTokenizer.from_pretrained(arguments.model))
    ids = torch.tensor([[2] + [3 + number * 7 % (pieces - 3) for number in range(40)]])
    for number, (name, settings) in enumerate(CASES.items()):
        folder = arguments.work / ("peft-%d" % number)
        adapted = make_adapter(arguments.model, folder, number, settings)
        worst, effect = check_merged(arguments, adapted, folder, arguments.work / ("merged-%d" % number), ids)
        loss = check_continued(arguments, adapted, folder, arguments.work / ("continued-%d" % number), ids)
        run(arguments, "verify", folder, check=True)
        print("  made by peft, %s: logits within %.2g (the adapter moves them by %.2g), continued from a loss within %.2g" % (
            name, worst, effect, loss))
    for number, (key, settings) in enumerate(REFUSED.items()):
        folder = arguments.work / ("refused-%d" % number)
        make_adapter(arguments.model, folder, number, dict(dict(r=4, lora_alpha=8), **settings))
        for words in (["export", "--input", folder, "--base", arguments.model, "--output", arguments.work / "none"],
                      ["generate", "--model", arguments.model, "--adapter", folder, "--prompt", "x", "--device", "cpu"], ["verify", folder]):
            done = run(arguments, *words, stderr=subprocess.PIPE, text=True)
            if done.returncode != 12 or key not in done.stderr:
                sys.exit("%s with %s: exit %d, %s" % (words[0], key, done.returncode, done.stderr))
    print("  made by peft, refused by name: %s" % ", ".join(REFUSED))


if __name__ == "__main__":
    main()
