"""Random tiny models with unusual but legal configs, as a user would check a model of their own.

For each: a config.json in some spelling, random weights in some dtype and number of files; a case made with the script that
`gemma-sft selftest --make-script` prints; `gemma-sft selftest --case DIR --json`. Every error must be below the bars, whatever
tolerances the script wrote; every second case gets garbage where nothing counts. Where transformers refuses a config, another one is drawn.
"""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

BARS = {"logits_max_abs_err": 1e-4, "loss_abs_err": 1e-5, "grad_max_rel_err": 1e-4}
TANH = "gelu_pytorch_tanh"


def rope(rng, config, kind):
    """Thetas, and for some global layers linear scaling; in the old spelling or in the new one."""
    theta, local, factor = rng.choice([100.0, 10000, 5e4, 1e6]), rng.choice([50.0, 10000.0]), rng.choice([None, 2.0, 8.0])
    new = rng.random() < 0.5
    if kind != "gemma3_text":
        config.update({"rope_parameters": {"rope_type": "default", "rope_theta": theta}} if new else {"rope_theta": theta})
        return
    scaled = {"rope_type": "linear", "factor": factor} if factor else {"rope_type": "default"}
    if new:
        config["rope_parameters"] = {"full_attention": {**scaled, "rope_theta": theta},
                                     "sliding_attention": {"rope_type": "default", "rope_theta": local}}
        return
    config.update({"rope_theta": theta, "rope_local_base_freq": local})
    if factor:
        config["rope_scaling"] = scaled


def text_config(rng, kind):
    heads = rng.choice([1, 2, 3, 4, 6])
    layers = rng.randint(1, 7)
    config = {
        "model_type": kind, "vocab_size": rng.randint(40, 400), "hidden_size": heads * rng.choice([6, 8, 10, 16]),
        "intermediate_size": rng.choice([33, 50, 64, 128]), "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        "head_dim": rng.choice([2, 6, 8, 14, 20, 32]), "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-2]),
        "max_position_embeddings": rng.choice([16, 512, 8192]), "attention_bias": False, "attention_dropout": 0.0,
        "eos_token_id": 1, "bos_token_id": 2}
    config.update(rng.choice([{}, {"pad_token_id": 0}, {"pad_token_id": None}, {"pad_token_id": 5}]))
    rope(rng, config, kind)
    if kind == "gemma":
        config["hidden_act"] = rng.choice(["gelu", TANH])
        config.update(rng.choice([{}, {"hidden_activation": None}, {"hidden_activation": TANH}]))
        return config
    config["hidden_activation"] = TANH
    config["query_pre_attn_scalar"] = rng.choice([1, 7, config["head_dim"], 144])
    config["sliding_window"] = rng.choice([1, 2, 5, 16, 4096])
    config["final_logit_softcapping"] = rng.choice([None, 2.0, 30.0])
    config["attn_logit_softcapping"] = rng.choice([None, 3.0, 50.0]) if kind == "gemma2" else None
    if rng.random() < 0.5:
        config["layer_types"] = [rng.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]
    elif kind == "gemma3_text" and rng.random() < 0.7:
        config["sliding_window_pattern"] = rng.randint(1, 6)
    return config


def draw_config(rng):
    """(config.json, dtype)"""
    kind = rng.choice(["gemma", "gemma2", "gemma3_text", "gemma3"])
    dtype = rng.choice(["float32", "bfloat16", "float16"])
    name = rng.choice(["dtype", "torch_dtype"])
    if kind != "gemma3":
        architecture = {"gemma": "Gemma", "gemma2": "Gemma2", "gemma3_text": "Gemma3"}[kind] + "ForCausalLM"
        return text_config(rng, kind) | {"architectures": [architecture], name: dtype}, dtype
    text = text_config(rng, "gemma3_text") | {"final_logit_softcapping": None}
    if rng.random() < 0.5:
        text[name] = dtype
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 7, "vision_use_head": False}
    return {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", name: dtype, "text_config": text,
            "vision_config": vision, "boi_token_index": 37, "eoi_token_index": 38, "image_token_index": 39,
            "mm_tokens_per_image": 4, "eos_token_id": [1, 36]}, dtype


def make_model(rng, folder):
    """What was drawn, in words; None where transformers refuses the config."""
    config, dtype = draw_config(rng)
    shard = rng.choice([None, "20KB", "100KB"])
    old_names = rng.random() < 0.5
    seed = rng.randrange(1 << 30)
    text = json.dumps(config, indent=2)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text)
    try:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    except Exception as problem:
        shutil.rmtree(folder)
        print("  transformers refuses a config: %.100s" % str(problem).replace("\n", " "))
        return None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            deviation = 0.3 if value.dim() == 1 or "embed_tokens" in name else value.shape[-1] ** -0.5
            value.normal_(-1.0 if name.endswith(("model.norm.weight", "language_model.norm.weight")) else 0.0, deviation, generator=generator)
    model.to(getattr(torch, dtype)).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    if config["model_type"] == "gemma3" and old_names and not shard:  # as the published files name them, or as transformers 4.52 did
        tensors = {name.replace("language_model.model.", "model.language_model."): value.clone().contiguous()
                   for name, value in model.state_dict().items() if name != "lm_head.weight"}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(text)  # this spelling, not that of save_pretrained
    inner = config.get("text_config", config)
    return "%s, %d layers, %d/%d heads of %d in %d, %s%s" % (
        config["model_type"], inner["num_hidden_layers"], inner["num_attention_heads"], inner["num_key_value_heads"],
        inner["head_dim"], inner["hidden_size"], dtype, ", shards" if shard else "")


def write_garbage_past_lengths(case):
    """What lies past a row's length means nothing: ids of no row, masks of no meaning, logits that are no numbers."""
    path = case / "expected.safetensors"
    tensors = load_file(path)
    for row, length in enumerate(tensors["lengths"].tolist()):
        tensors["input_ids"][row, length:] = torch.tensor([-100, 1 << 40]).repeat(tensors["input_ids"].shape[1])[: tensors["input_ids"].shape[1] - length]
        tensors["loss_mask"][row, length:] = 255
        tensors["logits"][row, length:] = float("nan")
    tensors["loss_mask"][:, 0] = 1  # nothing predicts a row's first token
    tensors["something_else"] = torch.zeros(3, dtype=torch.int8)
    save_file(tensors, path)  # no metadata, too
    description = json.loads((case / "case.json").read_text())
    description["further"] = {"members": [1, 2, None]}
    (case / "case.json").write_text(json.dumps(description))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    program = arguments.bin / "gemma-sft"
    arguments.work.mkdir(parents=True, exist_ok=True)
    script = arguments.work / "make_case.py"
    script.write_text(subprocess.run([program, "selftest", "--make-script"], check=True, stdout=subprocess.PIPE, text=True).stdout)
    rng = random.Random(arguments.seed)
    worst, failures, beyond_floor, done = dict.fromkeys(BARS, 0.0), 0, 0, 0
    while done < arguments.count:
        model, case = arguments.work / ("model-%d" % done), arguments.work / ("case-%d" % done)
        what = make_model(rng, model)
        if what is None:
            continue
        length = rng.choice([2, 9, 40, 150, 300])  # attention goes by blocks of 128 queries
        subprocess.run([sys.executable, script, "--model", model, "--output", case, "--random-ids", "--length", str(length), "--seed",
                        str(done)], check=True, stdout=subprocess.DEVNULL)
        if done % 2:
            write_garbage_past_lengths(case)
        replay = subprocess.run([program, "selftest", "--case", case, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        done += 1
        result = json.loads(replay.stdout) if replay.returncode in (0, 15) else None
        if result is None or result["ok"] != (replay.returncode == 0) or any(not (result[key] is not None and result[key] <= bar) for key, bar in BARS.items()):
            failures += 1
            print("WRONG %s: exit %d %s %s" % (what, replay.returncode, replay.stdout, replay.stderr))
            continue
        for key in BARS:
            worst[key] = max(worst[key], result[key])
        beyond_floor += not result["ok"]
        if not result["ok"]:
            print("  beyond the script's own tolerances: %s: %s" % (what, replay.stderr))
        shutil.rmtree(model)
        shutil.rmtree(case)
    print("  %d random models (seed %d): %d wrong, %d beyond the tolerances of the script; largest errors %s" % (
        done, arguments.seed, failures, beyond_floor, json.dumps({key: float("%.2g" % value) for key, value in worst.items()})))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
