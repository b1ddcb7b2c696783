"""Any exception becomes a code of the contract."""

from __future__ import annotations

import errno

import pytest
from runner.failure import EXIT_CODES, RunnerError, explain


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (RunnerError("nonfinite", "x"), "nonfinite", 14),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), "out_of_memory", 11),
        (MemoryError(), "out_of_memory", 11),
        (OSError(errno.ENOSPC, "No space left on device"), "io_error", 9),
        (ValueError("UNKNOWN: Error writing local file: No space left on device"), "io_error", 9),
        (FileNotFoundError(errno.ENOENT, "No such file", "x"), "io_error", 9),
        (KeyError("x"), "internal", 70),
    ],
)
def test_codes_and_exit_codes(error: BaseException, code: str, exit_code: int) -> None:
    found = explain(error)
    assert (found.code, found.exit_code) == (code, exit_code)
    assert str(found)


def test_a_full_disk_and_full_memory_say_what_helps() -> None:
    assert "free space" in str(explain(OSError(errno.ENOSPC, "full")).hint)
    assert "batch_size" in str(explain(MemoryError()).hint)


def test_the_exit_codes_are_those_of_the_contract() -> None:
    from job_spec_test import RUNNER_MD

    table = RUNNER_MD.read_text().split("## Exit codes")[1]
    for code, number in EXIT_CODES.items():
        assert any(line.startswith(f"| {number} |") and f"`{code}`" in line for line in table.splitlines()), code
