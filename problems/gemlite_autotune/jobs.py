"""What is to be compiled? One job per kernel, with a name that changes whenever its result would.

A job is plain data: it goes to workers and into cache keys as JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from common.traces.compiled_kernel import SCHEMA
from problems.gemlite_autotune.devices import GpuDescription, describe
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.pruning import candidates
from problems.gemlite_autotune.routes import family_for
from problems.gemlite_autotune.shipped_tables import PINNED, Config, Tables, tag_for_gpu

# Raised whenever the same job would give another file: the worker's or the metrics' rules changed.
REVISION = 1


@dataclass(frozen=True)
class Job:
    """One configuration of one family for one batch of one layer on one GPU."""

    gpu: str
    layer: Layer
    m: int
    family: str
    config: Config

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def key(self) -> str:
        """Name of the job's file in the cache."""
        parts = [SCHEMA, REVISION, sorted(PINNED.items()), self.to_json()]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def title(self) -> str:
        return f"{self.family} {self.config} M={self.m} {self.layer} {self.gpu}"


def parse_job(document: dict[str, Any]) -> Job:
    config = dict(document["config"])
    config["others"] = tuple(tuple(pair) for pair in config.get("others", ()))
    return Job(
        str(document["gpu"]),
        Layer(**document["layer"]),
        int(document["m"]),
        str(document["family"]),
        Config(**config),
    )


def space_jobs(gpu: str, layer: Layer, m: int, mode: str, family: str | None = None) -> list[Job]:
    """Every configuration that the autotuner would time for this batch."""
    chosen = family or family_for(m, layer.weights.bits, layer.weights.microscaling)
    found = candidates(chosen, layer, m, describe(gpu), mode)
    return [Job(gpu, layer, m, chosen, config) for config in found]


def winner_job(
    gpu: str, layer: Layer, m: int, tables: Tables, tuned_on: str | None = None
) -> Job | None:
    """The shipped winner for this key, of the GPU itself or of another that it was `tuned_on`.

    M = 64 is looked up where the tables have it, under the family that was routed to then.
    """
    name = describe(tuned_on or gpu).name
    tag = tag_for_gpu(name, tuple(tables.by_gpu))
    if tag is None:
        return None
    key = layer.key(m)
    for family in (family_for(m, layer.weights.bits, layer.weights.microscaling), "GEMM_SPLITK"):
        config = tables.by_gpu[tag].get(family, {}).get(key)
        if config is not None:
            return Job(gpu, layer, m, family, config)
    return None


def gpu_of(job: Job) -> GpuDescription:
    return describe(job.gpu)
