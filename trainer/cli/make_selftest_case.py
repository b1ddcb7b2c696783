#!/usr/bin/env python3
"""Makes a case for `gemma-sft selftest` from a Gemma model of yours: what Hugging Face transformers computes with it.

    python3 -m venv case-env
    case-env/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 sentencepiece==0.2.3
    gemma-sft selftest --make-script > make_case.py
    case-env/bin/python make_case.py --model MODEL_DIR --output my_case
    gemma-sft selftest --case my_case

The model is loaded in fp32, also where its files are bf16 (that loses nothing), with eager attention on the CPU, as
`gemma-sft selftest` loads it. Memory: 4 bytes per parameter, and some for the texts (Gemma 2B: about 12 GB, 7B: 36 GB).
Gradients go to the disk one by one as they are made: 4 bytes per parameter there, too, or almost nothing with --gradients
norms. Replaying the case takes 8 bytes per parameter. model/ is a link to MODEL_DIR unless --copy is given.

The tolerances are FLOORS times the noise floor: how far the results move when every weight moves by one unit in its last
place, up or down by a seeded coin. That costs a second pass.
"""

import argparse
import json
import os
import pathlib
import shutil
import struct
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

PINNED = {"torch": "2.11.0", "transformers": "5.23.0"}
FLOORS = 4.0
EPSILON = torch.finfo(torch.float32).eps
TEXTS = [
    "<start_of_turn>user\nReverse the list: river stone apple<end_of_turn>\n<start_of_turn>model\nAnswer: apple stone river"
    "<end_of_turn>\n",
    "<start_of_turn>user\nHow many days has a leap year?<end_of_turn>\n<start_of_turn>model\n366, one more than others."
    "<end_of_turn>\n",
    "A short line.",
]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a Hugging Face model folder")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the case folder; must not exist")
    parser.add_argument("--texts", nargs="+", default=TEXTS, help="texts to compute on, one row each (default: three)")
    parser.add_argument("--length", type=int, default=64, help="cut texts after this many tokens (default: 64)")
    parser.add_argument("--random-ids", action="store_true", help="three rows of random tokens instead: no tokenizer needed")
    parser.add_argument("--gradients", choices=["all", "norms"], default="all", help="which to record (default: all)")
    parser.add_argument("--name", help="name of the case (default: that of the model folder)")
    parser.add_argument("--seed", type=int, default=1, help="of the loss mask, random ids and the noise floor (default: 1)")
    parser.add_argument("--copy", action="store_true", help="copy the model into the case instead of linking to it")
    return parser.parse_args()


def load_model(folder):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(problem):
            sys.exit(f"{folder}: transformers found {problem}: {sorted(map(str, info[problem]))[:8]}")
    return model.eval()


def token_rows(arguments, vocabulary, generator):
    if arguments.random_ids:
        lengths = [arguments.length, max(2, arguments.length * 2 // 3), max(2, arguments.length // 3)]
        return [torch.randint(0, vocabulary, (length,), generator=generator).tolist() for length in lengths]
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows = []
    for text in arguments.texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        rows.append(([tokenizer.bos_token_id] + ids)[: arguments.length])
        if len(rows[-1]) < 2 or max(rows[-1]) >= vocabulary:
            sys.exit(f"{text!r}: gives {len(rows[-1])} tokens up to id {max(rows[-1])}; needed are 2 or more below {vocabulary}")
    return rows


def make_batch(rows, generator):
    time = max(map(len, rows))
    ids = torch.zeros(len(rows), time, dtype=torch.int64)
    mask = torch.zeros(len(rows), time, dtype=torch.uint8)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, 1 : len(row)] = (torch.rand(len(row) - 1, generator=generator) < 0.6).to(torch.uint8)
        mask[i, len(row) - 1] = 1
    return {"input_ids": ids, "lengths": torch.tensor([len(row) for row in rows]), "loss_mask": mask}


class SafetensorsWriter:
    """A safetensors file whose tensors are filled in one by one, so that they need not be in memory together."""

    DTYPES = {torch.int64: "I64", torch.uint8: "U8", torch.float32: "F32"}

    def __init__(self, path, shapes):
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, (dtype, shape) in shapes.items():
            begin, end = end, end + dtype.itemsize * torch.Size(shape).numel()
            header[name] = {"dtype": self.DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.offsets = {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}
        self.file = open(path, "wb")
        self.file.write(struct.pack("<Q", len(text)) + text)
        self.file.truncate(8 + len(text) + end)

    def write(self, name, tensor):
        self.file.seek(self.offsets.pop(name))
        self.file.write(memoryview(tensor.detach().contiguous().reshape(-1).numpy()).cast("B"))

    def close(self):
        self.file.close()
        if self.offsets:
            sys.exit(f"no value was made for {sorted(self.offsets)[:8]}")


def run(model, batch, take_gradient):
    """Logits and loss; each gradient goes to take_gradient(name, tensor) and is gone."""
    hooks = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue

        def hook(parameter, name=name):
            take_gradient(name, parameter.grad)
            parameter.grad = None

        hooks.append(parameter.register_post_accumulate_grad_hook(hook))
    attention = (torch.arange(batch["input_ids"].shape[1])[None] < batch["lengths"][:, None]).long()
    logits = model(input_ids=batch["input_ids"], attention_mask=attention, use_cache=False).logits
    targets = batch["loss_mask"][:, 1:].bool()
    chosen = logits[:, :-1][targets]
    nll = torch.nn.functional.cross_entropy(chosen, batch["input_ids"][:, 1:][targets], reduction="sum")
    loss = nll / targets.sum()
    loss.backward()
    for hook in hooks:
        hook.remove()
    logits = logits.detach()
    for row, length in enumerate(batch["lengths"].tolist()):
        logits[row, length:] = 0  # places past a length mean nothing
    return logits, loss.detach()


def move_by_one_ulp(model, generator):
    with torch.no_grad():
        for parameter in model.parameters():
            for part in parameter.view(-1).split(1 << 24):
                up = torch.rand(part.shape, generator=generator) < 0.5
                to = torch.where(up, torch.tensor(float("inf")), torch.tensor(float("-inf")))
                part.copy_(torch.nextafter(part, to))


def main():
    arguments = parse_arguments()
    if arguments.output.exists():
        sys.exit(f"--output {arguments.output}: exists already")
    if arguments.length < 2:
        sys.exit("--length: at least 2")
    for name, module in (("torch", torch), ("transformers", transformers)):
        found = module.__version__.split("+")[0]
        if found != PINNED[name]:
            print(f"note: {name} is {found}; this script was checked with {PINNED[name]}", file=sys.stderr)
    model = load_model(arguments.model)
    for name, parameter in model.named_parameters():
        text = not any(part in name for part in ("vision_tower", "multi_modal_projector"))
        parameter.requires_grad_(text and (arguments.gradients == "all" or parameter.dim() == 1))
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(arguments.seed)
    batch = make_batch(token_rows(arguments, vocabulary, generator), generator)

    arguments.output.mkdir(parents=True)
    if arguments.copy:
        shutil.copytree(arguments.model, arguments.output / "model")
    else:
        (arguments.output / "model").symlink_to(arguments.model.resolve(), target_is_directory=True)
    path = arguments.output / "expected.safetensors"
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in batch.items()}
    shapes["logits"] = (torch.float32, (*batch["input_ids"].shape, vocabulary))
    shapes["loss"] = (torch.float32, ())
    shapes |= {f"grad.{name}": (torch.float32, p.shape) for name, p in model.named_parameters() if p.requires_grad}
    writer = SafetensorsWriter(path, shapes)
    finite = []

    def keep(name, gradient):
        finite.append(bool(gradient.isfinite().all()))
        writer.write(f"grad.{name}", gradient)

    logits, loss = run(model, batch, keep)
    if not (all(finite) and logits.isfinite().all() and loss.isfinite()):
        sys.exit("the reference has numbers that are not finite; there is nothing to compare with")
    for name, tensor in {**batch, "logits": logits, "loss": loss}.items():
        writer.write(name, tensor)
    writer.close()

    move_by_one_ulp(model, generator)
    floor = {"grad_rel": 0.0}
    with safe_open(path, "pt") as reference:

        def compare(name, gradient):
            expected = reference.get_tensor(f"grad.{name}")
            moved = ((gradient - expected).abs().max() / (expected.abs().max() + 1e-12)).item()
            floor["grad_rel"] = max(floor["grad_rel"], moved)

        moved_logits, moved_loss = run(model, batch, compare)
        floor["logits_abs"] = (moved_logits - reference.get_tensor("logits")).abs().max().item()
    # One coin toss can leave the loss where it was: at least a unit in its last place.
    floor["loss_abs"] = max((moved_loss - loss).abs().item(), EPSILON * loss.item())
    keys = ("logits_abs", "loss_abs", "grad_rel")
    case = {
        "name": arguments.name or arguments.model.resolve().name,
        "tolerances": {key: float(f"{FLOORS * floor[key]:.3g}") for key in keys},
        "noise_floor": {key: float(f"{floor[key]:.3g}") for key in keys},
        "made_with": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
    }
    (arguments.output / "case.json").write_text(json.dumps(case, indent=2) + "\n")
    print(f"{arguments.output}: {len(batch['lengths'])} rows, loss {loss.item():.6f}, tolerances {case['tolerances']}")


if __name__ == "__main__":
    main()
