"""Are equal sides rarely called different, and is a slowdown of 5 % found, under real drift?

Both through the public path: `interleave` with its stop rule asks after every round, and
`comparisons` gives the verdict on what was measured until then.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers.drift_series import (
    DIFFERENT,
    RENEWED,
    Pair,
    measure_rates,
    recorded_pairs,
    recorded_series,
    synthetic_pairs,
)

from common.timing.sampling import StopRule
from common.timing.statistics import Verdict

PAIRS = 200


@pytest.fixture(scope="module", params=["recorded", "synthetic"])
def pairs(request: pytest.FixtureRequest) -> list[Pair]:
    rounds = StopRule().max_rounds
    if request.param == "recorded":
        return recorded_pairs(RENEWED, rounds)
    return synthetic_pairs(PAIRS, rounds, seed=1)


def test_equal_sides_are_rarely_called_different(pairs: list[Pair]) -> None:
    rates = measure_rates(pairs, 1.0)
    assert rates.pairs >= PAIRS
    assert rates.share(*DIFFERENT) <= 0.05
    assert rates.peeked <= 0.05 * rates.pairs  # nor would a look after each round have said so


def test_a_side_slowed_by_five_percent_is_found(pairs: list[Pair]) -> None:
    rates = measure_rates(pairs, 1.05)
    assert rates.share(Verdict.SLOWER) >= 0.90
    assert rates.share(Verdict.FASTER) == 0.0


def test_a_verdict_without_a_resolution_would_fail_on_these_recordings() -> None:
    """What the band of equivalence is for: bare significance calls equal sides different."""
    pairs = recorded_pairs(["kept_pages_1_thread"], 120, step=40)
    significant = measure_rates(pairs, 1.0, resolution=1e-6)
    assert significant.share(*DIFFERENT) > 0.2


def test_sides_that_keep_their_pages_differ_more_than_sides_that_are_renewed() -> None:
    def spread(name: str) -> float:
        series = recorded_series(name)
        return float(np.std([np.median(np.log(s[:80, 1] / s[:80, 0])) for s in series]))

    assert spread("kept_pages_1_thread") > 1.5 * spread("quiet_1_thread")
