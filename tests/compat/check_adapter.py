"""An adapter that peft makes, in gemma-sft: its logits as text and its training.

peft adapts the model with a random adapter and saves it. gemma-sft merges it into the base; the merged weights must be peft's
merge_and_unload, and the logits those of the adapted model.
"""

import argparse
import pathlib
import subprocess
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

LOGITS_ABS = 1e-4
CASES = {
    "names of layers": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "all linear layers, rsLoRA": dict(r=3, lora_alpha=16, target_modules="all-linear", use_rslora=True),
    "a pattern, one layer in two": dict(r=2, lora_alpha=2, target_modules=r".*layers\.[02]\..*\.(up|down)_proj"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="the base")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    ids = torch.tensor([[2] + list(range(300, 340))])
    for number, (name, settings) in enumerate(CASES.items()):
        torch.manual_seed(number)
        load = lambda folder: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        adapted = get_peft_model(load(arguments.model), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **settings)).eval()
        with torch.no_grad():
            for key, value in adapted.named_parameters():
                if "lora_B" in key:
                    value.normal_(std=0.3)
        folder, merged = arguments.work / ("peft-%d" % number), arguments.work / ("merged-%d" % number)
        adapted.save_pretrained(str(folder))
        subprocess.run([arguments.bin / "gemma-sft", "export", "--input", folder, "--base", arguments.model, "--format", "merged",
                        "--dtype", "fp32", "--output", merged, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        with torch.no_grad():
            expected, found, base = adapted(ids).logits, load(merged)(ids).logits, load(arguments.model)(ids).logits
        worst, effect = (found - expected).abs().max().item(), (expected - base).abs().max().item()
        if worst > LOGITS_ABS or effect < 100 * LOGITS_ABS:
            sys.exit("%s: logits differ by %.3g; the adapter moves them by %.3g" % (name, worst, effect))
        subprocess.run([arguments.bin / "gemma-sft", "generate", "--model", arguments.model, "--adapter", folder, "--prompt", "x",
                        "--max-new-tokens", "2", "--device", "cpu", "--quiet"], check=True, stdout=subprocess.DEVNULL)
        print("  made by peft, %s: logits within %.2g (the adapter moves them by %.2g)" % (name, worst, effect))


if __name__ == "__main__":
    main()
