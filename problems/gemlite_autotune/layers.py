"""What is a linear layer to GemLite? Shape, weight format and activation type, as its keys see it.

Derived here from the rules of GemLite's `core.py` and `helper.py`, not asked of it: a test
compares both on thousands of layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import UsageError
from problems.gemlite_autotune.shipped_tables import Key

LARGEST_M = 4096  # the last bucket; larger batches use its entry
BLOCK_SCALE = 128  # side of a block in block quantisation


@dataclass(frozen=True)
class WeightFormat:
    """One way of storing weights and activations, by the name of GemLite's helper for it.

    `input_type` is GemLite's number of the activation type (16-bit floats share one).
    `group`: "given" (per group of K), "whole" (one scale per output), or "32" (microscaling).
    `scale_mode` is what GemLite calls channel_scale_mode.
    """

    name: str
    helper: str
    bits: int
    input_type: int
    elements_per_sample: int
    group: str
    activation_bytes: int
    weight_bytes: int  # of one stored element (of 32-bit words where weights are packed)
    scale_mode: int = 0
    microscaling: bool = False


def _formats() -> dict[str, WeightFormat]:
    rows = (
        WeightFormat("a16w4", "A16W4_HQQ_INT", 4, 1, 8, "given", 2, 4),
        WeightFormat("a16w2", "A16W2_HQQ_INT", 2, 1, 16, "given", 2, 4),
        WeightFormat("a16w1", "A16W1_HQQ_INT", 1, 1, 32, "given", 2, 4),
        WeightFormat("a16w8-grouped", "A16W8_HQQ_INT", 8, 1, 4, "given", 2, 4),
        WeightFormat("a16w8-int8", "A16W8_INT8", 8, 1, 1, "whole", 2, 1),
        WeightFormat("a16w8-fp8", "A16W8_FP8", 8, 1, 1, "whole", 2, 1),
        WeightFormat("a8w8-int8", "A8W8_INT8_dynamic", 8, 4, 1, "whole", 1, 1, 3),
        WeightFormat("a8w8-fp8", "A8W8_FP8_dynamic", 8, 3, 1, "whole", 1, 1, 3),
        WeightFormat("a8w8-int8-block", "A8W8_INT8_dynamic", 8, 4, 1, "whole", 1, 1, 5),
        WeightFormat("a8w8-fp8-block", "A8W8_FP8_dynamic", 8, 3, 1, "whole", 1, 1, 5),
        WeightFormat("a8w4-fp8", "A8W4_HQQ_INT_dynamic", 4, 3, 8, "given", 1, 4, 2),
        WeightFormat("a16w8-mxfp", "A16W8_MXFP", 8, 14, 1, "32", 2, 1, 0, True),
        WeightFormat("a16w4-mxfp", "A16W4_MXFP", 4, 14, 2, "32", 2, 1, 0, True),
        WeightFormat("a8w8-mxfp", "A8W8_MXFP_dynamic", 8, 16, 1, "32", 1, 1, 2, True),
        WeightFormat("a8w4-mxfp", "A8W4_MXFP_dynamic", 4, 16, 2, "32", 1, 1, 2, True),
        WeightFormat("a4w4-mxfp", "A4W4_MXFP_dynamic", 4, 17, 2, "32", 1, 1, 4, True),
    )
    return {row.name: row for row in rows}


FORMATS: Mapping[str, WeightFormat] = _formats()
ACTIVATIONS = ("fp16", "bf16")


@dataclass(frozen=True)
class Layer:
    """N outputs, K inputs; `group` only for formats with one scale per group of K.

    `activation` is the type that goes in and comes out; both 16-bit floats share all tables.
    """

    n: int
    k: int
    format: str
    group: int | None = None
    activation: str = "fp16"

    @property
    def weights(self) -> WeightFormat:
        return FORMATS[self.format]

    @property
    def group_size(self) -> int:
        """As the key sees it: a layer without groups has one of K."""
        kind = self.weights.group
        if kind == "given":
            assert self.group is not None
            return self.group
        return self.k if kind == "whole" else 32

    @property
    def type_id(self) -> int:
        return 100 * self.weights.input_type + self.weights.bits

    def key(self, m: int) -> Key:
        """The key of GemLite's tables for a batch of `m` rows."""
        return Key(
            bucket(m),
            self.n,
            self.k,
            self.group_size,
            self.weights.elements_per_sample,
            self.type_id,
        )

    @property
    def weight_bytes(self) -> int:
        """Stored bytes of the quantised weight, scales left out."""
        return self.n * self.k * self.weights.bits // 8

    def __str__(self) -> str:
        group = f" g{self.group}" if self.group else ""
        return f"{self.n}x{self.k} {self.format}{group} {self.activation}"


def check_layer(layer: Layer) -> Layer:
    """The layer, or UsageError for one that GemLite would refuse or that no format describes."""
    weights = FORMATS.get(layer.format)
    if weights is None:
        raise UsageError(f"no format {layer.format!r}; there are {', '.join(FORMATS)}")
    if layer.activation not in ACTIVATIONS:
        raise UsageError(f"no activation {layer.activation!r}; use {' or '.join(ACTIVATIONS)}")
    if layer.n < 1 or layer.k < 32 or layer.k % 32:
        raise UsageError(f"{layer.n}x{layer.k}: K must be a multiple of 32; choose another shape")
    if (weights.group == "given") != (layer.group is not None):
        does = "needs" if weights.group == "given" else "takes no"
        raise UsageError(f"format {layer.format} {does} group size; correct the layer")
    if layer.group is not None and (layer.group < 16 or layer.k % layer.group):
        raise UsageError(
            f"group size {layer.group} must be 16 or more and divide K = {layer.k}; choose another"
        )
    return layer


def bucket(m: int) -> int:
    """GemLite's M_CLOSEST: the next of 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, … 4096."""
    if m < 1:
        raise UsageError(f"a batch of {m} rows is none; give 1 or more")
    power = 1
    while power < min(m, LARGEST_M):
        power *= 2
    between = 3 * power // 4
    return between if between >= 24 and m <= between else power
