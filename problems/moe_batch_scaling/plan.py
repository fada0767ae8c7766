"""Which points are taken? A preset's settings, checked, as groups of points that take turns.

The base of the sweep is every batch in both phases. Around it each factor is changed by itself
(sequence length, top-k, storage of the experts, skew of the routing), at the batches that the
preset names; `factorial = true` crosses all factors instead. What is compared stands in one group:
its points see the same inputs and are sampled in interleaved rounds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from common.errors import UsageError
from common.workloads.moe_config import MoeConfig
from problems.moe_batch_scaling.points import PHASES, Phase, Point

QUANTISED = ("int8", "float8")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Rounds:
    """How often a group is sampled. `seconds` never cuts below `least` rounds.

    `precision`: half width of the interval of log(ratio) at which a side is known well enough;
    `relative`: the same as a part of log(ratio) itself, where that is more.
    """

    least: int = 10
    most: int = 40
    seconds: float = 6.0
    precision: float = 0.015
    relative: float = 0.05


@dataclass(frozen=True)
class Plan:
    """The settings of a preset, as `problem.toml` has them."""

    model: str
    batches: tuple[int, ...]
    sequence: int = 128
    layers: int | str | None = None  # "fit": as many as the device's memory holds
    dtype: str = "float32"
    top_k: int | None = None  # None: the model's own
    decode_batches: tuple[int, ...] = ()  # further ones, for the fit of the active-expert law
    factor_batches: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sequences: tuple[int, ...] = ()
    top_ks: tuple[int, ...] = ()
    formats: tuple[str, ...] = ()
    skews: tuple[float, ...] = ()
    factorial: bool = False
    rounds: Rounds = Rounds()
    turn_rounds: Rounds | None = None  # of all batches in turn; None: as `rounds`
    side_rounds: Rounds | None = None  # of the comparison of backends; None: as `rounds`
    ranks: tuple[int, ...] = (1, 2)
    profiling_batches: tuple[int, ...] = ()  # of the cost of profiling; all batches if empty
    experts_of_ranks: int = 8
    model_of_ranks: str | None = None  # ranks are processes on CPUs; None: the preset's model
    pr_moe_experts: int = 32
    family: str = "mixtral"
    placement_tokens: tuple[int, ...] = (1, 16, 64, 256, 1024, 4096)

    def __post_init__(self) -> None:
        if not self.batches:
            raise UsageError("a sweep needs batches; name some")
        for name in (
            "batches",
            "decode_batches",
            "sequences",
            "top_ks",
            "ranks",
            "profiling_batches",
        ):
            for value in getattr(self, name):
                _whole(name, value)
        for phase, batches in self.factor_batches.items():
            if phase not in PHASES:
                raise UsageError(f"factor_batches names {phase!r}; use {' or '.join(PHASES)}")
            for value in batches:
                _whole("factor_batches", value)
        _whole("sequence", self.sequence)
        if self.top_k is not None:
            _whole("top_k", self.top_k)
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype is {self.dtype!r}; choose {' or '.join(DTYPES)}")
        for format_ in self.formats:
            if format_ not in QUANTISED:
                raise UsageError(f"no format is called {format_!r}; choose {', '.join(QUANTISED)}")

    @property
    def longest(self) -> int:
        """Positions that the cache must hold: the longest sequence and a decode step after it."""
        return max(self.sequence, *self.sequences, 1) + 1


def read_plan(settings: Mapping[str, Any]) -> Plan:
    """A preset's settings. UsageError for a name or a value that means nothing."""
    values: dict[str, Any] = dict(settings)
    try:
        for name in ("rounds", "turn_rounds", "side_rounds"):
            if name in values:
                values[name] = Rounds(**values[name])
        if "factor_batches" in values:
            values["factor_batches"] = {k: tuple(v) for k, v in values["factor_batches"].items()}
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return Plan(**fields)
    except TypeError as error:
        raise UsageError(
            f"the preset's settings: {error}; see plan.py for what it takes"
        ) from error


@dataclass(frozen=True)
class Group:
    """Points that take turns; the first is the baseline of the others.

    Where batches take turns none is another's baseline, and all of them are the sweep's base.
    """

    name: str
    points: tuple[Point, ...]

    @property
    def in_turn(self) -> bool:
        return self.points[0].in_turn

    @property
    def phase(self) -> Phase:
        return self.points[0].phase


def check_config(config: MoeConfig, plan: Plan) -> None:
    """UsageError where a point asks for more experts per token than a layer has."""
    for top_k in plan.top_ks:
        config.with_top_k(top_k)


def base_point(plan: Plan, config: MoeConfig, phase: Phase, batch: int) -> Point:
    return Point(phase, batch, plan.sequence, config.top_k, plan.dtype)


def sweep_groups(plan: Plan, config: MoeConfig) -> Iterator[Group]:
    """All batches of a phase in turn, then the factors at some batches beside the base there.

    Decode takes turns with the batches that only the law needs, too.
    """
    check_config(config, plan)
    for phase in PHASES:
        more = plan.decode_batches if phase == "decode" else ()
        points = (base_point(plan, config, phase, b) for b in sorted({*plan.batches, *more}))
        yield Group(phase, tuple(replace(point, in_turn=True) for point in points))
    for phase in PHASES:
        for batch in plan.batches:
            if batch in plan.factor_batches.get(phase, ()):
                base = base_point(plan, config, phase, batch)
                changed = crossed(plan, base) if plan.factorial else one_by_one(plan, base)
                others = tuple(p for p in dict.fromkeys(changed) if p != base)
                yield Group(f"{phase}-b{batch}", (base, *others))


def one_by_one(plan: Plan, base: Point) -> list[Point]:
    """The base with one factor changed at a time."""
    return [
        *(replace(base, sequence=value) for value in plan.sequences),
        *(replace(base, top_k=value) for value in plan.top_ks),
        *(replace(base, weights=value) for value in plan.formats),
        *(replace(base, routing=routing(value)) for value in plan.skews),
    ]


def crossed(plan: Plan, base: Point) -> list[Point]:
    """Every combination of the factors."""
    axes = (
        (base.sequence, *plan.sequences),
        (base.top_k, *plan.top_ks),
        (base.weights, *plan.formats),
        (base.routing, *map(routing, plan.skews)),
    )
    return [
        replace(base, sequence=s, top_k=k, weights=w, routing=r)
        for s, k, w, r in itertools.product(*axes)
    ]


def side_groups(plan: Plan, config: MoeConfig, sides: Sequence[str]) -> Iterator[Group]:
    """Every batch in both phases, all sides beside each other; the first side is the baseline.

    Decode first: a step is short, and the time that it leaves goes to the prefills.
    """
    for phase in reversed(PHASES):
        for batch in plan.batches:
            base = base_point(plan, config, phase, batch)
            yield Group(f"{phase}-b{batch}", tuple(replace(base, side=side) for side in sides))


def routing(skew: float) -> str:
    return f"skew-{skew:g}"


def skew_of(routing: str) -> float | None:
    """None: the model's own router picks."""
    return None if routing == "router" else float(routing.removeprefix("skew-"))


def _whole(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} holds {value!r}; use whole numbers from 1")
