"""safetensors in and out, one tensor in memory at a time. Written bytes are those of data/files/safetensors.cc."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from runner.failure import RunnerError

DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
_MOST_HEADER_BYTES = 100_000_000


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    name: str
    dtype: str  # as in the file; only DTYPES can be read as arrays
    shape: tuple[int, ...]
    begin: int  # in the file
    end: int


class SafetensorsFile:
    """A file that stays open and is read where it lies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            if length > min(_MOST_HEADER_BYTES, size - 8):
                raise RunnerError("model_invalid", f"{path}: not a safetensors file, or cut short")
            try:
                header = json.loads(file.read(length))
                header.pop("__metadata__", None)
                self.tensors = {
                    name: TensorInfo(
                        name, entry["dtype"], tuple(entry["shape"]), *(8 + length + at for at in entry["data_offsets"])
                    )
                    for name, entry in header.items()
                }
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RunnerError("model_invalid", f"{path}: its header cannot be read: {error}") from error
            for info in self.tensors.values():
                if not 8 + length <= info.begin <= info.end <= size:
                    raise RunnerError("model_invalid", f"{path}: {info.name} lies outside the file")
                if info.dtype in DTYPES and info.end - info.begin != DTYPES[info.dtype].itemsize * _count(info.shape):
                    raise RunnerError("model_invalid", f"{path}: {info.name} has another length than its shape says")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def bytes(self, info: TensorInfo) -> memoryview:
        return memoryview(self._map)[info.begin : info.end]

    def array(self, info: TensorInfo) -> np.ndarray:
        if info.dtype not in DTYPES:
            raise RunnerError(
                "model_invalid", f"{self.path}: {info.name} has dtype {info.dtype}; expected F32, BF16 or F16"
            )
        return np.frombuffer(self.bytes(info), dtype=DTYPES[info.dtype]).reshape(info.shape)


@dataclasses.dataclass(frozen=True)
class TensorSource:
    """A tensor that is to be written; its bytes are asked for when their turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int  # bytes
    read: Callable[[], memoryview | np.ndarray]


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def array_source(name: str, dtype: str, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> TensorSource:
    return TensorSource(name, dtype, shape, _count(shape) * DTYPES[dtype].itemsize, read)


def write_safetensors(path: Path, tensors: list[TensorSource]) -> str:
    """Writes and syncs a new file. Returns its SHA-256."""
    entries, offset = ['"__metadata__":{"format":"pt"}'], 0  # without it older transformers refuse the file
    for tensor in tensors:
        shape = ",".join(str(extent) for extent in tensor.shape)
        entries.append(
            f'{json.dumps(tensor.name, ensure_ascii=False)}:{{"dtype":"{tensor.dtype}","shape":[{shape}],'
            f'"data_offsets":[{offset},{offset + tensor.size}]}}'
        )
        offset += tensor.size
    header = ("{" + ",".join(entries) + "}").encode()
    header += b" " * (-len(header) % 8)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for part in (len(header).to_bytes(8, "little"), header):
            file.write(part)
            digest.update(part)
        for tensor in tensors:
            value = tensor.read()
            data = (
                value
                if isinstance(value, memoryview)
                else memoryview(np.ascontiguousarray(value).view(np.uint8).reshape(-1))
            )
            if len(data) != tensor.size:
                raise RunnerError(
                    "internal", f"{path}: {tensor.name} has {len(data)} bytes, and {tensor.size} were announced"
                )
            file.write(data)
            digest.update(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
