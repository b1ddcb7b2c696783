"""The price table: a JSON file with the date of its prices, one entry an accelerator."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ApiProblem
from .schemas import Resources

GIB = 1024**3


class _Mesh(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    fsdp: int = Field(ge=1)
    tp: int = Field(ge=1)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    kind: Literal["cpu", "gpu", "tpu"]
    cores: int = Field(ge=1)
    hbm_gib_per_core: float | None  # null: the memory of this machine
    peak_tflops_per_core: float = Field(gt=0)
    mesh: _Mesh
    regions: list[str]
    usd_per_hour: float = Field(ge=0)
    spot_usd_per_hour: float | None
    max_seconds: int | None


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    as_of: str = Field(min_length=1)
    source: str
    accelerators: list[_Entry] = Field(min_length=1)


@dataclass(frozen=True)
class Accelerator:
    name: str
    kind: Literal["cpu", "gpu", "tpu"]
    cores: int
    hbm_bytes_per_core: int
    peak_flops_per_core: float
    mesh: dict[str, int]
    regions: tuple[str, ...]
    usd_per_hour: float
    spot_usd_per_hour: float | None
    max_seconds: int | None

    def price(self, spot: bool) -> float:
        return self.spot_usd_per_hour if spot and self.spot_usd_per_hour is not None else self.usd_per_hour


@dataclass(frozen=True)
class Accelerators:
    """Those that this gateway serves, in its order."""

    as_of: str
    served: tuple[Accelerator, ...]

    def require(self, name: str | None, param: str = "accelerator") -> Accelerator:
        if name is None:
            return self.served[0]
        for one in self.served:
            if one.name == name:
                return one
        names = ", ".join(one.name for one in self.served)
        raise ApiProblem(
            422, "validation_failed", f"{param}: {name} is not served here; there is: {names}", param=param
        )

    def choose(self, resources: Resources) -> Accelerator:
        """What a job asks for. Throws ApiProblem 422."""
        chosen = self.require(resources.accelerator, "resources.accelerator")
        if resources.region is not None and chosen.regions and resources.region not in chosen.regions:
            raise ApiProblem(
                422,
                "validation_failed",
                f"resources.region: {chosen.name} is in {', '.join(chosen.regions)} here",
                param="resources.region",
            )
        if resources.spot and chosen.spot_usd_per_hour is None:
            raise ApiProblem(
                422,
                "validation_failed",
                f"resources.spot: {chosen.name} has no spot capacity here",
                param="resources.spot",
            )
        return chosen


def load_accelerators(path: Path, served: tuple[str, ...]) -> Accelerators:
    """Throws ValueError with the file's name."""
    try:
        table = _Table.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError) as problem:
        raise ValueError(f"{path}: no price table: {problem}") from problem
    by_name = {entry.name: entry for entry in table.accelerators}
    chosen = []
    for name in served:
        entry = by_name.get(name)
        if entry is None:
            raise ValueError(f"{path}: has no {name}; it has {', '.join(by_name)}")
        if entry.mesh.fsdp * entry.mesh.tp != entry.cores:
            raise ValueError(f"{path}: {name}: mesh: fsdp times tp is not the number of cores")
        memory = int(entry.hbm_gib_per_core * GIB) if entry.hbm_gib_per_core else _memory_of_machine() // entry.cores
        chosen.append(
            Accelerator(
                entry.name,
                entry.kind,
                entry.cores,
                memory,
                entry.peak_tflops_per_core * 1e12,
                entry.mesh.model_dump(),
                tuple(entry.regions),
                entry.usd_per_hour,
                entry.spot_usd_per_hour,
                entry.max_seconds,
            )
        )
    return Accelerators(table.as_of, tuple(chosen))


def _memory_of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
