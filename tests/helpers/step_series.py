"""Made-up captures of equal and of changed code, step by step, and what the verdict says of them.

`python tests/helpers/step_series.py` prints the rates by kind of noise (run it with PYTHONPATH=.).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.diff.sides import Side
from common.diff.verdict import judge_traces
from common.traces.model import Step, Trace, empty_allocations, empty_gpu, empty_host

DIFFERENT = ("FASTER", "SLOWER")


@dataclass(frozen=True)
class Noise:
    """What moves the steps of one capture, all relative.

    sd and rho: AR(1) noise; walk: a random walk's step; trend: a drift over the whole capture, of
    either sign; spikes: share of steps up to twice as long; first: the first step's excess;
    level: what one capture as a whole differs from another one of equal code.
    """

    sd: float = 0.02
    rho: float = 0.0
    walk: float = 0.0
    trend: float = 0.0
    spikes: float = 0.0
    first: float = 0.0
    level: float = 0.0


KINDS: dict[str, Noise] = {
    "independent, 1 %": Noise(sd=0.01),
    "independent, 10 %": Noise(sd=0.10),
    "AR(1) 0.4, 3 %": Noise(sd=0.03, rho=0.4),
    "AR(1) 0.7, 5 %": Noise(sd=0.05, rho=0.7),
    "AR(1) 0.7, 10 %": Noise(sd=0.10, rho=0.7),
    "random walk 0.5 %, noise 2 %": Noise(walk=0.005),
    "trend 5 %, AR(1) 0.4, 2 %": Noise(rho=0.4, trend=0.05),
    "spikes 10 %, warm-up 3×": Noise(spikes=0.1, first=2.0),
}


def series(noise: Noise, steps: int, factor: float, rng: np.random.Generator) -> list[int]:
    """Durations in ns of the steps of one capture of code that takes 5 ms × factor a step."""
    own = np.empty(steps)
    value = rng.normal(0, noise.sd)
    for i in range(steps):
        own[i] = value
        value = noise.rho * value + rng.normal(0, noise.sd * np.sqrt(1 - noise.rho**2))
    own += np.cumsum(rng.normal(0, noise.walk, steps)) + rng.normal(0, noise.level)
    own += rng.choice((-1, 1)) * noise.trend * np.linspace(-0.5, 0.5, steps)
    excess = np.where(rng.random(steps) < noise.spikes, rng.uniform(0, 1, steps), 0.0)
    excess[0] += noise.first
    return [int(ns) for ns in 5e6 * factor * np.exp(own) * (1 + excess)]


def side_of(spans_ns: Sequence[int], path: Path) -> Side:
    """A side whose trace holds nothing but back-to-back steps of these spans."""
    ends = np.cumsum(spans_ns).tolist()
    steps = tuple(
        Step(f"ProfilerStep#{i}", end - span, end)
        for i, (span, end) in enumerate(zip(spans_ns, ends, strict=True))
    )
    trace = Trace("torch", "made up", (), (), empty_gpu(), empty_host(), empty_allocations(), (),
                  steps)  # fmt: skip
    summary = {"devices": [], "cpu_time_ns": None, "gpu_time_ns": 0}
    return Side(path.name, "trace", "torch", trace, summary, path)


def verdicts(noise: Noise, factor: float, pairs: int, seed: int, folder: Path) -> Counter[str]:
    """Verdicts over pairs of captures of 10 to 50 steps; B takes `factor` times as long."""
    rng = np.random.default_rng(seed)
    places = [folder / "a", folder / "b"]
    for place in places:
        place.write_text(place.name)
    found: Counter[str] = Counter()
    for _ in range(pairs):
        lengths = rng.integers(10, 51, 2)
        a = side_of(series(noise, int(lengths[0]), 1.0, rng), places[0])
        b = side_of(series(noise, int(lengths[1]), factor, rng), places[1])
        found[judge_traces(a, b).verdict] += 1
    return found


def main() -> None:
    """Prints the table of rates."""
    print("| noise | equal called different | SAME | +10 % SLOWER | -10 % FASTER |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        shifts = {f"{k}, level 2 %": Noise(**{**vars(v), "level": 0.02}) for k, v in KINDS.items()}
        for name, noise in {**KINDS, **shifts}.items():
            equal, slow, fast = (
                verdicts(noise, factor, 400, 1, Path(place)) for factor in (1.0, 1.1, 1 / 1.1)
            )
            wrong = sum(equal[verdict] for verdict in DIFFERENT)
            print(
                f"| {name} | {wrong / 400:.1%} | {equal['SAME'] / 400:.1%} "
                f"| {slow['SLOWER'] / 400:.1%} | {fast['FASTER'] / 400:.1%} |"
            )


if __name__ == "__main__":
    main()
