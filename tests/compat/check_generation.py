"""Compares what transformers (and peft) generate with what `gemma-sft generate` gives for the same folder.

Greedy, fp32, eager attention, on the CPU, once up to the stop token and once past it. The comparison of a prompt ends where
the two best logits are closer than GAP: there, rounding may decide.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS = pathlib.Path(__file__).resolve().parent / "rows.jsonl"
PROMPTS = [json.loads(line)["prompt"] for line in ROWS.read_text(encoding="utf-8").splitlines()]
NEW_TOKENS = 48
GAP = 1e-4
LOGITS_ABS = 1e-4


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = {key: value for key, value in info.items() if value and key != "error_msgs"}
    if problems:
        sys.exit(f"{folder}: transformers found {problems}")
    return model.eval()


def render(prompt):
    return f"<bos><start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model\n"


def reference(model, tokenizer, past_stop):
    """Tokens that transformers generates, and for each the gap between the two best logits."""
    answers = []
    for prompt in PROMPTS:
        ids = tokenizer(render(prompt), add_special_tokens=False, return_tensors="pt").input_ids
        stop = {"eos_token_id": None} if past_stop else {}
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False,
                                return_dict_in_generate=True, output_logits=True, **stop)
        gaps = [(best[0] - best[1]).item() for best in (step[0].float().topk(2).values for step in output.logits)]
        answers.append((ids[0].tolist(), output.sequences[0, ids.shape[1]:].tolist(), gaps))
    return answers


def ours(arguments, prompts, past_stop, by_ids):
    """Tokens of gemma-sft: from prompts through its own tokenizer and template, or from the reference's ids."""
    arguments.work.mkdir(exist_ok=True)
    source, target = arguments.work / "prompts.jsonl", arguments.work / "answers.jsonl"
    rows = [{"id": str(i), "input_ids": ids} if by_ids else {"id": str(i), "prompt": PROMPTS[i]}
            for i, (ids, _, _) in enumerate(prompts)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target.unlink(missing_ok=True)
    command = [arguments.bin / "gemma-sft", "generate", "--model", arguments.model, "--input", source, "--output", target,
               "--max-new-tokens", str(NEW_TOKENS), "--precision", "fp32", "--device", "cpu", "--quiet"]
    subprocess.run(command + (["--ignore-eos"] if past_stop else []), check=True)
    answers = {row["id"]: row["output_ids"] for row in map(json.loads, target.read_text().splitlines())}
    return [answers[str(i)] for i in range(len(rows))]


def compare(theirs, own, what, least):
    compared = 0
    for (_, expected, gaps), found in zip(theirs, own):
        sure = next((i for i, gap in enumerate(gaps) if gap < GAP), len(gaps))
        if sure == len(gaps) and len(found) != len(expected):
            sys.exit(f"{what}: {len(found)} tokens, transformers gives {len(expected)}: {found} / {expected}")
        if found[:sure] != expected[:sure]:
            sys.exit(f"{what}: {found[:sure]}, transformers gives {expected[:sure]}")
        compared += sure
    if compared < least:
        sys.exit(f"{what}: only {compared} tokens could be compared; the model is too undecided for a check")
    distinct = len({token for answer in own for token in answer})
    print(f"  {what}: {compared} tokens equal, {distinct} different ones among them")
    if distinct < (8 if least > len(PROMPTS) else 1):
        sys.exit(f"{what}: the model always says the same; nothing was checked")


def check_model(arguments):
    model, tokenizer = load(arguments.model), AutoTokenizer.from_pretrained(arguments.model)
    for past_stop in (False, True):
        theirs = reference(model, tokenizer, past_stop)
        when = "past the stop token" if past_stop else "up to the stop token"
        compare(theirs, ours(arguments, theirs, past_stop, by_ids=False), f"from prompts, {when}", least=40 if past_stop else len(PROMPTS))
    compare(theirs, ours(arguments, theirs, True, by_ids=True), "from ids, past the stop token", least=40)
    return model, theirs


def check_adapter(arguments, merged, theirs):
    """The adapter in peft against the merged export, and that peft uses every tensor of the file and no other."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(arguments.adapter)
    base = load(arguments.base or config.base_model_name_or_path)
    adapted = PeftModel.from_pretrained(base, arguments.adapter).eval()
    with safe_open(pathlib.Path(arguments.adapter) / "adapter_model.safetensors", "pt") as file:
        stored = {name.replace(".weight", ".default.weight"): file.get_tensor(name) for name in file.keys()}
    used = {name: value for name, value in adapted.state_dict().items() if "lora_" in name}
    if set(used) != set(stored) or not all(torch.equal(used[name], stored[name]) for name in stored):
        sys.exit(f"peft does not use the adapter's tensors as stored: {sorted(set(used) ^ set(stored))}")
    if not any(value.abs().max() > 0 for name, value in stored.items() if "lora_B" in name):
        sys.exit("the adapter is zero: nothing was checked")
    worst = 0.0
    with torch.no_grad():
        for ids, answer, _ in theirs:
            both = torch.tensor([ids + answer])
            worst = max(worst, (adapted(both).logits - merged(both).logits).abs().max().item())
    if worst > LOGITS_ABS:
        sys.exit(f"peft's logits differ from those of the merged export by {worst:.3g}")
    print(f"  in peft: {len(stored)} tensors used, logits within {worst:.2g} of the merged export")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="a folder for files in between")
    parser.add_argument("--adapter", help="a PEFT folder whose merged export --model is")
    parser.add_argument("--base", help="the adapter's base, where its config does not say it")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model, theirs = check_model(arguments)
    if arguments.adapter:
        check_adapter(arguments, model, theirs)


if __name__ == "__main__":
    main()
