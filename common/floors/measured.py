"""What did a measurement of this machine find? The result, its statistics, and its JSON.

Samples are kept in nanoseconds, as they were taken; every rate is derived from them. So a reader of
the file can compute the statistics again, and nothing stands in it twice.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from common.errors import UsageError

SCHEMA = "worklog.floors/1"


@dataclass(frozen=True)
class Rate:
    """One rate of the machine, in 10^9 bytes or 10^12 operations per second.

    `work_per_sample` is in bytes (copying: read plus written) or operations (a fused multiply-add
    counts two). `working_set_bytes` is what one sample touches. `candidates` holds the median of
    each kernel that was tried, in the same unit; empty where there was no choice.
    """

    kernel: str
    unit: Literal["gb_per_s", "tflop_per_s"]
    work_per_sample: int
    working_set_bytes: int
    samples_ns: tuple[int, ...]
    candidates: Mapping[str, float] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return len(self.samples_ns)

    @property
    def best(self) -> float:
        return self._rate(min(self.samples_ns))

    @property
    def median(self) -> float:
        return self._rate(statistics.median(self.samples_ns))

    @property
    def interval(self) -> tuple[float, float] | None:
        """An interval that holds the true median with at least 95 %; None below six samples.

        From order statistics, so it assumes only that samples are independent: the k-th smallest
        and k-th largest, where k is the largest with 2 * P(Binomial(n, 1/2) < k) <= 5 %.
        """
        k, below = 0, 1
        while 2 * below <= 0.05 * 2**self.n:
            k += 1
            below += math.comb(self.n, k)
        if k == 0:
            return None
        ordered = sorted(self.samples_ns)
        return self._rate(ordered[-k]), self._rate(ordered[k - 1])

    def _rate(self, time_ns: float) -> float:
        per_ns = self.work_per_sample / time_ns
        return per_ns if self.unit == "gb_per_s" else per_ns / 1e3


@dataclass(frozen=True)
class MeasuredFloors:
    """The rates that one machine reached, with what is needed to judge them.

    `device` is the model of the CPU or GPU, `threads` None on GPUs. `last_cache_bytes` is the sum
    of the last-level caches that the process can use (None: unknown). `others_cpu_share` is the
    share of the machine's CPU time that went to others meanwhile (None: unknown): near 0 in a good
    run.
    """

    origin: Literal["measured-cpu", "measured-gpu"]
    device: str
    threads: int | None
    last_cache_bytes: int | None
    others_cpu_share: float | None
    torch_version: str
    read: Rate
    copy: Rate
    matmul_bf16: Rate
    matmul_fp32: Rate


_RATES = ("read", "copy", "matmul_bf16", "matmul_fp32")


def to_json(floors: MeasuredFloors) -> str:
    """The result as JSON: keys sorted, the derived statistics added for readers."""
    document = {"schema": SCHEMA, **dataclasses.asdict(floors)}
    for name in _RATES:
        rate: Rate = getattr(floors, name)
        document[name] |= {
            "n": rate.n,
            "best": round(rate.best, 4),
            "median": round(rate.median, 4),
            "interval": rate.interval and [round(end, 4) for end in rate.interval],
        }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> MeasuredFloors:
    """Read what `to_json` wrote. Statistics are derived from the samples again, not believed."""
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise UsageError(
                f"schema is {document['schema']!r}, not {SCHEMA!r}; measure the machine again"
            )
        fields: dict[str, Any] = {
            f.name: _rate(document[f.name]) if f.name in _RATES else document[f.name]
            for f in dataclasses.fields(MeasuredFloors)
        }
        if fields["origin"] not in ("measured-cpu", "measured-gpu"):
            raise ValueError(f"origin is {fields['origin']!r}")
        return MeasuredFloors(**fields)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"not a file of measured floors ({type(error).__name__}: {error}); "
            "measure the machine again"
        ) from error


def _rate(row: dict[str, Any]) -> Rate:
    samples = tuple(int(sample) for sample in row["samples_ns"])
    if not samples or min(samples) <= 0:
        raise ValueError("a rate has no samples above zero")
    if row["unit"] not in ("gb_per_s", "tflop_per_s"):
        raise ValueError(f"unit is {row['unit']!r}")
    return Rate(
        str(row["kernel"]),
        row["unit"],
        int(row["work_per_sample"]),
        int(row["working_set_bytes"]),
        samples,
        dict(row["candidates"]),
    )
