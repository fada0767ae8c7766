"""Does GemLite tune its kernels in this file? (gemlite_autotune)

Three marks. A trace of torch.profiler shows GemLite's operator with many timed launches, or many
clones and copies of the weights (`restore_value`), inside one call. Any trace with GPU work shows
Triton's stopwatch: a flush of the L2 before each launch of one kernel. A compiled kernel, or a
report of Nsight Compute, shows which configuration was taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from common.pages.detectors.host_groups import inside, launched_within
from common.pages.detectors.signature import Fact, Signature, share
from common.traces.compiled_kernel import CompiledKernel
from common.traces.intervals import total_ns
from common.traces.model import GpuKind, HostKind, Int64, Trace
from common.traces.ncu_model import KernelLaunch, NcuReport

PROBLEM = "gemlite_autotune"
WORKLOG = "problems/gemlite_autotune/WORKLOG.md"
# Functions of gemlite 0.6's triton_kernels, with what Triton may append.
KERNEL = re.compile(
    r"^gem[mv]_(?:INT|MX|splitK_INT|splitK_MX|INT_splitK|INT_revsplitK)\w*?_?kernel"
)
OPERATOR = "gemlite::forward_functional"
FILL = re.compile(r"FillFunctor|fill_kernel")
COPY = re.compile(r"direct_copy_kernel|CopyFunctor")
# A forward launches one kernel and at most a fill of its output; a tuned list has 12 configurations
# or more, each timed dozens of times.
LAUNCHES_OF_TUNING = 10
TIMED_LAUNCHES = 30
# Triton's do_bench writes 256 MB before each launch: 48 µs at 5.3 TB/s. No output that GemLite
# zeroes for split-K (M below 64) comes near it.
FLUSH_NS, FLUSH_BYTES = 40_000, 64 << 20
# A listed configuration that leaves room for one block beside the memory bus: the winners of the
# shipped tables keep three or more blocks on an SM at these batches.
FEW_ROWS = 64


def find_tuning(trace: Trace) -> Signature | None:
    return _inside_one_call(trace) or _stopwatch(trace)


def _inside_one_call(trace: Trace) -> Signature | None:
    """One call of GemLite's operator that launches or clones again and again."""
    host = trace.host
    numbers = [n for n, name in enumerate(trace.names) if name == OPERATOR]
    rows = np.flatnonzero((host.kind == HostKind.OPERATOR) & np.isin(host.name, numbers))
    # Of each call: its time, its launches, and what prepares a timed launch (clones, zeroing).
    tuned: list[tuple[int, int, int]] = []
    for row in rows.tolist():
        calls = Counter(trace.names[n] for n in host.name[inside(trace, row)].tolist())
        own = launched_within(trace, np.array([row]))
        launches = sum(_is_gemlite(trace, int(n)) for n in trace.gpu.name[own].tolist())
        prepared = max(min(calls["aten::clone"], calls["aten::copy_"]), calls["aten::zero_"])
        if launches >= LAUNCHES_OF_TUNING or prepared >= LAUNCHES_OF_TUNING:
            tuned.append((int(host.duration_ns[row]), launches, prepared))
    if not tuned:
        return None
    spent, prepared = sum(t for t, _, _ in tuned), max(p for _, _, p in tuned)
    facts = [
        Fact(f"calls of {OPERATOR} that tuned", f"{len(tuned)} of {len(rows)}"),
        Fact("the longest of them", f"{max(t for t, _, _ in tuned) / 1e6:,.1f} ms"),
        Fact("their share of all calls' time", share(spent, total_ns(host.duration_ns[rows]))),
    ]
    if max(n for _, n, _ in tuned):
        facts.append(Fact("launches in one call, one is usual", f"{max(n for _, n, _ in tuned)}"))
    if prepared >= LAUNCHES_OF_TUNING:
        what = "tensors cloned and put back (restore_value) or zeroed in one call, one is usual"
        facts.append(Fact(what, f"{prepared}"))
    return _tuning("autotuning-in-a-call", facts)


def _stopwatch(trace: Trace) -> Signature | None:
    """GemLite's kernel, each time after a flush of the L2: Triton's do_bench."""
    gpu = trace.gpu
    order = np.lexsort((gpu.start_ns, gpu.stream, gpu.device))
    names = gpu.name[order]
    ours = np.array([bool(KERNEL.match(name)) for name in trace.names], dtype=np.bool_)
    if not len(order) or not ours[names].any():
        return None
    flush = _flushes(trace, order)
    copies = _copies(trace, order)
    places = np.flatnonzero(ours[names])
    timed, restored = 0, 0
    last = -1
    for place in places.tolist():
        between = slice(last + 1, place)
        timed += bool(flush[between].any())
        restored += bool(copies[between].sum() >= 4)  # put back after the one, cloned for the next
        last = place
    if timed < TIMED_LAUNCHES and restored < TIMED_LAUNCHES:
        return None
    kernels = Counter(trace.names[n] for n in names[places].tolist())
    facts = [
        Fact("launches of GemLite's kernels", f"{len(places):,}"),
        Fact("of them right after a flush of the L2 (do_bench)", f"{timed:,}"),
        Fact("of them between clones and copies (restore_value)", f"{restored:,}"),
        Fact("kernels", ", ".join(f"{name} × {count}" for name, count in kernels.most_common(3))),
    ]
    return _tuning("stopwatch", facts)


def _flushes(trace: Trace, order: Int64) -> np.typing.NDArray[np.bool_]:
    gpu = trace.gpu
    fills = np.array([bool(FILL.search(name)) for name in trace.names], dtype=np.bool_)
    long = gpu.duration_ns[order] >= FLUSH_NS
    is_set = gpu.kind[order] == GpuKind.MEMSET
    large = is_set & ((gpu.size_bytes[order] >= FLUSH_BYTES) | long)
    found: np.typing.NDArray[np.bool_] = large | (fills[gpu.name[order]] & long)
    return found


def _copies(trace: Trace, order: Int64) -> np.typing.NDArray[np.bool_]:
    kernels = np.array([bool(COPY.search(name)) for name in trace.names], dtype=np.bool_)
    found: np.typing.NDArray[np.bool_] = kernels[trace.gpu.name[order]] | (
        trace.gpu.kind[order] == GpuKind.MEMCPY
    )
    return found


def _is_gemlite(trace: Trace, name: int) -> bool:
    return bool(KERNEL.match(trace.names[name]))


def _tuning(mark: str, facts: Sequence[Fact]) -> Signature:
    return Signature(
        PROBLEM,
        mark,
        "GemLite's autotuner times its configurations while the program serves",
        tuple(facts),
        f"warm up these batch sizes once, or save them with cache_config; {WORKLOG}",
    )


def find_default_configuration(kernel: CompiledKernel) -> Signature | None:
    """A compiled GemLite kernel for few rows of which one block fits an SM."""
    rows, blocks = kernel.facts.get("m"), kernel.metrics.get("blocks_per_sm")
    if not KERNEL.match(kernel.kernel) or not isinstance(rows, int) or rows > FEW_ROWS:
        return None
    if blocks != 1 or kernel.metrics.get("can_launch") is False:
        return None
    limiter = kernel.metrics.get("limiter") or ["unknown"]
    facts = (
        Fact("configuration", str(kernel.facts.get("config", "unknown"))),
        Fact("blocks per SM, and what limits them", f"1, {' and '.join(map(str, limiter))}"),
        Fact("shared memory of a block", f"{kernel.resources['shared_bytes']:,} bytes"),
        Fact("asynchronous copies (LDGSTS): the pipeline", f"{kernel.count('LDGSTS')}"),
    )
    return Signature(
        PROBLEM,
        "default-configuration",
        "one of today's listed configurations: a large tile for few rows, one block per SM; the "
        "shipped winners keep several",
        facts,
        f"time it beside the shipped winner of this shape; {WORKLOG}, step 2",
    )


def find_many_configurations(report: NcuReport) -> Signature | None:
    """One GemLite kernel with several configurations in one report: a list being timed."""
    found: dict[str, set[tuple[object, ...]]] = {}
    for launch in report.launches:
        if KERNEL.match(launch.base_name):
            found.setdefault(launch.base_name, set()).add(_configuration(launch))
    name = max(found, key=lambda n: len(found[n]), default=None)
    if name is None or len(found[name]) < LAUNCHES_OF_TUNING:
        return None
    facts = (Fact(f"configurations of {name} (grid, block, registers)", f"{len(found[name])}"),)
    return _tuning("many-configurations", facts)


def _configuration(launch: KernelLaunch) -> tuple[object, ...]:
    metrics = ("launch__registers_per_thread", "launch__shared_mem_per_block_dynamic")
    return (launch.grid, launch.block, *(launch.number(name) for name in metrics))
