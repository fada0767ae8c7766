"""How good were our predictions? Every set of every problem, scored on the first run that can.

Only sets whose hash stands in the run's manifest count as predictions; one that was written after
the run is *retrospective* and stands apart. A hit of a range that is wide is worth little, so the
width stands beside: the factor between its ends.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.contract.predictions import Prediction, PredictionSet, score
from common.contract.problem import Problem, load_problem, problem_names
from common.pages.scoring import is_about, runs_about
from common.recording.run_folder import open_run
from common.report.evidence import Evidence
from common.report.tables import Table, percent, significant

HIT, MISS, UNDECIDED, OPEN = "hit", "miss", "undecided", "open"
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Outcome:
    problem: str
    prediction: Prediction
    result: str  # hit, miss, undecided (the interval crosses a bound), open (not measured)

    @property
    def factor(self) -> float | None:
        """Between the ends of the range; None where one of them is not above zero."""
        low, high = self.prediction.low, self.prediction.high
        return high / low if low > 0 else None


@dataclass(frozen=True)
class ScoredSet:
    problem: str
    sets: PredictionSet
    state: str  # "sealed", "retrospective", or "open": no run that it is about
    outcomes: tuple[Outcome, ...]

    def count(self, result: str) -> int:
        return sum(outcome.result == result for outcome in self.outcomes)


def scored_sets() -> tuple[ScoredSet, ...]:
    """All sets of all problems, in the order of their files."""
    return tuple(found for name in problem_names() for found in score_problem(load_problem(name)))


def score_problem(problem: Problem) -> Iterable[ScoredSet]:
    runs = [open_run(problem.folder / place) for place in problem.evidence.values()]
    for sets in problem.predictions:
        named = [run for run in runs if is_about(sets, run)]
        about = [Evidence(run) for run in (*named, *runs_about(sets, problem))]
        about.sort(key=lambda evidence: str(evidence.manifest["started"]))
        results: dict[str, str] = {}
        sealed = [e for e in about if e.manifest["predictions"].get(sets.name) == sets.sha256]
        # A sealed run speaks first; any other only where there is none.
        for evidence in sealed or about:
            for found in score(sets, evidence.quantities()):
                word = {True: HIT, False: MISS}.get(found.hit) if found.hit is not None else None
                if word is None and found.value is not None:
                    word = UNDECIDED
                if word is not None:
                    results.setdefault(found.prediction.id, word)
        state = "sealed" if sealed else "retrospective" if results else "open"
        outcomes = tuple(
            Outcome(problem.name, p, results.get(p.id, OPEN)) for p in sets.predictions
        )
        yield ScoredSet(problem.name, sets, state, outcomes)


def wilson(hits: int, of: int) -> tuple[float, float] | None:
    """95 % interval of a share (Wilson 1927): honest for few, and where all were hit."""
    if of == 0:
        return None
    share = hits / of
    centre = (share + Z * Z / (2 * of)) / (1 + Z * Z / of)
    half = Z * math.sqrt(share * (1 - share) / of + Z * Z / (4 * of * of)) / (1 + Z * Z / of)
    # At the ends the formula gives exactly 0 or 1, but for rounding.
    low = 0.0 if hits == 0 else centre - half
    return low, 1.0 if hits == of else centre + half


def rate(hits: int, misses: int) -> str:
    ends = wilson(hits, hits + misses)
    if ends is None:
        return ""
    share = percent(hits / (hits + misses))
    return f"{share} ({100 * ends[0]:.0f} … {100 * ends[1]:.0f} %)"


def _width(outcomes: Iterable[Outcome]) -> str:
    factors = [outcome.factor for outcome in outcomes if outcome.factor is not None]
    return f"× {significant(statistics.median(factors))}" if factors else ""


def _counts(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    found = {r: sum(o.result == r for o in outcomes) for r in (HIT, MISS, UNDECIDED, OPEN)}
    numbers = (len(outcomes), found[HIT], found[MISS], found[UNDECIDED], found[OPEN])
    return (*map(str, numbers), rate(found[HIT], found[MISS]), _width(outcomes))


COUNTS = ("predictions", "hit", "miss", "undecided", "open", "hit rate", "median width")


def by_set_table(sets: Sequence[ScoredSet]) -> Table:
    rows = [
        (s.problem, f"`{s.sets.name}`", s.sets.sealed, s.state, *_counts(s.outcomes)) for s in sets
    ]
    honest = [outcome for s in sets if s.state == "sealed" for outcome in s.outcomes]
    rows.append(("**all that were sealed before their run**", "", "", "", *_counts(honest)))
    note = (
        "_Hit rate of what was decided, with its 95 % interval (Wilson); width: the factor between "
        "the ends of a range. A set is open until somebody records a run that it is about; "
        "undecided: the measured interval crosses a bound._"
    )
    columns = ("problem", "set", "sealed", "state", *COUNTS)
    return Table(columns, tuple(rows), COUNTS, note)


def by_kind_table(sets: Sequence[ScoredSet]) -> Table:
    """By what was predicted: counts from the source are easier than times."""
    kinds: dict[str, list[Outcome]] = {}
    for found in sets:
        if found.state == "sealed":
            for outcome in found.outcomes:
                kinds.setdefault(outcome.prediction.quantity.name, []).append(outcome)
    rows = [(f"`{kind}`", *_counts(outcomes)) for kind, outcomes in sorted(kinds.items())]
    misses = [
        f"{o.problem} {o.prediction.id}"
        for found in sets
        if found.state == "sealed"
        for o in found.outcomes
        if o.result == MISS
    ]
    note = f"_Missed: {', '.join(misses)}._" if misses else "_None of them was missed._"
    return Table(("quantity", *COUNTS), tuple(rows), COUNTS, note)
