"""The one exception of the runner: a code of the contract (../RUNNER.md), what happened, and what would help."""

from __future__ import annotations

import errno

EXIT_CODES = {
    "invalid_spec": 2,
    "unsupported": 2,
    "data_invalid": 3,
    "io_error": 9,
    "out_of_memory": 11,
    "model_invalid": 12,
    "checkpoint_invalid": 13,
    "nonfinite": 14,
    "internal": 70,
}
EXIT_CANCELLED = 7


class RunnerError(Exception):
    """Ends the job. `code` is a key of EXIT_CODES."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.code]


def explain(error: BaseException) -> RunnerError:
    """What any exception means in the contract's terms."""
    if isinstance(error, RunnerError):
        return error
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return RunnerError(
            "out_of_memory",
            text[:2000],
            "lower training.batch_size, set training.activation_checkpointing, lora.rank or training.precision: bf16, "
            "or take a larger accelerator",
        )
    full = "No space left on device" in text or "Disk quota exceeded" in text  # from tensorstore it is no OSError
    if full or isinstance(error, OSError):
        full = full or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        return RunnerError("io_error", text[:2000], "free space on the disk of the work folder" if full else None)
    return RunnerError("internal", f"{type(error).__name__}: {text[:2000]}")
