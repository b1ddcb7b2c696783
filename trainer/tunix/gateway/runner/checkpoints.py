"""Checkpoints of google-tunix (Orbax), made ones that can be trusted: after each save every file is synced and digested
into a manifest inside the checkpoint, and only then older ones go. A checkpoint without its manifest does not count."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import durable
from runner.failure import RunnerError

if TYPE_CHECKING:
    from flax import nnx

MANIFEST = "manifest.json"
_SET_ASIDE = ".broken"


@dataclasses.dataclass(frozen=True)
class Saved:
    step: int
    path: Path
    bytes: int
    seconds: float


class CheckpointFolder:
    """`root`/STEP/: the newest `keep` whole ones. Other names are nobody's business but ours."""

    def __init__(self, root: Path, keep: int, identity: str) -> None:
        self.root = root
        self._keep = keep
        self._identity = identity  # digest of what a checkpoint belongs to

    def steps(self) -> list[int]:
        if not self.root.exists():
            return []
        return sorted(int(entry.name) for entry in self.root.iterdir() if entry.is_dir() and entry.name.isdigit())

    def is_empty(self) -> bool:
        return not self.root.exists() or not any(self.root.iterdir())

    def open(self, warn: Callable[[str], None]) -> int | None:
        """Leaves whole checkpoints alone: what an interrupted save left goes, a broken one is set aside. Returns the
        newest step. Raises RunnerError(checkpoint_invalid) where there were some and none can be used."""
        self.root.mkdir(parents=True, exist_ok=True)
        for entry in self.root.iterdir():
            if not entry.name.isdigit() and not entry.name.endswith(_SET_ASIDE):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        broken = []
        whole = None
        for step in reversed(self.steps()):
            folder = self.root / str(step)
            if not (folder / MANIFEST).exists():
                shutil.rmtree(folder)
                continue
            if whole is not None:
                continue
            problem = self._problem(folder)
            if problem is None:
                whole = step
            else:
                broken.append(f"{folder}: {problem}")
                warn(f"checkpoint {step} is broken and set aside: {problem}")
                self.set_aside(step)
        if whole is None and broken:
            raise RunnerError("checkpoint_invalid", "no checkpoint can be resumed from: " + "; ".join(broken))
        durable.sync(self.root)
        return whole

    def set_aside(self, step: int) -> None:
        target = self.root / f"{step}{_SET_ASIDE}"
        shutil.rmtree(target, ignore_errors=True)
        (self.root / str(step)).rename(target)

    def seal(self, step: int) -> int:
        """After Orbax has written `step`: makes it durable and whole, then lets older ones go. Returns its bytes."""
        folder = self.root / str(step)
        files = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files[str(path.relative_to(folder))] = {
                    "bytes": path.stat().st_size,
                    "sha256": durable.sha256_file(path),
                }
        durable.sync_tree(folder)
        durable.sync(self.root)
        durable.write_json(folder / MANIFEST, {"step": step, "identity": self._identity, "files": files})
        for old in self.steps()[: -self._keep]:
            shutil.rmtree(self.root / str(old))
        return sum(entry["bytes"] for entry in files.values())

    def _problem(self, folder: Path) -> str | None:
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            files, identity = manifest["files"], manifest["identity"]
            if identity != self._identity:
                raise RunnerError(
                    "checkpoint_invalid",
                    f"{folder} belongs to another job, model or data set, or (with training.deterministic) to other "
                    "versions or another number of processors",
                )
            for name, entry in files.items():
                path = folder / name
                if not path.is_file():
                    return f"{name} is missing"
                if path.stat().st_size != entry["bytes"] or durable.sha256_file(path) != entry["sha256"]:
                    return f"{name} is not as it was written"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{MANIFEST} cannot be read: {error}"
        return None


class SealedCheckpointManager:
    """Stands before google-tunix's manager inside PeftTrainer: what it saved is sealed and told."""

    def __init__(
        self, manager: Any, folder: CheckpointFolder, before: Callable[[], None], saved: Callable[[Saved], None]
    ) -> None:
        self._manager = manager
        self._folder = folder
        self._before = before  # may raise: then nothing is saved
        self._saved = saved

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, model: nnx.Module, optimizer: nnx.Optimizer | None = None, **options: Any) -> bool:
        if not options.get("force") and not self._manager._checkpoint_manager.should_save(step):
            return False
        self._before()
        start = time.perf_counter()
        if not self._manager.save(step, model, optimizer, **options):
            return False
        size = self._folder.seal(step)
        self._saved(Saved(step, self._folder.root / str(step), size, time.perf_counter() - start))
        return True

    def close(self) -> None:
        self._manager.close()
