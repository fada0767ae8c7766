"""What did others publish about mixtures of experts, and where?

Kernel times, policies, throughputs and model sizes stand in `moe_published.toml`, each with its
source. Everything here has the origin "published".
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from common.errors import UsageError
from common.floors.active_experts import TimedBatch, expected_active
from common.floors.moe_sizes import DeepSpeedMoe

SCHEMA = "worklog.moe-published/1"


@dataclass(frozen=True)
class KernelTimes:
    """Times of one expert layer's kernel over growing batches, with uniform random routing."""

    id: str
    url: str
    device: str
    bandwidth_gb_per_s: float
    rate_tflop_per_s: float
    experts: int
    top_k: int
    hidden: int
    expert_width: int
    weight_bytes: float
    tokens: tuple[int, ...]
    time_us: tuple[float, ...]

    @property
    def expert_bytes(self) -> float:
        return 3 * self.hidden * self.expert_width * self.weight_bytes

    @property
    def flops_per_token(self) -> float:
        return 6.0 * self.hidden * self.expert_width * self.top_k

    def points(self) -> list[TimedBatch]:
        """The points with the expected number of touched experts: the routing was not recorded."""
        return [
            TimedBatch(tokens, expected_active(self.experts, self.top_k, tokens), time)
            for tokens, time in zip(self.tokens, self.time_us, strict=True)
        ]


@dataclass(frozen=True)
class PublishedPolicy:
    task: str
    machine: str
    prompt: int
    generated: int
    micro_batch: int
    micro_batches: int


@dataclass(frozen=True)
class PublishedSize:
    """`printed` in 10^9 parameters, as text, so that its digits are known."""

    id: str
    printed: str
    model: DeepSpeedMoe
    known_miss: str
    remark: str


@dataclass(frozen=True)
class Figure9:
    """One layer of Mixtral 8x7B on an L4: rows by micro-batch, columns by context, in ms."""

    micro_batch: tuple[int, ...]
    context: tuple[int, ...]
    ffn_ms: tuple[float, ...]
    transfer_ms: tuple[tuple[float, ...], ...]
    cpu_attention_ms: tuple[tuple[float, ...], ...]


@functools.cache
def _document() -> Mapping[str, Any]:
    file = resources.files("common.floors").joinpath("moe_published.toml")
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA:
        raise UsageError(f"moe_published.toml is not {SCHEMA}; install the package again")
    return document


def source_url(source: str) -> str:
    url: str = _document()["sources"][source]["url"]
    return url


@functools.cache
def kernel_times() -> Mapping[str, KernelTimes]:
    """Every published series by its id."""
    found = {}
    for row in _document()["kernel"]:
        fields = {key: value for key, value in row.items() if key != "source"}
        fields["tokens"], fields["time_us"] = tuple(row["tokens"]), tuple(row["time_us"])
        found[row["id"]] = KernelTimes(url=source_url(row["source"]), **fields)
    return found


def policies() -> list[PublishedPolicy]:
    return [
        PublishedPolicy(
            row["task"], row["machine"], row["prompt"], generated, row["micro_batch"], passes
        )
        for row in _document()["policy"]
        for generated, passes in zip(row["generated"], row["micro_batches"], strict=True)
    ]


def sizes() -> list[PublishedSize]:
    return [
        PublishedSize(
            row["id"],
            row["printed"],
            DeepSpeedMoe(
                row["layers"],
                row["hidden"],
                tuple(experts for layers, experts in row["experts"] for _ in range(layers)),
                row.get("residual", False),
            ),
            row.get("known_miss", ""),
            row.get("remark", ""),
        )
        for row in _document()["size"]
    ]


def throughputs(setting: str) -> Mapping[str, tuple[float, ...]]:
    """Tokens per second at 32, 64, 128 and 256 generated tokens, by system."""
    row = _document()["throughput"][setting]
    return {key: tuple(value) for key, value in row.items() if isinstance(value, list)}


def figure9() -> Figure9:
    row = _document()["figure9"]
    return Figure9(
        tuple(row["micro_batch"]),
        tuple(row["context"]),
        tuple(row["ffn_ms"]),
        tuple(map(tuple, row["transfer_ms"])),
        tuple(map(tuple, row["cpu_attention_ms"])),
    )
