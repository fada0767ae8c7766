"""How long did each repetition of the work take? Spans of steps, on the host and the GPU at once.

A step's host time alone misses GPU work that it only queued, and GPU time alone misses what the
host did. So: a step is *over* when its host span and all GPU work that was launched before the
next step began have ended; its span is the time from when the step before was over (for the first:
from its own start) until then. The spans add up to the whole time from the first start to the last
end, whichever side was the bottleneck: their mean is the throughput's inverse.

A step is a profiler step, or, in a trace without, one occurrence of a range that repeats.
"""

from __future__ import annotations

import re

import msgspec
import numpy as np

from common.traces.intervals import total_ns
from common.traces.model import UNKNOWN, GpuKind, HostKind, Int64, Trace
from common.traces.ordering import occurring
from common.traces.wrappers import is_wrapper

LEAST_STEPS = 10
"""Below this many on a side there is no interval (that of `timing.statistics.MIN_ROUNDS`)."""

FEWEST_STEPS = 3
"""From this many on a median says what is typical; a range that repeats less is none."""

LEAST_DUTY = 0.5
"""A range is a step only if the host is inside it for this part of the time from its first start
to its last end: one that is open now and then (a collective, attention) is a part of a step."""

LEAST_COVERAGE = 0.8
"""... and if this part of the kernels' time was launched from its first start to its last end:
else the capture holds much that the range says nothing about (a backward pass)."""

WARM_UP = 1.5
"""A first or last step this many times as long as the median of the others is left out."""

_FIGURES = re.compile(r"\d+(?:\.\d+)?")
_NUMBERED = re.compile(r"(?i)^(.*(?:step|iter|iteration|batch|token)s?)[\s#:_=-]*\d+$")


class Repetitions(msgspec.Struct, frozen=True):
    """Spans in ns of the repetitions of `name`, in order. `notes` say what was left out."""

    name: str  # "profiler step" or "range NAME"
    recorded: int
    spans_ns: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.spans_ns)

    @property
    def typical_ns(self) -> float:
        """The median; the mean of fewer than FEWEST_STEPS."""
        if len(self) < FEWEST_STEPS:
            return sum(self.spans_ns) / len(self)
        return float(np.median(self.spans_ns))


class RangeCandidate(msgspec.Struct, frozen=True):
    """One range that repeats within one thread: sorted, without occurrences inside another."""

    name: str
    starts_ns: Int64
    ends_ns: Int64

    @property
    def count(self) -> int:
        return len(self.starts_ns)

    @property
    def inside_ns(self) -> int:
        return total_ns(self.ends_ns - self.starts_ns)

    @property
    def duty(self) -> float:
        return self.inside_ns / max(int(self.ends_ns[-1] - self.starts_ns[0]), 1)


def profiler_steps(trace: Trace) -> Repetitions | None:
    """The spans of the trace's profiler steps; None for a trace without."""
    if not trace.steps:
        return None
    ordered = sorted((step.start_ns, step.end_ns) for step in trace.steps)
    starts, ends = np.array(ordered, dtype=np.int64).T
    return _repetitions("profiler step", trace, starts, ends)


def common_range(a: Trace, b: Trace) -> tuple[Repetitions, Repetitions] | str | None:
    """The range that is a step of both traces: the outermost, which holds most of the host's time.

    A sentence where ranges repeat often on both sides but none is a step, None where none does.
    """
    of_a, of_b = repeated_ranges(a), repeated_ranges(b)
    pairs = [(of_a[name], of_b[other]) for name, other in _same_ranges(of_a, of_b)]
    pairs.sort(key=lambda pair: (-min(side.inside_ns for side in pair), pair[0].name))
    for pair in pairs:
        if all(_is_step(trace, found) for trace, found in zip((a, b), pair, strict=True)):
            name = f"range {pair[0].name}"
            one, other = (
                _repetitions(name, trace, found.starts_ns, found.ends_ns)
                for trace, found in zip((a, b), pair, strict=True)
            )
            return one, other
    often = [pair for pair in pairs if min(side.count for side in pair) >= LEAST_STEPS]
    if not often:
        return None
    held = " and ".join(_share(trace, found) for trace, found in zip((a, b), often[0], strict=True))
    return (
        f"range {often[0][0].name} repeats, but is a part of the work and no step of it: it holds "
        f"{held}"
    )


def _same_ranges(
    of_a: dict[str, RangeCandidate], of_b: dict[str, RangeCandidate]
) -> list[tuple[str, str]]:
    """(name in A, name in B): equal names, and names that only differ in their figures, as in
    "decode[batch=4]" and "decode[batch=8]", where each side has one of them."""
    shared = [(name, name) for name in of_a if name in of_b]
    left: list[dict[str, list[str]]] = []
    for of, other in ((of_a, of_b), (of_b, of_a)):
        left.append({})
        for name in of:
            if name not in other:
                left[-1].setdefault(_FIGURES.sub("#", name), []).append(name)
    return shared + [
        (names[0], left[1][plain][0])
        for plain, names in left[0].items()
        if len(names) == 1 and len(left[1].get(plain, ())) == 1
    ]


def _is_step(trace: Trace, found: RangeCandidate) -> bool:
    return found.duty >= LEAST_DUTY and coverage(trace, found) >= LEAST_COVERAGE


def _share(trace: Trace, found: RangeCandidate) -> str:
    held = f"{found.duty:.0%} of the host's time"
    return f"{held}, {coverage(trace, found):.0%} of the kernels'" if trace.has_gpu_events else held


def repeated_ranges(trace: Trace) -> dict[str, RangeCandidate]:
    """Ranges with FEWEST_STEPS occurrences in one thread; of several threads the busiest counts.

    "step 1", "step 2", ... are occurrences of "step". Occurrences inside another of the same name
    are left out.
    """
    host = trace.host
    rows = np.flatnonzero((host.kind == HostKind.ANNOTATION) | (host.kind == HostKind.RANGE))
    if len(rows) < FEWEST_STEPS:
        return {}
    used = occurring(host.name[rows])
    bases = [_base(trace.names[number]) for number in used.tolist()]
    numbers = {base: number for number, base in enumerate(dict.fromkeys(bases))}
    texts = list(numbers)
    base = np.array([numbers[text] for text in bases], dtype=np.int64)
    key = (
        base[np.searchsorted(used, host.name[rows])] * (len(trace.threads) + 1) + host.thread[rows]
    )
    keys, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    found: dict[str, RangeCandidate] = {}
    stops = np.cumsum(counts)
    for at in np.flatnonzero(counts >= FEWEST_STEPS).tolist():
        name = texts[int(keys[at]) // (len(trace.threads) + 1)]
        own = rows[order[stops[at] - counts[at] : stops[at]]]
        candidate = _apart(name, host.start_ns[own], host.end_ns[own])
        if candidate is None or is_wrapper(name):
            continue
        if name not in found or candidate.inside_ns > found[name].inside_ns:
            found[name] = candidate
    return found


def coverage(trace: Trace, candidate: RangeCandidate) -> float:
    """Part of the kernels' time launched from the first start to the last end of a range.

    In a trace without GPU work: part of the host's span.
    """
    first, last = int(candidate.starts_ns[0]), int(candidate.ends_ns[-1])
    if not trace.has_gpu_events:
        start, end = host_extent(trace) or (first, last)
        return (last - first) / max(end - start, 1)
    computing = (trace.gpu.kind == GpuKind.KERNEL) | (trace.gpu.kind == GpuKind.GRAPH)
    launched = launched_ns(trace)
    inside = computing & (launched >= first) & (launched <= last)
    duration = trace.gpu.duration_ns
    return total_ns(duration[inside]) / max(total_ns(duration[computing]), 1)


def host_extent(trace: Trace) -> tuple[int, int] | None:
    """First start and last end of the operators; of all calls and ranges where there are none."""
    host = trace.host
    rows = host.kind == HostKind.OPERATOR
    if not rows.any():
        rows = host.kind != HostKind.FRAME
    if not rows.any():
        return None
    return int(host.start_ns[rows].min()), int(host.end_ns[rows].max())


def launched_ns(trace: Trace) -> Int64:
    """When each GPU activity was launched.

    One without a known launch was launched no earlier than the one before it on its stream: it
    gets that one's time, or its own start where there is none before.
    """
    gpu = trace.gpu
    known = gpu.launch != UNKNOWN
    if not known.any():
        return gpu.start_ns
    own = np.where(known, trace.host.start_ns[gpu.launch], gpu.start_ns)
    order = np.lexsort((gpu.start_ns, gpu.stream, gpu.device, gpu.process))
    streams = np.stack((gpu.process, gpu.device, gpu.stream))[:, order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (streams[:, 1:] != streams[:, :-1]).any(axis=0)
    at = np.arange(len(order))
    begins = np.maximum.accumulate(np.where(first, at, 0))
    source = np.maximum.accumulate(np.where(known[order], at, -1))
    source = np.where(source >= begins, source, at)
    launched = np.empty(len(order), dtype=np.int64)
    launched[order] = own[order][source]
    return launched


def spans_ns(trace: Trace, starts: Int64, ends: Int64) -> Int64:
    """The span of each step (see the module's docstring); starts are sorted. Shape (n,)."""
    over = ends.copy()
    if trace.has_gpu_events:
        launched = launched_ns(trace)
        owner = np.searchsorted(starts, launched, side="right") - 1
        inside = (owner >= 0) & (launched <= ends.max())
        np.maximum.at(over, owner[inside], trace.gpu.end_ns[inside])
    spans: Int64 = np.diff(np.maximum.accumulate(over), prepend=starts[0])
    return spans


def _repetitions(name: str, trace: Trace, starts: Int64, ends: Int64) -> Repetitions:
    spans = spans_ns(trace, starts, ends).tolist()
    kept = [span for span in spans if span > 0]
    notes = []
    if len(kept) < len(spans):
        notes.append(
            f"{len(spans) - len(kept)} of {len(spans)} steps took no time and are left out"
        )
    for at, which in ((0, "first"), (-1, "last")):
        rest = kept[1:] if at == 0 else kept[:-1]
        if len(rest) >= LEAST_STEPS and kept[at] > WARM_UP * float(np.median(rest)):
            times = kept[at] / float(np.median(rest))
            notes.append(f"the {which} step, {times:.1f}× the median of the others, is left out")
            kept = rest
    return Repetitions(name, len(spans), tuple(kept), tuple(notes))


def _base(name: str) -> str:
    numbered = _NUMBERED.match(name)
    return numbered.group(1).rstrip(" #:_=-") if numbered else name


def _apart(name: str, starts: Int64, ends: Int64) -> RangeCandidate | None:
    order = np.lexsort((-ends, starts))
    starts, ends = starts[order], ends[order]
    before = np.maximum.accumulate(ends)[:-1]
    apart = np.ones(len(starts), dtype=np.bool_)
    apart[1:] = starts[1:] >= before
    if int(apart.sum()) < FEWEST_STEPS:
        return None
    return RangeCandidate(name, starts[apart], ends[apart])
