"""A run that is stopped or killed and goes on ends with the bytes of the one that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from workspace import RunnerResult, Workspace, digests, read_events, wait_for_event

# Accumulation, so that a stop in the middle of a step would show; 12 steps, a checkpoint every 3.
SETTINGS = {
    "training.gradient_accumulation_steps": 2,
    "training.max_steps": 12,
    "output.checkpoint_every": 3,
    "output.keep_checkpoints": 2,
}
LORA = {"lora.rank": 4, "lora.alpha": 8.0}


class Case:
    """A job, and what it gives when nobody disturbs it."""

    def __init__(self, workspace: Workspace, name: str, settings: dict[str, Any]) -> None:
        self.workspace, self.name = workspace, name
        self.model = workspace.model(1)
        self.config = workspace.config(name, self.model, SETTINGS | settings)
        workdir = workspace.job(self.config, self.model)
        self.whole = workspace.train_tunix(workdir)
        self.result = digests(workdir / "output")

    def job(self, name: str, **changes: Any) -> Path:
        return self.workspace.job(self.config, self.model, f"{self.name}-{name}", **changes)

    def resume(self, workdir: Path) -> RunnerResult:
        result = self.workspace.train_tunix(workdir, "--resume")
        assert digests(workdir / "output") == self.result
        return result


@pytest.fixture(scope="module")
def full(workspace: Workspace) -> Case:
    return Case(workspace, "resume-full", {})


@pytest.fixture(scope="module")
def lora(workspace: Workspace) -> Case:
    return Case(workspace, "resume-lora", LORA)


def _rows(result: RunnerResult) -> dict[int, tuple[float, float]]:
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in result.of("step")}


def _stop(case: Case, workdir: Path, step: int) -> RunnerResult:
    process = case.workspace.start_runner(workdir)
    wait_for_event(process, workdir, "step", step)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # changes nothing
    return case.workspace.finish_runner(process, workdir)


def test_events_and_checkpoints_of_an_undisturbed_run(full: Case) -> None:
    events = full.whole.events
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["type"] for event in events]
    assert kinds[:4] == ["started", "log", "model_loaded", "compiled"]
    assert kinds[-2:] == ["exported", "completed"]
    # A checkpoint comes after the metrics of its step and before the next ones.
    order = [(event["type"], event["step"]) for event in events if event["type"] in ("step", "checkpoint")]
    expected = []
    for step in range(1, 13):
        expected.append(("step", step))
        if step % 3 == 0:
            expected.append(("checkpoint", step))
    assert order == expected
    workdir = full.workspace.folder / "resume-full-job"
    assert sorted(entry.name for entry in (workdir / "checkpoints").iterdir()) == ["12", "9"]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_sigterm_saves_at_a_step_and_the_rest_is_the_same(kind: str, request: pytest.FixtureRequest) -> None:
    case: Case = request.getfixturevalue(kind)
    workdir = case.job("sigterm")
    stopped = _stop(case, workdir, 4)
    assert stopped.code == 7
    last = stopped.events[-1]
    assert last["type"] == "cancelled"
    assert stopped.of("checkpoint")[-1]["step"] == last["step"]
    assert not (workdir / "output").exists()
    resumed = case.resume(workdir)
    assert resumed.of("started")[0]["resumed_from"] == last["step"]
    assert _rows(stopped) | _rows(resumed) == _rows(case.whole)


def test_sigterm_before_the_first_step_leaves_nothing_half_done(full: Case) -> None:
    workdir = full.job("early")
    process = full.workspace.start_runner(workdir)
    wait_for_event(process, workdir, "started")
    process.send_signal(signal.SIGTERM)
    stopped = full.workspace.finish_runner(process, workdir)
    assert (stopped.code, stopped.events[-1]["type"], stopped.events[-1]["step"]) == (7, "cancelled", 0)
    full.resume(workdir)


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_any_moment_and_the_rest_is_the_same(full: Case, seed: int) -> None:
    workdir = full.job(f"kill-{seed}")
    chance = random.Random(seed)  # noqa: S311
    words: list[str] = []
    for _ in range(2):
        process = full.workspace.start_runner(workdir, *words)
        # Around a save as likely as anywhere else: a little after some event of the run.
        wait_for_event(process, workdir, "step", chance.randint(1, 11))
        try:
            process.wait(timeout=chance.random() * 0.4)
        except Exception:
            process.kill()
        process.wait()
        words = ["--resume"]
    full.resume(workdir)


def test_kill_9_during_the_export_and_the_result_is_made_again(full: Case) -> None:
    workdir = full.job("export")
    process = full.workspace.start_runner(workdir)
    wait_for_event(process, workdir, "checkpoint", 12)
    process.kill()
    process.wait()
    resumed = full.resume(workdir)
    assert resumed.of("step") == []
    assert resumed.events[-1]["steps"] == 12
    full.resume(workdir)  # of a finished job: the same again


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.fixture(scope="module")
def stopped_workdir(full: Case) -> Path:
    """Stopped after at least 7 steps: two checkpoints, the newest of the step where it stopped."""
    workdir = full.job("damaged")
    _stop(full, workdir, 7)
    return workdir


def _copy(workdir: Path, name: str) -> Path:
    return Path(shutil.copytree(workdir, workdir.with_name(f"{workdir.name}-{name}")))


def test_a_broken_checkpoint_is_set_aside_and_the_one_before_it_taken(full: Case, stopped_workdir: Path) -> None:
    workdir = _copy(stopped_workdir, "bit")
    before, newest = sorted(int(entry.name) for entry in (workdir / "checkpoints").iterdir())
    _damage(_largest(workdir / "checkpoints" / str(newest) / "model_params"))
    resumed = full.resume(workdir)
    assert resumed.of("started")[0]["resumed_from"] == before
    assert f"checkpoint {newest} is broken" in resumed.of("warning")[0]["message"]
    assert (workdir / "checkpoints" / f"{newest}.broken").exists()


def test_what_an_interrupted_save_left_is_dropped(full: Case, stopped_workdir: Path) -> None:
    workdir = _copy(stopped_workdir, "torn")
    before, newest = sorted(int(entry.name) for entry in (workdir / "checkpoints").iterdir())
    (workdir / "checkpoints" / str(newest) / "manifest.json").unlink()
    (workdir / "checkpoints" / f"{newest + 1}.orbax-checkpoint-tmp-0").mkdir()
    resumed = full.resume(workdir)
    assert resumed.of("started")[0]["resumed_from"] == before
    assert not list((workdir / "checkpoints").glob("*tmp*"))


def test_where_all_checkpoints_are_broken_the_job_fails_instead_of_starting_over(
    full: Case, stopped_workdir: Path
) -> None:
    workdir = _copy(stopped_workdir, "all")
    for folder in (workdir / "checkpoints").iterdir():
        _damage(_largest(folder / "optimizer_state"))
    result = full.workspace.run(workdir, "--resume")
    assert (result.code, result.failure["code"]) == (13, "checkpoint_invalid")


def test_a_checkpoint_of_another_job_is_refused(full: Case, stopped_workdir: Path) -> None:
    workdir = _copy(stopped_workdir, "other")
    spec = (workdir / "job.json").read_text().replace('"seed": 42', '"seed": 43')
    (workdir / "job.json").write_text(spec)
    result = full.workspace.run(workdir, "--resume")
    assert (result.code, result.failure["code"]) == (13, "checkpoint_invalid")
    assert "another job" in result.failure["message"]


def test_a_deterministic_job_is_not_gone_on_with_on_another_number_of_processors(full: Case) -> None:
    processors = os.sched_getaffinity(0)
    if len(processors) < 2:
        pytest.skip("needs two processors")
    workdir = full.job("deterministic", training__deterministic=True)
    stopped = _stop(full, workdir, 4)
    os.sched_setaffinity(0, {min(processors)})  # the runner's, too
    try:
        result = full.workspace.run(workdir, "--resume")
    finally:
        os.sched_setaffinity(0, processors)
    assert (result.code, result.failure["code"]) == (13, "checkpoint_invalid")
    assert "number of processors" in result.failure["message"]
    resumed = full.resume(workdir)
    assert resumed.of("started")[0]["resumed_from"] == stopped.events[-1]["step"]


def test_without_resume_what_is_there_is_not_touched(full: Case, stopped_workdir: Path) -> None:
    before = digests(stopped_workdir / "checkpoints")
    copy = _copy(stopped_workdir, "fresh")
    result = full.workspace.run(copy)
    assert (result.code, result.failure["code"]) == (2, "invalid_spec")
    assert digests(copy / "checkpoints") == before
    assert read_events(copy)[-1]["type"] == "failed"
