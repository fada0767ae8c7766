"""What encloses what on the host? Parents, paths and owners of spans, in NumPy.

A launch belongs to the spans of its thread that were open when it was made. Wrappers (compiled
regions, graph calls, profiler steps) are looked through: they enclose work and do none.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.traces.model import MODULE_PREFIX, UNKNOWN, HostKind, Int64, Trace
from common.traces.ordering import grouped
from common.traces.wrappers import is_wrapper

UInt64 = NDArray[np.uint64]
SEPARATOR = " / "


class HostTree(msgspec.Struct, frozen=True):
    """Per row of Trace.host; UNKNOWN (-1) where there is none, or for spans that do not nest."""

    parent: Int64  # the innermost operator, annotation or call around it
    leaf: Int64  # the innermost operator or annotation that is no wrapper, itself included
    operator: Int64  # the outermost operator that is no wrapper, itself included
    range: Int64  # the innermost annotation that is no wrapper, itself included
    module: Int64  # the innermost call of a torch.nn.Module, itself included
    path: UInt64  # one number for the names of all operators and annotations down to it
    outer_path: UInt64  # the same for annotations and the outermost operator alone
    range_path: UInt64  # the same for annotations alone
    module_path: UInt64  # the same for modules alone, which are in no other path

    def path_of(self, trace: Trace, row: int, kinds: tuple[int, ...] | None = None) -> str:
        """Names of what encloses `row`, outermost first, without wrappers and the call itself."""
        wanted = kinds or (HostKind.OPERATOR, HostKind.ANNOTATION, HostKind.MODULE)
        names: list[str] = []
        while row >= 0:
            name = trace.names[int(trace.host.name[row])]
            if int(trace.host.kind[row]) in wanted and not is_wrapper(name):
                names.append(name.removeprefix(MODULE_PREFIX))
            row = int(self.parent[row])
        return SEPARATOR.join(reversed(names))


def host_tree(trace: Trace) -> HostTree:
    """The tree of a trace's operators, annotations, modules and runtime calls, by thread."""
    host = trace.host
    size = len(host)
    nests = (
        (host.kind == HostKind.OPERATOR)
        | (host.kind == HostKind.ANNOTATION)
        | (host.kind == HostKind.RUNTIME)
        | (host.kind == HostKind.MODULE)
    )
    rows = np.flatnonzero(nests)
    depth = _depths(host.thread[rows], host.start_ns[rows], host.end_ns[rows])
    levels = _levels(depth)
    parent = np.full(size, UNKNOWN, dtype=np.int64)
    for above, level in pairwise(levels):
        parent[rows[level]] = rows[above[np.searchsorted(above, level) - 1]]

    wrapper = np.array([is_wrapper(name) for name in trace.names], dtype=np.bool_)
    real = ~wrapper[host.name] if size else np.empty(0, dtype=np.bool_)
    operator = real & (host.kind == HostKind.OPERATOR)
    annotation = real & (host.kind == HostKind.ANNOTATION)
    module = host.kind == HostKind.MODULE
    tokens = name_tokens(trace)[host.name] if size else np.empty(0, dtype=np.uint64)
    leaf = np.full(size, UNKNOWN, dtype=np.int64)
    outer, range_, module_ = leaf.copy(), leaf.copy(), leaf.copy()
    path = np.zeros(size, dtype=np.uint64)
    outer_path, range_path, module_path = path.copy(), path.copy(), path.copy()
    columns = (leaf, outer, range_, module_, path, outer_path, range_path, module_path)
    for number, places in enumerate(levels):
        level = rows[places]
        if number:
            around = parent[level]
            for column in columns:
                column[level] = column[around]
        own = level[operator[level]]
        first = own[outer[own] < 0]
        outer[first] = first
        outer_path[first] = mixed(outer_path[first], tokens[first])
        noted = level[annotation[level]]
        range_[noted] = noted
        range_path[noted] = mixed(range_path[noted], tokens[noted])
        outer_path[noted] = mixed(outer_path[noted], tokens[noted])
        called = level[module[level]]
        module_[called] = called
        module_path[called] = mixed(module_path[called], tokens[called])
        named = level[operator[level] | annotation[level]]
        leaf[named] = named
        path[named] = mixed(path[named], tokens[named])
    return HostTree(parent, leaf, outer, range_, module_, path, outer_path, range_path, module_path)


def mixed(upper: UInt64, lower: UInt64) -> UInt64:
    """One number for an ordered pair of numbers (a finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        value = upper * np.uint64(0x9E3779B97F4A7C15) + lower + np.uint64(1)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed_value: UInt64 = value ^ (value >> np.uint64(31))
    return mixed_value


def text_tokens(texts: list[str] | tuple[str, ...]) -> UInt64:
    """A number for each text, equal for equal texts, whatever the trace and the process.

    Not `hash`: Python salts that anew in every process, and ties are broken by these numbers.
    """
    return np.frombuffer(b"".join(map(_digest, texts)), dtype="<u8").astype(np.uint64)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def name_tokens(trace: Trace) -> UInt64:
    return text_tokens(trace.names)


def _depths(thread: Int64, start: Int64, end: Int64) -> Int64:
    """The number of spans of its thread begun before each and not yet ended, for spans ordered by
    (thread, start, longest first)."""
    size = len(start)
    depth = np.zeros(size, dtype=np.int64)
    firsts = np.flatnonzero(np.append(True, thread[1:] != thread[:-1])) if size else np.empty(0)
    for low, high in zip(firsts.tolist(), [*firsts[1:].tolist(), size], strict=False):
        begin, stop = start[low:high] * 2, end[low:high] * 2
        stop = stop + (begin == stop)  # what takes no time ends after it began
        ended = np.searchsorted(np.sort(stop), begin, side="right")
        depth[low:high] = np.arange(high - low) - ended
    return depth


def _levels(depth: Int64) -> list[Int64]:
    """The places of each depth in order; what encloses a span is the last before it one level up.

    There always is one: from a span to the next the depth rises by one at most.
    """
    if not len(depth):
        return []
    deepest, least = int(depth.max()), min(int(depth.min()), 0)  # below 0: ends before it begins
    order = grouped(depth - least, deepest - least + 1)
    bounds = np.searchsorted(depth[order], np.arange(deepest + 2)).tolist()
    return [order[low:high] for low, high in pairwise(bounds)]
