"""What is in a safetensors file? Headers and single tensors, with errors a user can act on.

The library reads and validates; this adds only what it leaves to its callers: one line per error,
and a refusal of dtypes that are no plain weights. No other format is read: pickles can run code.
Links are followed, because the caches of model hubs consist of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from common.errors import UsageError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file, not read yet."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def require_plain_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(
            f"{path.name} is missing in {path.parent} (or is no file): "
            "copy the whole checkpoint folder again"
        )


def _damaged(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path.name} is cut short or no safetensors file ({error}): "
        "copy it again and compare its checksum"
    )


def read_header(path: Path) -> dict[str, StoredTensor]:
    """All tensors of one file by name; UsageError if the file is damaged or of another dtype."""
    require_plain_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            found = {name: (p.get_dtype(), tuple(p.get_shape())) for name, p in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    for name, (dtype, _) in found.items():
        if dtype not in DTYPES:
            raise UsageError(
                f"{path.name}: tensor {name[:60]!r} is stored as {dtype[:20]!r}, but only "
                f"{', '.join(DTYPES)} are read: choose a checkpoint that is not quantised"
            )
    return {n: StoredTensor(path, n, DTYPES[dtype], shape) for n, (dtype, shape) in found.items()}


def read_tensor(stored: StoredTensor) -> Tensor:
    """The values, in the stored dtype and shape, in CPU memory of their own."""
    try:
        with safe_open(stored.path, framework="pt") as file:
            values: Tensor = file.get_tensor(stored.name)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(stored.path, error) from error
    if tuple(values.shape) != stored.shape:
        raise UsageError(f"{stored.path.name} changed while it was read: copy the checkpoint again")
    return values
