"""Where a job's `output.uri` is. The operator maps buckets to folders of this machine (a mounted bucket, for instance);
an address that no mapping covers is refused when the job is submitted."""

import re
from collections.abc import Mapping
from pathlib import Path

from .errors import ApiProblem

_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}")
_PART = re.compile(r"[A-Za-z0-9._=+-]{1,255}")


def parse_output(text: str) -> tuple[str, Path]:
    """ "gs://bucket/prefix=FOLDER" of the command line. Throws ValueError."""
    address, separator, folder = text.partition("=")
    address = address.rstrip("/")
    if not separator or not folder or _parts(address) is None:
        raise ValueError(f"{text}: expected gs://BUCKET[/PREFIX]=FOLDER")
    return address, Path(folder).resolve()


def output_folder(uri: str, outputs: Mapping[str, Path]) -> Path:
    """Throws ApiProblem 422."""
    parts = _parts(uri.rstrip("/"))
    if parts is None:
        raise _refused("expected gs://bucket/folder with plain names")
    for address in sorted(outputs, key=len, reverse=True):
        known = _parts(address)
        if known is not None and parts[: len(known)] == known:
            return outputs[address].joinpath(*parts[len(known) :])
    places = ", ".join(sorted(outputs)) or "none"
    raise _refused(
        f"{uri} is no place that this service can write to (it has: {places}); download the result instead: "
        "set output.run_dir to a folder"
    )


def _parts(address: str) -> list[str] | None:
    bucket, _, rest = address.removeprefix("gs://").partition("/")
    if not _BUCKET.fullmatch(f"gs://{bucket}") or not address.startswith("gs://"):
        return None
    parts = rest.split("/") if rest else []
    if any(part in (".", "..") or not _PART.fullmatch(part) for part in parts):
        return None
    return [bucket, *parts]


def _refused(message: str) -> ApiProblem:
    return ApiProblem(422, "validation_failed", f"output.uri: {message}", param="output.uri")
