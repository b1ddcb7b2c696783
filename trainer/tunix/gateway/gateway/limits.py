"""What the runner would refuse when it starts, refused when a job is submitted or its cost asked for: nothing is queued
or charged that cannot be trained. The rules about a model and about LoRA's targets are the runner's own code."""

from runner.failure import RunnerError
from runner.lora_targets import require_targets

from .errors import ApiProblem
from .estimates import work_of
from .models import Model
from .schemas import TokenTotals, Training


def require_trainable(training: Training, model: Model, totals: TokenTotals | None) -> None:
    """Throws ApiProblem 422 that names the member. `totals` None: no rows are named yet."""
    if training.lora is not None:
        if training.lora.dropout > 0:
            raise refused(
                "training.lora.dropout",
                f"{training.lora.dropout:g}: google-tunix hands its model no random numbers, so that nothing would be "
                "dropped; set it to 0",
            )
        try:
            require_targets(training.lora.target_modules, model.layers)
        except RunnerError as problem:
            raise refused("training.lora.target_modules", str(problem).partition(": ")[2]) from problem
    if totals is None:
        return
    longest = totals.longest_row
    if longest > model.max_positions:
        raise refused(
            "model.base_model", f"it has {model.max_positions} positions, and there is a row of {longest} tokens"
        )
    if training.max_seq_length is not None and longest > training.max_seq_length:
        raise refused("training.max_seq_length", f"{training.max_seq_length}, and there is a row of {longest} tokens")
    if training.batch_tokens is not None and longest > training.batch_tokens:
        raise refused("training.batch_tokens", f"{training.batch_tokens} is less than a row of {longest} tokens")
    if not work_of(training, totals).steps:
        raise refused("training.num_epochs", f"{training.num_epochs:g} of an epoch is no step at all; raise it")


def refused(param: str, message: str) -> ApiProblem:
    return ApiProblem(422, "validation_failed", f"{param}: {message}", param=param)
