"""How many bytes must move to decode one token with weight-only float8, and how many live at once?

At batch 1 every linear weight is used once per token, so the bytes that move per weight, times the
weights, over the bandwidth, are a floor for the time. The paths below list every kernel that
touches an [N, K] tensor, with bytes per weight element. Left out, because they do not grow with
N * K: activations, outputs, and the scale before it is expanded ([N, 1] float32, 4/K bytes).

The lists of the eager paths were counted from `torch.profiler` (record_shapes, profile_memory) on
one quantised Linear(1024, 1024), torch 2.13 on CPU with torchao 0.13.0 and 0.14.1: the operators,
the shapes and types of their inputs, and each allocation. So origin is "modelled": operators are
observed, but bytes are logical ones. What a memory bus really carries is

- less, where one kernel leaves its output in a cache that the next one reads (layers smaller than
  L2: published 3B runs on an RTX 5090 reach 102 % of the 29-byte bound);
- more on CPUs, where an ordinary store first reads the line that it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from common.errors import UsageError
from common.floors.roofline import time_floor_ns


@dataclass(frozen=True)
class Kernel:
    """One kernel over the weight: bytes per weight element that it reads and writes."""

    name: str
    read_bytes: int
    written_bytes: int
    why: str


@dataclass(frozen=True)
class Temporary:
    """A tensor of the weight's shape that is alive at the moment of the peak."""

    name: str
    bytes_per_element: int


@dataclass(frozen=True)
class DecodePath:
    """One way to compute a linear layer at batch 1.

    `temporaries` are the tensors of the weight's size that live at the peak, the stored weight
    itself not among them.
    """

    id: str
    title: str
    kernels: tuple[Kernel, ...]
    temporaries: tuple[Temporary, ...]
    evidence: str


_CAST_UP = Kernel("cast float8 to float32", 1, 4, "aten::to of the stored weight")
_CAST_DOWN = Kernel("cast float32 to bfloat16", 4, 2, "aten::to of the product")
_MATMUL = Kernel("matrix times vector, bfloat16", 2, 0, "aten::mm of the dequantised weight")
_AS_FLOAT32 = Temporary("weight as float32", 4)
_PRODUCT = Temporary("weight times scale, float32", 4)
_DEQUANTISED = Temporary("dequantised weight, bfloat16", 2)

_ALL = (
    DecodePath(
        "float8-0.13.0-eager",
        "torchao 0.13.0, float8 weight only, dequantised operator by operator",
        (
            _CAST_UP,
            Kernel(
                "expand the scale to [N, K]",
                0,
                4,
                "aten::repeat_interleave ends in aten::clone: a contiguous float32 [N, 1, K]",
            ),
            Kernel("multiply", 8, 4, "aten::mul of two full float32 [N, K] tensors"),
            _CAST_DOWN,
            _MATMUL,
        ),
        (_AS_FLOAT32, Temporary("expanded scale, float32", 4), _PRODUCT, _DEQUANTISED),
        "profiled on CPU; the same when compiled, as dequantise is one opaque operator there",
    ),
    DecodePath(
        "float8-0.14.1-eager",
        "torchao 0.14.1, float8 weight only, dequantised operator by operator",
        (
            _CAST_UP,
            Kernel("multiply", 4, 4, "aten::mul of [N, K] by [N, 1]: the scale is broadcast"),
            _CAST_DOWN,
            _MATMUL,
        ),
        (_AS_FLOAT32, _PRODUCT, _DEQUANTISED),
        "profiled on CPU",
    ),
    DecodePath(
        "float8-0.14.1-compiled-cpu",
        "torchao 0.14.1, float8 weight only, compiled: one dequantise kernel, then mm",
        (
            Kernel("fused dequantise", 1, 2, "one generated kernel: float8, scale, bfloat16"),
            _MATMUL,
        ),
        (_DEQUANTISED,),
        "generated code read; CUDA takes this path too when M > 1 or without "
        "coordinate_descent_tuning",
    ),
    DecodePath(
        "float8-fused-gemv",
        "float8 weight only, dequantised inside the matrix-vector product",
        (Kernel("fused dequantise and product", 1, 0, "one kernel reads the stored weight once"),),
        (),
        "generated Triton code read (M = 1, coordinate_descent_tuning on), not run",
    ),
    DecodePath(
        "bf16",
        "bfloat16 weights, not quantised",
        (_MATMUL,),
        (),
        "by definition",
    ),
    DecodePath(
        "int8-fused",
        "int8 weight only, one fused kernel",
        (Kernel("fused int8 product", 1, 0, "one kernel reads the stored weight once"),),
        (),
        "profiled on CPU: one aten::_weight_int8pack_mm per linear, nothing of a weight's size "
        "is written",
    ),
)

PATHS: Mapping[str, DecodePath] = MappingProxyType({path.id: path for path in _ALL})


def decode_path(path: str) -> DecodePath:
    """The path with this id. Raises UsageError, listing the ids, if there is none."""
    if path not in PATHS:
        raise UsageError(f"no decode path is called {path!r}; choose from {', '.join(PATHS)}")
    return PATHS[path]


def bytes_per_weight(path: str) -> int:
    """Logical bytes that all kernels of the path read and write per weight element."""
    return sum(k.read_bytes + k.written_bytes for k in decode_path(path).kernels)


def decode_floor_ns(linear_weights: int, path: str, bandwidth_gb_per_s: float) -> float:
    """The least time per decoded token, in nanoseconds, at batch 1.

    `linear_weights` counts the elements of every linear weight that one token uses (no embedding),
    `bandwidth_gb_per_s` is in 10^9 bytes per second. Linear layers only: attention over the cache,
    norms and launches come on top.
    """
    moved = linear_weights * bytes_per_weight(path)
    return time_floor_ns(moved, 0, bandwidth_gb_per_s, None).time_ns


def tokens_per_s(time_per_token_ns: float) -> float:
    """Tokens per second at this time per token."""
    if not time_per_token_ns > 0:
        raise UsageError(f"time per token is {time_per_token_ns!r}; pass nanoseconds above zero")
    return 1e9 / time_per_token_ns


def peak_temporary_bytes(path: str, largest_linear: int) -> int:
    """Bytes of weight-sized temporaries alive at the peak, for the largest linear's elements.

    Temporaries of one layer are freed before the next, so the largest layer sets the peak. Small
    scratch of the matrix product and the allocator's own rounding come on top.
    """
    if largest_linear < 0:
        raise UsageError(f"largest_linear is {largest_linear}; pass a number of elements")
    return largest_linear * sum(t.bytes_per_element for t in decode_path(path).temporaries)
