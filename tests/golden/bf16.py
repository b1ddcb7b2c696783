"""What bf16 costs transformers itself: its logits, loss and gradients against its own in fp32."""

import copy

import torch


def deviations(model, run, batch, reference, logits_moved, relative):
    """run(model, batch) -> logits, loss, gradients. `reference` is that in fp32."""
    logits, loss, gradients = reference

    def from_reference(other):
        other_logits, other_loss, other_gradients = other
        rms = lambda name: ((other_gradients[name].float() - gradients[name]).norm() / gradients[name].norm()).item()
        real = torch.arange(logits.shape[1])[None] < batch["lengths"][:, None]
        return {"logits_abs": logits_moved(other_logits.float(), logits, batch["lengths"]),
                "logits_rms": (other_logits.float() - logits)[real].square().mean().sqrt().item(),
                "loss_abs": (other_loss - loss).abs().item(),
                "grad_rel": max(relative(other_gradients[name].float(), gradients[name]) for name in gradients),
                "grad_rms_rel": max(rms(name) for name in gradients)}

    pure = copy.deepcopy(model).to(torch.bfloat16)
    results = {"bf16": from_reference(run(pure, batch))}
    with torch.autocast("cpu", torch.bfloat16):
        results["bf16_mixed"] = from_reference(run(copy.deepcopy(model), batch))
    return results


def bounds(results):
    """What gemma-sft in bf16 or bf16_mixed may deviate from fp32, from what transformers in pure bf16 does.

    Both round the hidden states to bf16 at the same places, so their errors are of one size, but not equal: the largest of
    some thousand errors and the worst of a few dozen gradients are matters of luck, the root mean square of the logits is
    not. The loss is a mean over some 25 targets, whose errors cancel in part."""
    pure = results["bf16"]
    return {"logits_rms": 1.25 * pure["logits_rms"], "logits_abs": 1.5 * pure["logits_abs"], "loss_abs": pure["logits_rms"],
            "grad_rms_rel": 2 * pure["grad_rms_rel"]}
