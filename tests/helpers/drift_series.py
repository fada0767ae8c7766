"""Pairs of equal sides, recorded and made up, and what the timing room says about them.

`python tests/helpers/drift_series.py` prints the table of rates that is in `tests/data/drift`.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.timing.sampling import StopRule, comparisons, interleave
from common.timing.statistics import RESOLUTION, Verdict, compare

DATA = Path(__file__).parent.parent / "data" / "drift"
RENEWED = (
    "quiet_1_thread",
    "bursts_1_thread",
    "quiet_2_threads",
    "shared_1_thread",
)
STEP = 33  # rounds; makes 200 stretches of 240 rounds
DIFFERENT = {Verdict.FASTER, Verdict.SLOWER}
Pair = NDArray[np.float64]  # shape (rounds, 2), ns


@dataclass(frozen=True)
class Rates:
    """Verdicts over many pairs; `peeked`: equal sides called different after any one round."""

    verdicts: Counter[Verdict]
    peeked: int
    rounds: list[int]

    @property
    def pairs(self) -> int:
        return len(self.rounds)

    def share(self, *verdicts: Verdict) -> float:
        return sum(self.verdicts[v] for v in verdicts) / self.pairs


def recorded_series(name: str) -> list[Pair]:
    """One array of shape (rounds, 2) for each pair of processes, in ns."""
    with gzip.open(DATA / f"{name}.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.int64)
    return [table[table[:, 0] == pair][:, 3:].astype(float) for pair in np.unique(table[:, 0])]


def recorded_pairs(names: Sequence[str], rounds: int, step: int = STEP) -> list[Pair]:
    """Stretches of `rounds` of these files' series, one beginning every `step` rounds.

    They overlap, so their errors are not independent; no stretch is twice there. The sides change
    places in every second one: which of the two processes is the candidate must not matter.
    """
    stretches = [
        series[start : start + rounds]
        for name in names
        for series in recorded_series(name)
        for start in range(0, len(series) - min(rounds, len(series)) + 1, step)
    ]
    return [s[:, ::-1] if i % 2 else s for i, s in enumerate(stretches)]


def synthetic_pairs(count: int, rounds: int, seed: int) -> list[Pair]:
    """Two equal sides of 5 ms under drift of every kind that we know from recordings.

    Shared within a round: a random walk (0.5 % a round) and steps of the clock frequency (-12 %
    or back, 2 % of rounds; half of them strike between the two sides). Each side's own: AR(1)
    noise (sd 2 %, rho 0.4), page placement (sd 1.4 %, new every second round), spikes (6 %, up to
    3x), and a neighbour that takes 25 % during a fifth of the time, at a fixed period.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        walk = np.cumsum(rng.normal(0, 0.005, rounds))[:, None]
        slow = np.cumsum(rng.random((rounds, 2)).ravel() < 0.01) % 2 == 1
        noise = np.zeros((rounds, 2))
        noise[0] = rng.normal(0, 0.02, 2)
        for i in range(1, rounds):
            noise[i] = 0.4 * noise[i - 1] + rng.normal(0, 0.02 * np.sqrt(1 - 0.4**2), 2)
        pages = np.repeat(rng.normal(0, 0.014, ((rounds + 1) // 2, 2)), 2, axis=0)[:rounds]
        spikes = np.where(rng.random((rounds, 2)) < 0.06, rng.uniform(0, 1.1, (rounds, 2)), 0.0)
        period, phase = rng.uniform(5, 40), rng.uniform(0, 1)
        busy = (np.arange(2 * rounds) / period + phase) % 1.0 < 0.2
        steps = (0.12 * slow + 0.25 * busy).reshape(rounds, 2)
        slots = np.log(5e6) + walk + steps + noise + spikes  # by position in the round
        swapped = rng.random(rounds) < 0.5  # which side came first
        slots[swapped] = slots[swapped][:, ::-1]
        pairs.append(np.exp(slots + pages))
    return pairs


def replayed(durations: NDArray[np.float64], factor: float) -> Callable[[], dict[str, int]]:
    """A side that takes as long as was recorded, times `factor`."""
    values: Iterator[float] = iter(durations * factor)
    return lambda: {"decode": round(next(values))}


def measure_rates(pairs: Sequence[Pair], factor: float, resolution: float = RESOLUTION) -> Rates:
    """Runs `interleave` with its stop rule on each pair; the candidate is `factor` times slower."""
    verdicts: Counter[Verdict] = Counter()
    peeked = 0
    rounds = []
    for pair in pairs:
        rule = replace(StopRule(), max_rounds=min(StopRule().max_rounds, len(pair)))
        sides = {"a": replayed(pair[:, 0], 1.0), "b": replayed(pair[:, 1], factor)}
        measured = interleave(sides, "a", rule, clock_ns=lambda: 0)
        found = comparisons(measured, resolution)["b", "decode"]
        verdicts[found.verdict] += 1
        rounds.append(found.n)
        peeked += factor == 1.0 and any(
            compare(pair[:n, 0], pair[:n, 1], resolution=resolution).verdict in DIFFERENT
            for n in range(rule.min_rounds, found.n + 1)
        )
    return Rates(verdicts, peeked, rounds)


def main() -> None:
    """Prints the rates of each source as a Markdown table."""
    rounds = StopRule().max_rounds
    sources = {name: recorded_pairs([name], rounds) for name in RENEWED}
    sources["all four"] = recorded_pairs(RENEWED, rounds)
    sources["kept_pages_1_thread"] = recorded_pairs(["kept_pages_1_thread"], rounds, step=rounds)
    sources["synthetic"] = synthetic_pairs(200, rounds, seed=1)
    print("| source | pairs | equal called different | after any round | SAME ", end="")
    print("| +5 % SLOWER | -5 % FASTER | rounds (median) |")
    print("|---|---|---|---|---|---|---|---|")
    for name, pairs in sources.items():
        equal, slow, fast = (measure_rates(pairs, f) for f in (1.0, 1.05, 1 / 1.05))
        print(
            f"| {name} | {equal.pairs} | {equal.share(*DIFFERENT):.1%} "
            f"| {equal.peeked / equal.pairs:.1%} | {equal.share(Verdict.SAME):.1%} "
            f"| {slow.share(Verdict.SLOWER):.1%} | {fast.share(Verdict.FASTER):.1%} "
            f"| {np.median(equal.rounds):.0f} |"
        )


if __name__ == "__main__":
    main()
