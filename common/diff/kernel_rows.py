"""Rows by kernel: each piece of GPU work of A beside its partner in B, as small as can be said.

A row is one place in the program: one kernel of A and one of B, or one such pair for each profiler
step (where both sides have steps), or for each replay of the same CUDA graph. Above `MOST_ROWS` the
places of one path and name are taken together.
"""

from __future__ import annotations

import msgspec
import numpy as np

from common.diff.difference import Row, Tier
from common.diff.nesting import SEPARATOR, UInt64, mixed
from common.diff.pairing import Pairs, occurrence, pair
from common.diff.sequence import Launched, alike_threads, device_pairs, launched
from common.timing.statistics import summarise
from common.traces.model import UNKNOWN, Bool, GpuKind, Int64, Trace
from common.traces.ordering import occurring

MOST_ROWS = 20_000
INTERVALS = 50  # of the largest rows
FEWEST_STEPS = 10


class Matched(msgspec.Struct, frozen=True):
    """Two sides in launch order, and who is whose partner."""

    a: Launched
    b: Launched
    pairs: Pairs

    @property
    def partner(self) -> Int64:
        """For each piece of A its partner's index in B, UNKNOWN (-1) without one."""
        return self.pairs.partner


class Prepared(msgspec.Struct, frozen=True):
    """A side in launch order, made before the other side was known; what was taken for granted."""

    side: Launched
    lanes: dict[int, int]
    stepped: bool


Ready = tuple[Prepared | None, Prepared | None]


def prepare(trace: Trace) -> Prepared:
    """What `match` does to each side by itself, as it will be for another side like this one."""
    lanes = {device: rank for rank, device in enumerate(occurring(trace.gpu.device).tolist())}
    stepped = _stepped(trace, trace)
    return Prepared(launched(trace, lanes, stepped), lanes, stepped)


def match(a: Trace, b: Trace, ready: Ready = (None, None)) -> Matched:
    """Pairs the GPU work of two traces: device with device, step with step, thread with thread.

    `ready` holds what was prepared of each; it is used where it fits the other side.
    """
    lanes_a: dict[int, int] = {}
    lanes_b: dict[int, int] = {}
    for rank, (one, other) in enumerate(device_pairs(a.gpu.device, b.gpu.device)):
        if one is not None:
            lanes_a[one] = rank
        if other is not None:
            lanes_b[other] = rank
    stepped = _stepped(a, b)
    side_a = _in_launch_order(a, lanes_a, stepped, ready[0])
    side_b = _in_launch_order(b, lanes_b, stepped, ready[1])
    threads = alike_threads(side_a, side_b)
    if threads:
        side_a = launched(a, lanes_a, stepped, threads[0], side_a.tree)
        side_b = launched(b, lanes_b, stepped, threads[1], side_b.tree)
    return Matched(side_a, side_b, pair(side_a, side_b))


def _in_launch_order(
    trace: Trace, lanes: dict[int, int], stepped: bool, ready: Prepared | None
) -> Launched:
    if ready is None:
        return launched(trace, lanes, stepped)
    if ready.lanes == lanes and ready.stepped == stepped:
        return ready.side
    return launched(trace, lanes, stepped, tree=ready.side.tree)


def _stepped(a: Trace, b: Trace) -> bool:
    return len(a.steps) > 1 and len(b.steps) > 1


def kernel_rows(matched: Matched) -> tuple[Row, ...]:
    """One row per group, largest |delta| first, then in launch order.

    Their a and b sum to the traces' GPU time.
    """
    a, b = matched.a, matched.b
    if not len(a) and not len(b):
        return ()
    stepped = _stepped(a.trace, b.trace)
    group_a, group_b = _groups(matched, _places(a, stepped), _places(b, stepped))
    count = int(max(group_a.max(initial=-1), group_b.max(initial=-1))) + 1
    if count > MOST_ROWS:
        group_a, group_b = _groups(matched, mixed(a.path, a.name), mixed(b.path, b.name))
        count = int(max(group_a.max(initial=-1), group_b.max(initial=-1))) + 1
    return _rows(matched, group_a, group_b, count)


def _places(side: Launched, stepped: bool) -> UInt64:
    """A number for the place of each piece of work in the program, equal in all repetitions."""
    inside = np.arange(len(side)) - side.unit_first[side.unit] if len(side) else side.event
    where = mixed(side.path, side.lane.astype(np.uint64))
    content = side.unit_content[side.unit] if len(side) else side.name
    node = side.trace.gpu.graph_node[side.event].view(np.uint64)  # two graphs may look the same
    graph = mixed(mixed(mixed(where, content), inside.astype(np.uint64)), node)
    key = mixed(where, side.name)
    if stepped:
        key = mixed(key, side.step.view(np.uint64))
    single = mixed(mixed(where, side.name), occurrence(key.view(np.int64)))
    return np.where(side.by_graph, graph, single)


def _groups(matched: Matched, place_a: UInt64, place_b: UInt64) -> tuple[Int64, Int64]:
    """The group of each piece of A and of B: pairs of places, joined by work without a partner."""
    paired = np.flatnonzero(matched.partner != UNKNOWN)
    partner = matched.partner[paired]
    pairs = mixed(place_a[paired], place_b[partner])
    _, first, group, sizes = np.unique(
        pairs, return_index=True, return_inverse=True, return_counts=True
    )
    group = group.reshape(-1)
    group_a = np.full(len(place_a), UNKNOWN, dtype=np.int64)
    group_b = np.full(len(place_b), UNKNOWN, dtype=np.int64)
    group_a[paired], group_b[partner] = group, group
    for groups, joins in ((group_a, matched.pairs.joins_a), (group_b, matched.pairs.joins_b)):
        joined = np.flatnonzero(joins != UNKNOWN)
        groups[joined] = groups[joins[joined]]
    following = len(first)
    one, other = place_a[paired][first], place_b[partner][first]
    tie = mixed(one, other) ^ mixed(other, one)  # the same with the sides swapped
    for groups, places, own in (
        (group_a, place_a, one),
        (group_b, place_b, other),
    ):
        free = np.flatnonzero(groups == UNKNOWN)
        order = np.lexsort((tie, -sizes, own))  # of several groups of one place the largest
        sorted_places = own[order]
        at = np.searchsorted(sorted_places, places[free])
        known = at < len(order)
        known[known] = sorted_places[at[known]] == places[free][known]
        groups[free[known]] = order[at[known]]
        alone = free[~known]
        _, fresh = np.unique(places[alone], return_inverse=True)
        groups[alone] = fresh.reshape(-1) + following
        following += int(fresh.max(initial=-1)) + 1
    return group_a, group_b


def _rows(matched: Matched, group_a: Int64, group_b: Int64, count: int) -> tuple[Row, ...]:
    a, b = matched.a, matched.b
    time_a, counts_a, first_a = _totals(a, group_a, count)
    time_b, counts_b, first_b = _totals(b, group_b, count)
    place = (first_b, np.where(first_a < 0, len(a), first_a))  # equal ones in order of launch
    order = np.lexsort((*place, -(time_a + time_b), -np.abs(time_b - time_a)))
    first_a, first_b = first_a[order], first_b[order]
    names_a, names_b = _names(a, first_a), _names(b, first_b)
    paths_a, paths_b = _paths(a, first_a), _paths(b, np.where(first_a < 0, first_b, UNKNOWN))
    rows: list[Row] = []
    for group, one, other, tier, path_a, path_b, ns_a, ns_b, count_a, count_b in zip(
        order.tolist(), names_a, names_b, _tiers(a, b, first_a, first_b), paths_a, paths_b,
        *(column[order].tolist() for column in (time_a, time_b, counts_a, counts_b)),
        strict=True,
    ):  # fmt: skip
        interval = None
        if len(rows) < INTERVALS and one is not None and other is not None:
            interval = _per_step(matched, group_a == group, group_b == group)
        name = other if one is None else one
        assert name is not None  # every group has a piece
        renamed = one is not None and other is not None and one != other
        rows.append(
            Row(
                name=name,
                name_b=other if renamed else None,
                tier=tier,
                a=ns_a,
                b=ns_b,
                count_a=count_a,
                count_b=count_b,
                path=path_b if one is None else path_a,
                interval=interval,
            )
        )
    return tuple(rows)


def _per_step(matched: Matched, in_a: Bool, in_b: Bool) -> tuple[float, float] | None:
    """95 % interval of the difference between the medians per profiler step, in ns.

    The two intervals' ends are set against each other: the sides were not interleaved.
    """
    found = []
    for side, own in ((matched.a, in_a), (matched.b, in_b)):
        steps = len(side.trace.steps)
        if steps < FEWEST_STEPS:
            return None
        picked = own & (side.step != UNKNOWN)
        spent = np.zeros(steps, dtype=np.int64)
        np.add.at(spent, side.step[picked], side.trace.gpu.duration_ns[side.event[picked]])
        found.append(summarise(spent).interval)
    a, b = found
    return None if a is None or b is None else (b.low - a.high, b.high - a.low)


def _totals(side: Launched, group: Int64, count: int) -> tuple[Int64, Int64, Int64]:
    """(sum of durations, number, first place) of each group; the sums exact in integers."""
    duration = side.trace.gpu.duration_ns[side.event]
    total = np.zeros(count, dtype=np.int64)
    np.add.at(total, group, duration)
    first = np.full(count, UNKNOWN, dtype=np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]
    return total, np.bincount(group, minlength=count).astype(np.int64), first


def _tiers(a: Launched, b: Launched, first_a: Int64, first_b: Int64) -> list[Tier]:
    """The evidence for each group, by its first piece on each side (UNKNOWN: none)."""
    found = np.full(len(first_a), Tier.UNMATCHED, dtype=object)
    both = np.flatnonzero((first_a != UNKNOWN) & (first_b != UNKNOWN))
    of_a, of_b = first_a[both], first_b[both]
    found[both] = Tier.POSITION
    found[both[a.by_graph[of_a] & b.by_graph[of_b]]] = Tier.GRAPH_NODE
    found[both[a.normalised[of_a] == b.normalised[of_b]]] = Tier.NORMALISED
    found[both[a.name[of_a] == b.name[of_b]]] = Tier.EXACT
    tiers: list[Tier] = found.tolist()
    return tiers


def _names(side: Launched, places: Int64) -> list[str | None]:
    """The name of the piece at each place; None for UNKNOWN."""
    names: list[str | None] = [None] * len(places)
    known = np.flatnonzero(places != UNKNOWN)
    numbers = side.trace.gpu.name[side.event[places[known]]]
    for row, number in zip(known.tolist(), numbers.tolist(), strict=True):
        names[row] = side.trace.names[number]
    return names


def _paths(side: Launched, places: Int64) -> list[str | None]:
    """The path of the piece at each place, None without one; each is spelt once."""
    trace, tree = side.trace, side.tree
    paths: list[str | None] = [None] * len(places)
    known = np.flatnonzero(places != UNKNOWN)
    launches = trace.gpu.launch[side.event[places[known]]]
    known, launches = known[launches != UNKNOWN], launches[launches != UNKNOWN]
    at = places[known]
    spelt: dict[tuple[int, int], str] = {}
    for row, launch, by_graph, node, *token in zip(
        known.tolist(), launches.tolist(), side.by_graph[at].tolist(),
        (at - side.unit_first[side.unit[at]]).tolist(),
        side.path[at].tolist(), tree.module_path[launches].tolist(),
        strict=True,
    ):  # fmt: skip
        key = token[0], token[1]
        if key not in spelt:
            spelt[key] = tree.path_of(trace, launch)
        path = spelt[key]
        if by_graph:
            call = trace.names[int(trace.host.name[launch])]
            path = SEPARATOR.join(filter(None, (path, call, f"node {node}")))
        paths[row] = path or None
    return paths


def matching_quality(matched: Matched, rows: tuple[Row, ...]) -> dict[str, object]:
    """How much found a partner: for the report and JSON. Times in ns, of both sides."""
    a, b = matched.a, matched.b
    tiers: dict[str, dict[str, int]] = {
        str(tier): {"groups": 0, "one_to_one": 0, "a_ns": 0, "b_ns": 0} for tier in Tier
    }
    for row in rows:
        found = tiers[str(row.tier)]
        found["groups"] += 1
        found["one_to_one"] += row.count_a == row.count_b == 1
        found["a_ns"] += row.a
        found["b_ns"] += row.b
    partnered: Bool = matched.partner != UNKNOWN
    kernels = a.trace.gpu.kind[a.event] == GpuKind.KERNEL
    return {
        "groups": len(rows),
        "one_to_one_groups": sum(row.count_a == row.count_b == 1 for row in rows),
        "two_sided_groups": sum(row.count_a > 0 and row.count_b > 0 for row in rows),
        "two_sided_a_ns": sum(row.a for row in rows if row.count_b and row.count_a),
        "two_sided_b_ns": sum(row.b for row in rows if row.count_b and row.count_a),
        "pairs": int(partnered.sum()),
        "kernel_pairs": int((partnered & kernels).sum()),
        "gpu_events_a": len(a),
        "gpu_events_b": len(b),
        "tiers": tiers,
    }
