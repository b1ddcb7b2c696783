#!/usr/bin/env python3
"""Do transformers and peft load what the runner exported, with nothing missing and nothing left over?

    $(tests/compat/environment.sh) tests/trainer/tunix/runner/check_transformers.py FINAL_MODEL...
    $(tests/compat/environment.sh) tests/trainer/tunix/runner/check_transformers.py --base MODEL ADAPTER MERGED

The second form compares the logits of an adapter on its base with those of the merged model. Not part of the runner's
tests: it needs the environment of tests/compat (torch, transformers, peft).
"""

from __future__ import annotations

import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

IDS = torch.tensor([[2, 5, 9, 11, 77, 200]])


def load(folder: str) -> torch.nn.Module:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {name: keys for name, keys in info.items() if keys}
    if problems:
        sys.exit(f"{folder}: {problems}")
    print(f"{folder}: loaded whole")
    return model


def main(words: list[str]) -> None:
    if words[:1] != ["--base"]:
        for folder in words:
            load(folder)
        return
    base, adapter, merged = words[1:]
    with torch.no_grad():
        adapted = PeftModel.from_pretrained(load(base), adapter)(IDS).logits
        difference = float((adapted - load(merged)(IDS).logits).abs().max())
    print(f"adapter on its base against merged: logits differ by at most {difference:.1e}")
    if difference > 1e-5:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
