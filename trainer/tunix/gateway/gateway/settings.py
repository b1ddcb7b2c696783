"""What a gateway is started with. Nothing here comes from a client."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

JSON_BODY_BYTES = 1_000_000
PART_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Settings:
    data: Path  # database, data sets and jobs' folders; this gateway's alone
    runner: tuple[str, ...]  # the command that trains, without its arguments
    accelerators: tuple[str, ...]  # served here, the first is the default
    price_table: Path
    models_roots: tuple[Path, ...] = ()
    hub_cache: Path | None = None
    outputs: Mapping[str, Path] = field(default_factory=dict)  # "gs://bucket/prefix" -> folder that stands for it
    public_url: str = "http://127.0.0.1:8080/v1"
    console_url: str | None = None
    grace_seconds: float = 300  # between SIGTERM and SIGKILL of a runner
    max_restarts: int = 3  # of a runner that crashed, in a row without a new checkpoint
    default_max_jobs: int = 10  # of a project on one accelerator that have not ended
    heartbeat_seconds: float = 15
    requests_per_second: float = 50  # per key; twice as many in a burst
    max_dataset_bytes: int = 4 * 1024**3
