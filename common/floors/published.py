"""Do the published figures follow from bytes and bandwidth? Each row, calibrating or predicted.

The rows: pytorch/ao issue 3288 and the benchmark it links; GPT-Fast with torchao 0.13.0, batch 1,
decode compiled, prefill eager. Reported by a third party, not measured here. The bfloat16 row of a
card calibrates its share of the nominal bandwidth; float8 weight-only is then predicted:

- decode: the 29 bytes of each weight, but only the 1 stored byte where the float32 weight and its
  expanded scale fit into the L2 cache together and leave room: each pass finds what the last
  one wrote;
- time to first token: bfloat16's, plus what one decoded token costs more (prefill dequantises too);
- peak reserved memory: that of the float8 dynamic row, plus twice (eager prefill, and the pool of
  the captured graph) the 14 bytes of the head and of one MLP weight.

Retrospective: the L2 rule and the memory rule were found with these rows in sight. What does not
fit is marked open: float8 dynamic's own speed and memory, and the RTX 4090, whose L2 (72 MiB) is
exactly as large as the two temporaries of a 3B attention weight (8 × 3072 × 3072 bytes), so that
they stay partly: the row lies between the two sides of the rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import UsageError
from common.floors.devices import find_device
from common.floors.traffic import bytes_per_weight, peak_temporary_bytes

SLOW = "float8-0.13.0-eager"


@dataclass(frozen=True)
class Shapes:
    """Elements of the linear weights: `attention` and `mlp` list those of one layer."""

    layers: int
    attention: tuple[int, ...]
    mlp: tuple[int, ...]
    head: int
    embedding: int

    @property
    def linears(self) -> int:
        return self.layers * (sum(self.attention) + sum(self.mlp)) + self.head


def _shapes(layers: int, dim: int, key: int, mlp: int, vocab: int) -> Shapes:
    attention = (dim * dim, dim * key, dim * key, dim * dim)
    return Shapes(layers, attention, (dim * mlp,) * 3, vocab * dim, vocab * dim)


MODELS: Mapping[str, Shapes] = {
    "8B": _shapes(32, 4096, 1024, 14336, 128256),
    "3B": _shapes(28, 3072, 1024, 8192, 128256),
}


def l2_bytes(card: str) -> int:
    """The L2 cache of a card of these rows, from devices.toml, where its source stands."""
    device = find_device(f"NVIDIA GeForce {card}")
    size = None if device is None else device.value("l2_bytes")
    if size is None:
        raise UsageError(f"no L2 size is known of {card}; add it to devices.toml")
    return int(size)


@dataclass(frozen=True)
class Published:
    """One model on one card. Times to first token are None where the source gives none."""

    model: str
    card: str
    bf16_tokens_per_s: float
    float8wo_tokens_per_s: float
    float8dq_tokens_per_s: float
    bf16_first_token_ms: float | None
    float8wo_first_token_ms: float
    bf16_peak_gb: float
    float8wo_peak_gb: float
    float8dq_peak_gb: float


ROWS = (
    Published("8B", "RTX 5090", 105.73, 7.48, 169.80, 18.6, 144.2, 16.30, 26.00, 9.21),
    Published("3B", "RTX 5090", 226.03, 19.61, 292.44, None, 60.1, 7.45, 17.01, 5.28),
    Published("3B", "RTX 4090", 136.34, 10.78, 225.18, None, 100.1, 7.43, 17.11, 5.23),
)


@dataclass(frozen=True)
class Score:
    """One figure against the model. `role`: calibrates, predicted or open."""

    model: str
    card: str
    figure: str
    published: float
    modelled: float
    role: str

    @property
    def error(self) -> float:
        """Relative: above zero where the model gives more than was published."""
        return self.modelled / self.published - 1


def memory_bytes_per_weight(shapes: Shapes, l2_bytes: int) -> float:
    """Mean bytes per weight that 0.13.0 moves over the memory bus to decode one token."""
    if l2_bytes < 0:
        raise UsageError(f"l2_bytes is {l2_bytes}; pass the size of the cache, 0 for none")
    layer = (*shapes.attention, *shapes.mlp)
    resident = shapes.layers * sum(n for n in layer if 8 * n < l2_bytes)
    resident += shapes.head if 8 * shapes.head < l2_bytes else 0
    full = bytes_per_weight(SLOW)
    return full - (full - 1) * resident / shapes.linears


def slow_tokens_per_s(row: Published) -> float:
    moved = memory_bytes_per_weight(MODELS[row.model], l2_bytes(row.card))
    return row.bf16_tokens_per_s * bytes_per_weight("bf16") / moved


def slow_peak_gb(row: Published) -> float:
    shapes = MODELS[row.model]
    spike = peak_temporary_bytes(SLOW, shapes.head) + peak_temporary_bytes(SLOW, shapes.mlp[0])
    return row.float8dq_peak_gb + 2 * spike / 1e9


def scores(row: Published) -> tuple[Score, ...]:
    """All figures of one row. Nothing in them is fitted to a float8 weight-only figure."""
    shapes = MODELS[row.model]

    def score(figure: str, published: float, modelled: float, role: str) -> Score:
        return Score(row.model, row.card, figure, published, modelled, role)

    slow = slow_tokens_per_s(row)
    boundary = 8 * shapes.attention[0] == l2_bytes(row.card)  # neither side of the rule holds
    found = [
        score("bf16 tokens/s", row.bf16_tokens_per_s, row.bf16_tokens_per_s, "calibrates"),
        score("float8wo tokens/s", row.float8wo_tokens_per_s, slow, _role(boundary)),
        score(
            "float8dq tokens/s",
            row.float8dq_tokens_per_s,
            row.bf16_tokens_per_s * bytes_per_weight("bf16"),
            "open",
        ),
    ]
    if row.bf16_first_token_ms is not None:
        extra_ms = 1e3 / slow - 1e3 / row.bf16_tokens_per_s
        modelled_ms = row.bf16_first_token_ms + extra_ms
        found.append(
            score("float8wo first token ms", row.float8wo_first_token_ms, modelled_ms, "predicted")
        )
    stored_gb = (2 * shapes.linears + 2 * shapes.embedding) / 1e9
    stored_float8_gb = (shapes.linears + 2 * shapes.embedding) / 1e9
    return (
        *found,
        score("bf16 peak GB", row.bf16_peak_gb, stored_gb, "predicted"),
        score("float8dq peak GB", row.float8dq_peak_gb, stored_float8_gb, "open"),
        score("float8wo peak GB", row.float8wo_peak_gb, slow_peak_gb(row), "predicted"),
    )


def _role(open_question: bool) -> str:
    return "open" if open_question else "predicted"


def all_scores() -> tuple[Score, ...]:
    return tuple(score for row in ROWS for score in scores(row))
