"""What a job needs: steps, tokens, memory a core, hours, dollars. Arithmetic, and assumptions that the answer names."""

import math
from dataclasses import dataclass

from .accelerators import Accelerator
from .models import Model
from .schemas import EstimateAnswer, MemoryAnswer, Span, SpotAnswer, TokenTotals, Training

_UTILISATION = (0.15, 0.45)  # share of the peak; assumed
_SETUP_HOURS = {"cpu": (0.0, 0.05), "gpu": (0.02, 0.2), "tpu": (0.05, 0.5)}  # loading and compiling; assumed
_LOSS_CHUNK = 1024  # tokens whose logits exist at a time


@dataclass(frozen=True)
class Work:
    steps: int | None
    tokens: int | None  # as they are
    computed: int | None  # with every row as long as the longest
    longest_row: int | None


def work_of(training: Training, totals: TokenTotals | None) -> Work:
    if totals is None:
        return Work(training.max_steps, None, None, training.max_seq_length)
    rows_per_step = training.batch_size * training.gradient_accumulation_steps
    if training.batch_tokens is not None:
        rows_per_step = max(1, training.batch_tokens // totals.longest_row) * training.gradient_accumulation_steps
    if training.max_steps is not None:
        steps = training.max_steps
        epochs = steps * rows_per_step / totals.rows
    else:
        epochs = training.num_epochs
        steps = math.ceil(math.ceil(totals.rows / rows_per_step) * epochs - 1e-9)  # as runner/plan.py counts
    return Work(
        steps,
        math.ceil(epochs * totals.tokens),
        math.ceil(epochs * totals.rows * totals.longest_row),
        totals.longest_row,
    )


def estimate(
    training: Training,
    model: Model,
    accelerator: Accelerator,
    totals: TokenTotals | None,
    *,
    spot: bool,
    model_bytes: int,
    prices_as_of: str,
) -> EstimateAnswer:
    work = work_of(training, totals)
    precision = training.precision or ("fp32" if accelerator.kind == "cpu" else "bf16_mixed")
    half = 2 if precision == "bf16" and training.lora is None else 1  # weights, gradients and moments in half the bytes
    trained, state = model.parameters, 16 // half * model.parameters
    if training.lora is not None:
        trained = model.lora_parameters(training.lora.rank, training.lora.target_modules)
        state = 16 * trained + (4 if precision == "fp32" else 2) * model.parameters
    longest = work.longest_row or min(2048, model.max_positions)
    activations = _activation_values(training, model, longest, accelerator.cores) * (4 if precision == "fp32" else 2)
    logits = 2 * 4 * _LOSS_CHUNK * model.vocab_size
    needed = state // accelerator.cores + activations + logits
    assumptions = [
        f"memory: {16 // half} bytes a trained weight with its gradient and moments, spread over all cores, and the "
        "activations of the longest rows"
    ]
    hours, usd, price = Span(low=None, high=None), Span(low=None, high=None), accelerator.price(spot)
    spot_answer = None
    if work.tokens is None or work.computed is None:
        assumptions.append(
            "no rows were named: steps (unless max_steps gives them), tokens, time and cost are left out"
        )
    else:
        passes = (4 if training.lora is not None else 6) + (2 if training.activation_checkpointing else 0)
        peak = accelerator.peak_flops_per_core * accelerator.cores
        setup = _SETUP_HOURS[accelerator.kind]
        low = passes * model.parameters * work.tokens / peak / 3600 / _UTILISATION[1] + setup[0]
        high = passes * model.parameters * work.computed / peak / 3600 / _UTILISATION[0] + setup[1]
        hours = Span(low=low, high=high)
        usd = Span(low=low * price, high=high * price)
        if accelerator.spot_usd_per_hour is not None:
            cheap = accelerator.spot_usd_per_hour
            spot_answer = SpotAnswer(usd_per_hour=cheap, usd=Span(low=low * cheap, high=high * cheap))
        assumptions.append(
            f"time: {_UTILISATION[0]:.0%} to {_UTILISATION[1]:.0%} of the peak and {setup[0]:g} to "
            f"{setup[1]:g} hours to begin with, assumed and not measured"
        )
    return EstimateAnswer(
        steps=work.steps,
        tokens=work.tokens,
        hours=hours,
        usd=usd,
        usd_per_hour=price,
        spot=spot_answer,
        memory=MemoryAnswer(
            needed_bytes_per_core=needed,
            available_bytes_per_core=accelerator.hbm_bytes_per_core,
            fits=needed <= accelerator.hbm_bytes_per_core,
        ),
        checkpoint_bytes=12 // half * trained,
        final_model_bytes=4 * trained if training.lora is not None else model_bytes * model.parameters,
        accelerator=accelerator.name,
        prices_as_of=prices_as_of,
        assumptions=assumptions,
    )


def _activation_values(training: Training, model: Model, longest: int, cores: int) -> int:
    rows = -(-training.batch_size // cores)
    tokens = -(-training.batch_tokens // cores) if training.batch_tokens else rows * longest
    per_layer = (
        6 * model.hidden_size
        + (2 * model.heads + 2 * model.kv_heads) * model.head_dim
        + 2 * model.heads * longest
        + 3 * model.intermediate_size
    )
    if training.activation_checkpointing:
        return tokens * (model.layers * model.hidden_size + per_layer)
    return tokens * model.layers * per_layer
