"""Stands in for the runner in the gateway's tests: the interface of trainer/tunix/gateway/RUNNER.md, and no training at all.

Its "weights" are a chain of digests over the rows, one link a step, so that a job that was stopped, killed and resumed must
end with the bytes of one that was not. --behaviours FILE has a JSON object: training.seed -> what goes wrong in that job.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class Runner:
    def __init__(self, spec: dict[str, Any], workdir: Path, behaviour: dict[str, Any]) -> None:
        self.spec = spec
        self.workdir = workdir
        self.behaviour = behaviour
        self.seq = 0
        self.stop = False

    def emit(self, kind: str, **members: Any) -> None:
        self.seq += 1
        ts = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"seq": self.seq, "ts": ts, "type": kind} | members) + "\n"
        os.write(1, line.encode())

    def fail(self, code: str, message: str, exit_code: int, retryable: bool = False) -> int:
        self.emit("failed", code=code, message=message, hint=None, retryable=retryable)
        return exit_code

    def run(self, resume: bool) -> int:
        rows = Path(self.spec["data"]["path"]).read_bytes()
        if hashlib.sha256(rows).hexdigest() != self.spec["data"]["sha256"]:
            return self.fail("data_invalid", "the rows are not those of the spec", 3)
        total = self.spec["training"]["max_steps"] or 10
        step, state = 0, hashlib.sha256(rows).hexdigest()
        newest = self.newest_checkpoint() if resume else None
        if newest is not None:
            step, state = newest, (self.workdir / "checkpoints" / str(newest) / "state").read_text()
        self.emit("started", versions={"fake": "1"}, devices=["none"], total_steps=total, resumed_from=newest)
        print(f"attempt begins at step {step}", file=sys.stderr, flush=True)
        self.emit("model_loaded", params=1234, trained_params=1234)
        self.emit("compiled", seconds=0.0)
        if self.behaviour.get("environment"):
            self.emit("log", message=json.dumps(dict(os.environ)))
        every = self.spec["output"]["checkpoint_every"]
        while step < total:
            if self.stop:
                self.checkpoint(step, state)
                self.emit("cancelled", step=step)
                return 7
            step += 1
            if (problem := self.misbehave(step)) is not None:
                return problem
            time.sleep(self.behaviour.get("step_seconds", 0.0))
            state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
            self.emit(
                "step",
                step=step,
                epoch=step / total,
                loss=round(8 / (step + 1), 6),
                learning_rate=1e-4,
                grad_norm=1.0,
                tokens=100,
                target_tokens=50,
                tokens_per_second=1000.0,
            )
            if every and step % every == 0:
                self.checkpoint(step, state)
        self.checkpoint(total, state)
        self.export(state)
        self.emit("completed", steps=total, seconds=1.0)
        return 0

    def misbehave(self, step: int) -> int | None:
        if self.behaviour.get("fail_at") == step:
            return self.fail(**self.behaviour["failure"])
        if self.behaviour.get("crash_at") == step:
            mark = self.workdir / "crashes"
            crashes = int(mark.read_text()) if mark.exists() else 0
            if crashes < self.behaviour["crashes"]:
                mark.write_text(str(crashes + 1))
                print("about to crash", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        if self.behaviour.get("torn_line_at") == step and not (self.workdir / "torn").exists():
            (self.workdir / "torn").touch()
            os.write(1, b'{"seq": 99, "type": "step", "st')
            os.kill(os.getpid(), signal.SIGKILL)
        if self.behaviour.get("noise_at") == step:
            os.write(1, b'not json\n{"type": 7}\n[1]\n{"type": "unheard", "x": 1}\n{"type": "step", "step": "two"}\n')
            self.emit("step", step=step, loss="NaN", epoch=None)
        return None

    def newest_checkpoint(self) -> int | None:
        folder = self.workdir / "checkpoints"
        steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()] if folder.exists() else []
        return max(steps, default=None)

    def checkpoint(self, step: int, state: str) -> None:
        folder = self.workdir / "checkpoints"
        folder.mkdir(exist_ok=True)
        temporary = folder / f"{step}.tmp"
        temporary.mkdir(exist_ok=True)
        (temporary / "state").write_text(state)
        if not (folder / str(step)).exists():
            temporary.rename(folder / str(step))
        else:
            shutil.rmtree(temporary)
        kept = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())
        for old in kept[: -self.spec["output"]["keep"]]:
            shutil.rmtree(folder / str(old))
        self.emit("checkpoint", step=step, path=f"checkpoints/{step}", bytes=len(state))

    def export(self, state: str) -> None:
        output = self.workdir / "output"
        temporary = output / ".final_model.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = {"config.json": b"{}", "model.safetensors": (state * 4096).encode(), "sub/.hidden..name": b"x"}
        for name, data in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_bytes(data)
        shutil.rmtree(output / "final_model", ignore_errors=True)
        temporary.rename(output / "final_model")
        listed = [
            {"path": f"final_model/{name}", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        ]
        plant = self.behaviour.get("plant")
        if plant == "link":
            (output / "final_model" / "secret").symlink_to("/etc/hostname")
        elif plant == "folder_link":
            (output / "final_model" / "etc").symlink_to("/etc")
        elif plant == "pipe":
            os.mkfifo(output / "final_model" / "pipe")
        elif plant == "changed":
            (output / "final_model" / "config.json").write_bytes(b"[]")
        listed += [{"path": path, "size": 1, "sha256": "0" * 64} for path in self.behaviour.get("also_list", [])]
        self.emit("exported", files=listed)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--behaviours", type=Path)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    spec = json.loads(arguments.spec.read_text())
    behaviours = json.loads(arguments.behaviours.read_text()) if arguments.behaviours else {}
    runner = Runner(spec, arguments.workdir, behaviours.get(str(spec["training"]["seed"]), {}))

    def on_stop(*_: object) -> None:
        runner.stop = not runner.behaviour.get("deaf", False)

    signal.signal(signal.SIGTERM, on_stop)
    return runner.run(arguments.resume)


if __name__ == "__main__":
    sys.exit(main())
