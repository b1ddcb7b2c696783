"""Makes the golden cases: tiny random Gemma models, and what Hugging Face transformers computes with them.

One command (its own virtual environment, kept in the cache folder):  tests/golden/generate.sh [CASE...]

A case is a folder:
  model/                a Hugging Face model folder, as transformers reads it
  case.json             name; tolerances; noise_floor: how far the results move when every weight moves by one unit in
                        the last place, up or down by a seeded coin, at most, of COINS tosses; details: how far the logits move when one detail of the
                        model is taken away, at least 10 times the tolerance each
  expected.safetensors  input_ids int64 [batch, time], lengths int64 [batch], loss_mask uint8 [batch, time] (1: the token
                        itself is a target), logits fp32 [batch, time, vocabulary], loss fp32 (mean over the targets) and
                        grad.<parameter> for every parameter of the text model, by Hugging Face's names
                        (these three are what `gemma-sft selftest` replays; what follows is for the tests of gemma-sft)
  training.safetensors  a run of transformers' Trainer, see training.py; its settings, floors and details in case.json
  adapter/              a PEFT folder, and lora.safetensors: a run from it
and in case.json also greedy (prompts and what transformers' generate makes of them) and bf16 (what bf16 costs transformers).

fp32 arithmetic, eager attention, one thread. Weights are nowhere trivial: the weights of norms are not zero.
"""

import copy
import json
import pathlib
import re
import shutil
import sys
import tempfile

import peft
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

import bf16
import greedy
import tokens
import training

HERE = pathlib.Path(__file__).resolve().parent
BARS = {"logits_abs": 1e-4, "loss_abs": 1e-5, "grad_rel": 1e-4}
TRAINING_BARS = {"loss_abs": 1e-4, "grad_norm_rel": 1e-4, "weights_abs": 2e-4, "merged_logits_abs": 1e-4}
FLOORS = 3.0  # a tolerance is this many times the noise floor, and never above the bar
COINS = 8  # the noise floor is the largest move of so many tosses: one toss can miss a weight that Adam makes much of
LENGTHS = [24, 17, 9]

COMMON = {"initializer_range": 0.02, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "use_cache": True,
          "attention_bias": False, "attention_dropout": 0.0}

# Gemma 1 as published: "gelu" means tanh-gelu, one KV head.
GEMMA_1_MQA = COMMON | {
    "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "torch_dtype": "float32", "vocab_size": 96,
    "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1,
    "head_dim": 8, "hidden_act": "gelu", "max_position_embeddings": 128, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
    "rope_scaling": None}

# As many KV heads as heads, head_dim x heads != hidden, other eps and theta; new spelling.
GEMMA_1_MHA = COMMON | {
    "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "dtype": "bfloat16", "vocab_size": 96,
    "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 3, "num_key_value_heads": 3,
    "head_dim": 16, "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 128, "rms_norm_eps": 0.01,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "tie_word_embeddings": True}

# Soft-caps that bite, a window shorter than the text, query_pre_attn_scalar != head_dim, two heads per KV head.
GEMMA_2 = COMMON | {
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "torch_dtype": "float32", "vocab_size": 96,
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 12, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 128, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "query_pre_attn_scalar": 20,
    "sliding_window": 7, "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0, "cache_implementation": "hybrid"}

# QK-norm, five local layers and a global one, two thetas, linear scaling on the global layer; the published spelling. The
# texts use ids below 100: more rows than pieces.
GEMMA_3 = COMMON | {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "torch_dtype": "bfloat16", "vocab_size": 112,
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 12, "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 128, "rms_norm_eps": 1e-06,
    "rope_theta": 20000.0, "rope_local_base_freq": 100.0, "rope_scaling": {"factor": 4.0, "rope_type": "linear"},
    "sliding_window": 6, "sliding_window_pattern": 6, "query_pre_attn_scalar": 10, "attn_logit_softcapping": None,
    "final_logit_softcapping": None, "cache_implementation": "hybrid"}

# An image-text checkpoint: the text model's keys inside text_config, its tensors beside those of the vision tower.
GEMMA_3_IMAGE_TEXT = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "dtype": "float32",
    "boi_token_index": 60, "eoi_token_index": 61, "image_token_index": 62, "mm_tokens_per_image": 4,
    "initializer_range": 0.02, "eos_token_id": [1, 59],
    "text_config": COMMON | {
        "model_type": "gemma3_text", "dtype": "float32", "vocab_size": 64, "hidden_size": 24, "intermediate_size": 48,
        "num_hidden_layers": 6, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8,
        "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 128, "rms_norm_eps": 1e-06,
        "layer_types": ["sliding_attention", "full_attention"] * 3, "sliding_window": 5, "query_pre_attn_scalar": 8,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 200.0}}},
    "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
                      "num_attention_heads": 2, "image_size": 28, "patch_size": 7, "vision_use_head": False}}

# name -> (config, the highest id of the texts + 1, shard size or None)
CASES = {
    "gemma-1-mqa": (GEMMA_1_MQA, 96, None),
    "gemma-1-mha-bf16": (GEMMA_1_MHA, 96, None),
    "gemma-2-sharded": (GEMMA_2, 96, "40KB"),
    "gemma-3-bf16": (GEMMA_3, 100, None),
    "gemma-3-image-text": (GEMMA_3_IMAGE_TEXT, 59, None),
}

# The settings of transformers' TrainingArguments; max_grad_norm lies among the norms of the run.
ADAMW = {"learning_rate": 2e-3, "weight_decay": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
LINEAR = {"lr_scheduler_type": "linear", "warmup_steps": 4}
COSINE = {"lr_scheduler_type": "cosine", "warmup_steps": 3}
COSINE_TO_FLOOR = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "warmup_steps": 5}
TRAINING = {
    "gemma-1-mqa": ADAMW | LINEAR | {"max_grad_norm": 2.4},
    "gemma-1-mha-bf16": ADAMW | COSINE | {"max_grad_norm": 2.8, "adam_beta2": 0.95},
    "gemma-2-sharded": ADAMW | COSINE_TO_FLOOR | {"max_grad_norm": 4.6},
    "gemma-3-bf16": ADAMW | LINEAR | {"max_grad_norm": 6.6, "warmup_steps": 1},
    "gemma-3-image-text": ADAMW | COSINE | {"max_grad_norm": 6.0, "adam_beta1": 0.8},
}
EVERY_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = {
    "gemma-1-mqa": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]},
    "gemma-1-mha-bf16": {"r": 2, "lora_alpha": 8, "target_modules": EVERY_LINEAR, "use_rslora": True},
    "gemma-2-sharded": {"r": 3, "lora_alpha": 5, "target_modules": ["o_proj", "gate_proj", "up_proj", "down_proj"]},
    "gemma-3-bf16": {"r": 4, "lora_alpha": 12, "target_modules": EVERY_LINEAR},
    "gemma-3-image-text": {"r": 2, "lora_alpha": 7,
                           "target_modules": r".*language_model.*\.(q_proj|k_proj|up_proj)"},  # not the vision tower
}
LORA_CLIP = {"gemma-1-mqa": 0.42, "gemma-1-mha-bf16": 5.3, "gemma-2-sharded": 2.1, "gemma-3-bf16": 6.5, "gemma-3-image-text": 3.2}


def text_part(config):
    return config.get("text_config", config)


def build(config, folder):
    """The model that transformers makes of this config.json."""
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    read = AutoConfig.from_pretrained(folder)
    return AutoModelForCausalLM.from_config(read, attn_implementation="eager", dtype=torch.float32).eval()


def randomize(model, generator):
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if name.endswith(("model.norm.weight", "language_model.norm.weight")):
                # Scales of either sign: with a tied head a model would otherwise say its own token over and over.
                parameter.normal_(-1.0, 1.0, generator=generator)
            elif parameter.dim() == 1:
                parameter.normal_(0.0, 0.3, generator=generator)
            elif "embed_tokens" in name:
                parameter.normal_(0.0, 0.3, generator=generator)
            else:
                parameter.normal_(0.0, 1.0 / parameter.shape[-1] ** 0.5, generator=generator)


def make_batch(ids_below, seed):
    generator = torch.Generator().manual_seed(seed)
    time = max(LENGTHS)
    ids = torch.randint(3, ids_below, (len(LENGTHS), time), generator=generator)
    mask = torch.rand(len(LENGTHS), time, generator=generator) < 0.6
    ids[0, 5] = 0  # the pad id inside the text is a token like any other
    mask[0, 5] = True
    for row, length in enumerate(LENGTHS):
        ids[row, 0] = 2
        ids[row, length:] = 0
        mask[row, length:] = False
    mask[:, 0] = False
    mask[2, : LENGTHS[2] - 2] = False  # a short row with few targets: a mean of means would be wrong
    mask[2, LENGTHS[2] - 1] = True
    return {"input_ids": ids, "lengths": torch.tensor(LENGTHS), "loss_mask": mask.to(torch.uint8)}


def logits_of(model, batch):
    attention = torch.arange(batch["input_ids"].shape[1])[None] < batch["lengths"][:, None]
    return model(input_ids=batch["input_ids"], attention_mask=attention.long(), use_cache=False).logits.float()


def run(model, batch):
    model.zero_grad()
    logits = logits_of(model, batch)
    logprobs = torch.log_softmax(logits[:, :-1], -1)
    nll = -logprobs.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
    targets = batch["loss_mask"][:, 1:].bool()
    loss = nll[targets].sum() / targets.sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and is_text(name)}
    return logits.detach(), loss.detach(), gradients


def is_text(name):
    return "vision_tower" not in name and "multi_modal_projector" not in name


def logits_moved(a, b, lengths):
    return max((a[row, :length] - b[row, :length]).abs().max().item() for row, length in enumerate(lengths.tolist()))


def relative(a, b):
    return ((a - b).abs().max() / (b.abs().max() + 1e-12)).item()


def moved_by_one_ulp(model, seed):
    """Every weight one unit in the last place up or down."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            up = torch.rand(parameter.shape, generator=generator) < 0.5
            to = torch.where(up, torch.tensor(float("inf")), torch.tensor(float("-inf")))
            parameter.copy_(torch.nextafter(parameter, to))
    return other


def changed(config, **values):
    other = copy.deepcopy(config)
    text_part(other).update(values)
    return other


def norms_of(model):
    return [(name, module) for name, module in model.named_modules() if "RMSNorm" in type(module).__name__ and is_text(name)]


def without_details(config, model, batch, folder):
    """What the logits are when one detail of the model is taken away."""
    text = text_part(config)
    state = model.state_dict()
    results = {}

    def with_config(**values):
        other = build(changed(config, **values), folder)
        other.load_state_dict(state)
        return logits_of(other, batch)

    def with_model(change):
        other = copy.deepcopy(model)
        change(other)
        return logits_of(other, batch)

    def drop_one(other):
        for _, norm in norms_of(other):
            norm.weight.sub_(1.0)

    def drop_embedding_scale(other):
        embedding = other.get_input_embeddings()
        embedding.register_forward_hook(lambda module, inputs, output: output / text["hidden_size"] ** 0.5)

    def exact_gelu(other):
        for module in other.modules():
            if hasattr(module, "act_fn") and hasattr(module, "gate_proj"):
                module.act_fn = torch.nn.GELU()

    def identity(*endings):
        def change(other):
            for name, norm in norms_of(other):
                if name.endswith(endings):
                    norm.forward = lambda x: x
        return change

    with torch.no_grad():
        results["norm_adds_one"] = with_model(drop_one)
        results["embedding_scale"] = with_model(drop_embedding_scale)
        results["tanh_gelu"] = with_model(exact_gelu)
        results["norm_eps"] = with_config(rms_norm_eps=text["rms_norm_eps"] + 1e-3)

        module = sys.modules[type(model).__module__]
        rotate_half, repeat_kv = module.rotate_half, module.repeat_kv

        def interleaved(x):
            return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)

        module.rotate_half = interleaved
        results["rope_halves"] = logits_of(model, batch)
        module.rotate_half = rotate_half
        if 1 < text["num_key_value_heads"] < text["num_attention_heads"]:
            module.repeat_kv = lambda x, n: x.repeat(1, n, 1, 1)
            results["kv_head_order"] = logits_of(model, batch)
            module.repeat_kv = repeat_kv

        kind = text["model_type"]
        if kind == "gemma":
            name = "rope_parameters" if "rope_parameters" in text else "rope_theta"
            results["rope_theta"] = with_config(
                **{name: {"rope_type": "default", "rope_theta": 77.0} if name == "rope_parameters" else 77.0})
        else:
            results["query_scale"] = with_config(query_pre_attn_scalar=text["query_pre_attn_scalar"] * 2)
            results["window"] = with_config(sliding_window=4096)
            results["window_edge"] = with_config(sliding_window=text["sliding_window"] + 1)
            results["norm_after_attention"] = with_model(identity("post_attention_layernorm"))
            results["norm_after_mlp"] = with_model(identity("post_feedforward_layernorm"))
        if kind == "gemma2":
            results["attention_softcap"] = with_config(attn_logit_softcapping=None)
            results["logit_softcap"] = with_config(final_logit_softcapping=None)
            results["layer_order"] = with_config(layer_types=["full_attention", "sliding_attention"] * 2)
        if kind == "gemma3_text":
            results["qk_norm"] = with_model(identity("q_norm", "k_norm"))
            layers = text["num_hidden_layers"]
            results["global_layer"] = with_config(layer_types=["sliding_attention"] * layers)
            if "rope_parameters" in text:
                rope = text["rope_parameters"]
                full, sliding = rope["full_attention"], rope["sliding_attention"]
                results["rope_linear_scaling"] = with_config(
                    rope_parameters={"full_attention": {**full, "factor": 1.0}, "sliding_attention": sliding})
                results["rope_theta_local"] = with_config(
                    rope_parameters={"full_attention": full, "sliding_attention": {**sliding, "rope_theta": full["rope_theta"]}})
                results["rope_theta_global"] = with_config(
                    rope_parameters={"full_attention": {**full, "rope_theta": sliding["rope_theta"]}, "sliding_attention": sliding})
            else:
                results["rope_linear_scaling"] = with_config(rope_scaling=None)
                results["rope_theta_local"] = with_config(rope_local_base_freq=text["rope_theta"])
                results["rope_theta_global"] = with_config(rope_theta=text["rope_local_base_freq"])
    return results


def make_case(name, destination):
    config, ids_below, shard_size = CASES[name]
    folder = destination / name
    shutil.rmtree(folder, ignore_errors=True)
    model_folder = folder / "model"
    model_folder.mkdir(parents=True)
    seed = sum(name.encode())
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        random_model = build(config, scratch)
        randomize(random_model, torch.Generator().manual_seed(seed))
        dtype = getattr(torch, config.get("dtype", config.get("torch_dtype")))
        random_model.to(dtype).save_pretrained(scratch / "saved", **({"max_shard_size": shard_size} if shard_size else {}))
        for file in sorted((scratch / "saved").glob("*.safetensors*")):
            shutil.copyfile(file, model_folder / file.name)
        (model_folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

        # From here on only what transformers reads from the folder counts.
        model, info = AutoModelForCausalLM.from_pretrained(
            model_folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        model.eval()
        batch = make_batch(ids_below, seed)
        logits, loss, gradients = run(model, batch)
        coins = range(seed, seed + COINS)
        # Coins can leave the loss where it was: at least a unit in its last place.
        floor = {"logits_abs": 0.0, "loss_abs": torch.finfo(torch.float32).eps * loss.item(), "grad_rel": 0.0}
        for coin in coins:
            moved_logits, moved_loss, moved_gradients = run(moved_by_one_ulp(model, coin), batch)
            moves = {
                "logits_abs": logits_moved(moved_logits, logits, batch["lengths"]),
                "loss_abs": (moved_loss - loss).abs().item(),
                "grad_rel": max(relative(moved_gradients[key], gradients[key]) for key in gradients)}
            floor = {key: max(value, moves[key]) for key, value in floor.items()}
        tolerances = {key: min(BARS[key], FLOORS * floor[key]) for key in BARS}
        details = {key: logits_moved(value, logits, batch["lengths"])
                   for key, value in without_details(config, model, batch, scratch).items()}

        weak = {key: value for key, value in details.items() if value < 10 * tolerances["logits_abs"]}
        assert not weak, f"{name}: removing these moves the logits by less than 10 tolerances: {weak}"

        def load():
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="eager")

        rows = training.make_rows(ids_below, seed + 1)
        settings = TRAINING[name]
        training_tensors, training_floor, training_moves = training.full_run(
            load, moved_by_one_ulp, is_text, rows, settings, coins)
        training.make_adapter(load, LORA[name], name, folder / "adapter", seed + 2)
        lora_settings = settings | {"max_grad_norm": LORA_CLIP[name]}
        lora_tensors, lora_floor, lora_moves = training.lora_run(
            load, moved_by_one_ulp, logits_of, logits_moved, rows, batch, lora_settings, folder / "adapter", coins)
        continuations = [greedy.find_prompt(model, ids_below, length, seed) for length in (3, 20)]
        low_precision = bf16.deviations(model, run, batch, (logits, loss, gradients), logits_moved, relative)

    for row, length in enumerate(LENGTHS):
        logits[row, length:] = 0  # rows past a length mean nothing
    tensors = batch | {"logits": logits, "loss": loss} | {f"grad.{key}": value for key, value in gradients.items()}
    save(tensors, folder / "expected.safetensors")
    save(training_tensors, folder / "training.safetensors")
    save(lora_tensors, folder / "lora.safetensors")
    digits = lambda values: {key: value if isinstance(value, int) else float(f"{value:.3g}") for key, value in values.items()}
    case = {"name": name, "tolerances": digits(tolerances), "noise_floor": digits(floor), "details": digits(details),
            "training": run_facts(name, settings, training_floor, training_moves, digits),
            "lora": run_facts(name, lora_settings, lora_floor, lora_moves, digits),
            "greedy": continuations,
            "bf16": {"bounds": digits(bf16.bounds(low_precision))} | {key: digits(value) for key, value in low_precision.items()},
            "made_with": {"transformers": transformers.__version__, "peft": peft.__version__,
                          "torch": torch.__version__.split("+")[0]}}
    # Lists of ids on one line.
    text = re.sub(r"\[\s+([-0-9,\s]+?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", json.dumps(case, indent=2))
    (folder / "case.json").write_text(text + "\n")
    print(name, json.dumps(case["tolerances"]), "logits up to", round(logits.abs().max().item(), 2),
          "least detail", min(details, key=details.get), f"{min(details.values()):.3g}")


def run_facts(name, settings, floor, moves, digits):
    """What case.json says of a training run."""
    floor = dict(floor)
    clipped = floor.pop("clipped_steps")
    tolerances = {key: min(TRAINING_BARS[key], FLOORS * floor[key]) for key in floor}
    weak = {key: value for key, value in moves.items() if value < 10 * tolerances["weights_abs"]}
    assert not weak, f"{name}: removing these moves the weights by less than 10 tolerances: {weak}"
    return {"settings": settings | {"steps": training.STEPS, "accumulation": training.ACCUMULATION, "rows": training.ROWS},
            "tolerances": digits(tolerances), "noise_floor": digits(floor), "clipped_steps": clipped, "details": digits(moves)}


def save(tensors, path):
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, {"format": "pt"})


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in sys.argv[1:] or [*CASES, tokens.NAME]:
        if name == tokens.NAME:
            tokens.make(HERE / name)
        else:
            make_case(name, HERE)


if __name__ == "__main__":
    main()
