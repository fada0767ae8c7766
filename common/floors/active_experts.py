"""How many experts does a batch touch, and what does a layer's time owe to them?

With T tokens, k of E experts each: E[active] = E (1 - (1 - k/E)^T) where every expert is equally
likely; sum of 1 - (1 - p_i)^T where expert i is picked by a share p_i of the tokens (shares sum to
k). The first is exact for uniform routing, the second for independent tokens.

The time of a layer is then t = c0 + active · w / (η B) + flops / (φ P): a fixed part, the bytes of
the touched experts, the operations. The terms are added: max() underestimates the knee.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import UsageError

Matrix = npt.NDArray[np.float64]


def expected_active(experts: int, top_k: int, tokens: float) -> float:
    """Expected number of distinct experts for uniform routing; 0 for 0 tokens."""
    if not 1 <= top_k <= experts:
        raise UsageError(f"top_k is {top_k} of {experts} experts; choose 1..experts")
    if not 0 <= tokens < math.inf:
        raise UsageError(f"tokens is {tokens!r}; pass a finite number of zero or more")
    return experts * (1.0 - math.pow(1 - top_k / experts, tokens))


def expected_active_for_shares(shares: Sequence[float], tokens: float) -> float:
    """The same for shares p_i: the part of all tokens that picks expert i (they sum to k)."""
    if not len(shares) or not all(0 <= share <= 1 for share in shares):
        raise UsageError("shares of experts must lie in 0..1; divide the counts by the tokens")
    if not 0 <= tokens < math.inf:
        raise UsageError(f"tokens is {tokens!r}; pass a finite number of zero or more")
    return sum(1 - math.pow(1 - share, tokens) for share in shares)


@dataclass(frozen=True)
class Routing:
    """What one layer's routing did: `load` tokens per expert, `tokens` in all."""

    load: tuple[int, ...]
    tokens: int
    top_k: int

    @property
    def active(self) -> int:
        return sum(count > 0 for count in self.load)

    @property
    def imbalance(self) -> float:
        """Largest load over the mean load; 1 is even."""
        return max(self.load) * len(self.load) / sum(self.load)

    @property
    def entropy_bits(self) -> float:
        """Of the loads; log2(experts) is even."""
        total = sum(self.load)
        return -sum(n / total * math.log2(n / total) for n in self.load if n)

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(count / self.tokens for count in self.load)

    def expected_active(self, tokens: float) -> float:
        """What another number of tokens with these shares would touch."""
        return expected_active_for_shares(self.shares, tokens)


def routing_of(picks: npt.ArrayLike, experts: int) -> Routing:
    """Count the picks, an integer array (tokens, k); each row must name k different experts."""
    rows = np.asarray(picks)
    if rows.ndim != 2 or not rows.size or not np.issubdtype(rows.dtype, np.integer):
        raise UsageError("picks must be whole numbers, one row of k experts per token; mend them")
    if rows.min() < 0 or rows.max() >= experts:
        raise UsageError(f"picks name experts outside 0..{experts - 1}; use this model's routing")
    ordered = np.sort(rows, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise UsageError("a token picks the same expert twice; record top-k indices again")
    load = np.bincount(rows.ravel(), minlength=experts)
    return Routing(tuple(int(n) for n in load), rows.shape[0], rows.shape[1])


def compute_turn_tokens(
    experts: int, top_k: int, weight_bytes: float, flop_per_byte: float
) -> float:
    """T* = (E/k) (b/2) (P/B): from here on operations take longer than the bytes of all experts.

    `flop_per_byte` is the device's rate over its bandwidth.
    """
    return experts / top_k * weight_bytes / 2 * flop_per_byte


@dataclass(frozen=True)
class TimedBatch:
    """One measured point: a layer (or kernel) over `tokens` tokens, and the experts it touched."""

    tokens: float
    active: float
    time_us: float


@dataclass(frozen=True)
class ActiveLaw:
    """t = fixed + per_active × active + per_token × tokens, in microseconds.

    A coefficient of 0 is one that the points do not need (it would have come out negative).
    """

    fixed_us: float
    per_active_us: float
    per_token_us: float
    mean_error: float
    max_error: float

    def time_us(self, tokens: float, active: float) -> float:
        return self.fixed_us + self.per_active_us * active + self.per_token_us * tokens

    def bandwidth_share(self, expert_bytes: float, bandwidth_gb_per_s: float) -> float | None:
        """η: the part of the bandwidth at which experts are read; None if bytes cost nothing."""
        if not self.per_active_us:
            return None
        return expert_bytes / (self.per_active_us * 1e3 * bandwidth_gb_per_s)

    def rate_share(self, flops_per_token: float, rate_tflop_per_s: float) -> float | None:
        """φ: the part of the rate at which operations are done; None if they cost nothing."""
        if not self.per_token_us:
            return None
        return flops_per_token / (self.per_token_us * rate_tflop_per_s * 1e6)


def fit_active_law(points: Sequence[TimedBatch], *, operations: bool = True) -> ActiveLaw:
    """Least squares on the relative error, no coefficient below zero.

    Three columns have seven subsets, so all are solved and the best one without a negative
    coefficient is taken: exact, unlike clipping. Needs 3 points or more. `operations` False leaves
    the per-token term out: for points that all lie below the turn to compute, where it can only
    fit noise (a rate share above 1 is the sign).
    """
    if len(points) < 3 or any(p.time_us <= 0 for p in points):
        raise UsageError("the law needs at least 3 points with times above zero; measure more")
    times = np.array([p.time_us for p in points])
    columns = np.array([[1.0, p.active, p.tokens] for p in points]) / times[:, None]
    best: tuple[float, Matrix] | None = None
    for size in (1, 2, 3):
        for chosen in itertools.combinations(range(3 if operations else 2), size):
            found = np.linalg.lstsq(columns[:, chosen], np.ones(len(points)), rcond=None)[0]
            if (found < 0).any():
                continue
            coefficients = np.zeros(3)
            coefficients[list(chosen)] = found
            loss = float(((columns @ coefficients - 1) ** 2).sum())
            if best is None or loss < best[0]:
                best = (loss, coefficients)
    assert best is not None  # one positive column against ones is never negative
    errors = np.abs(columns @ best[1] - 1)
    fixed, per_active, per_token = (float(value) for value in best[1])
    return ActiveLaw(fixed, per_active, per_token, float(errors.mean()), float(errors.max()))
