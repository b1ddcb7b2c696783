"""Model ids to folders of this machine. A client names a model; it never names a path."""

import re
from dataclasses import dataclass
from pathlib import Path

from runner.failure import RunnerError
from runner.lora_targets import is_target, linear_layers
from runner.model_config import load_gemma_config

from .errors import ApiProblem
from .schemas import ModelChoice

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class Model:
    folder: Path
    family: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int

    @property
    def parameters(self) -> int:
        attention = self.hidden_size * (2 * self.heads + 2 * self.kv_heads) * self.head_dim
        mlp = 3 * self.hidden_size * self.intermediate_size
        norms = self.hidden_size * (2 if self.family == 1 else 4) + (2 * self.head_dim if self.family == 3 else 0)
        return self.vocab_size * self.hidden_size + self.layers * (attention + mlp + norms) + self.hidden_size

    def lora_parameters(self, rank: int, targets: list[str]) -> int:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        width, ffn = self.hidden_size, self.intermediate_size
        sizes = {
            "q_proj": width + queries,
            "k_proj": width + keys,
            "v_proj": width + keys,
            "o_proj": queries + width,
            "gate_proj": width + ffn,
            "up_proj": width + ffn,
            "down_proj": ffn + width,
        }
        adapted = [path.rpartition(".")[2] for path in linear_layers(self.layers) if is_target(path, targets)]
        return rank * sum(sizes[name] for name in adapted)


class Models:
    """Looks below the models' roots, then in a Hugging Face cache. Opens no connection."""

    def __init__(self, roots: tuple[Path, ...], hub_cache: Path | None) -> None:
        self._roots = roots
        self._hub_cache = hub_cache

    def require(self, choice: ModelChoice) -> Model:
        """Throws ApiProblem 422."""
        name, revision = choice.base_model, choice.revision
        if not _ID.fullmatch(name) or ".." in name:
            raise _refused(
                "model.base_model",
                f"{name!r} is no model id such as google/gemma-3-270m; a folder of the "
                "client's machine means nothing here",
            )
        if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise _refused("model.revision", "expected the name of a revision or a commit")
        folder = self._find(name, revision)
        if folder is None:
            where = f" at revision {revision}" if revision else ""
            raise _refused("model.base_model", f"{name}{where} is not on this service; its operator can put it there")
        try:
            return _model(folder)
        except RunnerError as problem:
            if problem.code == "unsupported":  # its text begins with the file's place, which is nobody's business
                why = str(problem).partition("/config.json: ")[2]
                raise _refused("model.base_model", f"{name}: {why}; {problem.hint}") from problem
            raise _refused("model.base_model", f"{name} is on this service, but is no Gemma 1, 2 or 3") from problem
        except OSError as problem:
            raise _refused("model.base_model", f"{name} is on this service, but cannot be read") from problem

    def _find(self, name: str, revision: str | None) -> Path | None:
        if revision in (None, "main"):
            for root in self._roots:
                folder = (root / name).resolve()
                if folder.is_relative_to(root.resolve()) and (folder / "config.json").is_file():
                    return folder
        if self._hub_cache is None or "/" not in name:
            return None
        repository = self._hub_cache / f"models--{name.replace('/', '--')}"
        wanted = revision or "main"
        reference = repository / "refs" / wanted
        commit = reference.read_text().strip() if reference.is_file() else wanted
        if not _REVISION.fullmatch(commit):
            return None
        folder = repository / "snapshots" / commit
        return folder if (folder / "config.json").is_file() else None


def _model(folder: Path) -> Model:
    config = load_gemma_config(folder)
    return Model(
        folder,
        config.family,
        config.vocab_size,
        config.hidden_size,
        config.intermediate_size,
        config.num_layers,
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
        config.max_positions,
    )


def _refused(param: str, message: str) -> ApiProblem:
    return ApiProblem(422, "validation_failed", f"{param}: {message}", param=param)
