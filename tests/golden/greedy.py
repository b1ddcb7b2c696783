"""Greedy continuations by transformers' generate, with its cache, far past the window."""

import torch
from transformers import GenerationConfig

NEW_TOKENS, LEAST_GAP, LEAST_KINDS = 64, 1e-3, 12


def continue_greedily(model, prompt):
    """-> (new ids, smallest gap between the two largest logits), with the cache and without."""
    model.generation_config = GenerationConfig()  # the model's own names an end token, and None does not unset it
    settings = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0,
                                output_logits=True, return_dict_in_generate=True)
    ids = torch.tensor([prompt])
    result = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    new = result.sequences[0, len(prompt):].tolist()
    cached = torch.cat(result.logits).float()
    whole = model(input_ids=result.sequences, use_cache=False).logits[0, len(prompt) - 1:-1].float()
    assert len(new) == NEW_TOKENS
    assert whole.argmax(-1).tolist() == new == cached.argmax(-1).tolist(), "the cache changes a token"
    gaps = [logits.topk(2, -1).values for logits in (cached, whole)]
    return new, min((top[:, 0] - top[:, 1]).min().item() for top in gaps)


def find_prompt(model, ids_below, length, first_seed):
    """The first seed whose prompt is continued without a close call and not by the same few tokens over and over."""
    for seed in range(first_seed, first_seed + 500):
        generator = torch.Generator().manual_seed(seed)
        prompt = [2] + torch.randint(3, ids_below, (length - 1,), generator=generator).tolist()
        with torch.no_grad():
            new, gap = continue_greedily(model, prompt)
        if gap >= LEAST_GAP and len(set(new)) >= LEAST_KINDS:
            return {"prompt": prompt, "output": new, "least_gap": float(f"{gap:.3g}"), "seed": seed}
    raise AssertionError(f"no prompt of {length} tokens with a gap of {LEAST_GAP}")
