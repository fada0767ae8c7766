"""What is in a safetensors file, and where? Reads headers and single tensors, trusts nothing.

The format: eight bytes, the length of the header (little endian); the header, a JSON object of
name -> {dtype, shape, data_offsets}; then the data, contiguous and without holes. It is read here
rather than with the library because this is all of it, and a file that is cut short is then refused
in one line before anything is allocated. No other format is read: pickles can run code.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from common.errors import UsageError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies; `offset_bytes` counts from the start of the file."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset_bytes: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def require_plain_file(path: Path) -> None:
    """Refuse what is missing, a symlink or no regular file: a link could lead out of the folder."""
    if path.is_symlink():
        raise UsageError(
            f"{path.name} in {path.parent} is a symlink, which is not followed: "
            "copy the folder with `cp -rL` and pass the copy"
        )
    if not path.is_file():
        raise UsageError(
            f"{path.name} is missing in {path.parent} (or is no file): "
            "copy the whole checkpoint folder again"
        )


def read_header(path: Path) -> dict[str, StoredTensor]:
    """All tensors of one file by name; UsageError if the file is damaged or of another dtype."""
    require_plain_file(path)
    damaged = UsageError(
        f"{path.name} is cut short or no safetensors file: copy it again and compare its checksum"
    )
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, size_bytes - 8):
                raise damaged
            header = json.loads(file.read(header_bytes))
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror}: make it readable") from error
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if not isinstance(header, dict):
        raise damaged
    header.pop("__metadata__", None)
    start = 8 + header_bytes
    tensors = {name: _entry(path, name, entry, start, damaged) for name, entry in header.items()}
    end = start
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset_bytes, t.size_bytes)):
        if tensor.offset_bytes != end:
            raise damaged
        end += tensor.size_bytes
    if end != size_bytes:
        raise damaged
    return tensors


def _entry(path: Path, name: str, entry: object, start: int, damaged: UsageError) -> StoredTensor:
    if not isinstance(entry, dict):
        raise damaged
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(dtype, str) and _are_counts(shape) and _are_counts(offsets)):
        raise damaged
    if dtype not in DTYPES:
        raise UsageError(
            f"{path.name}: tensor {name[:60]!r} is stored as {dtype[:20]!r}, but only "
            f"{', '.join(DTYPES)} are read: choose a checkpoint that is not quantised"
        )
    if len(offsets) != 2:
        raise damaged
    stored = StoredTensor(path, name, DTYPES[dtype], tuple(shape), start + offsets[0])
    if offsets[1] - offsets[0] != stored.size_bytes:
        raise damaged
    return stored


def _are_counts(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def read_tensor(stored: StoredTensor) -> Tensor:
    """The values, in the stored dtype and shape, in CPU memory of their own."""
    if stored.size_bytes == 0:
        return torch.empty(stored.shape, dtype=stored.dtype)
    buffer = bytearray(stored.size_bytes)
    try:
        with stored.path.open("rb") as file:
            file.seek(stored.offset_bytes)
            got_bytes = file.readinto(buffer)
    except OSError as error:
        raise UsageError(f"{stored.path.name}: {error.strerror}: make it readable") from error
    if got_bytes != stored.size_bytes:
        raise UsageError(f"{stored.path.name} changed while it was read: copy the checkpoint again")
    return torch.frombuffer(buffer, dtype=stored.dtype).reshape(stored.shape)
