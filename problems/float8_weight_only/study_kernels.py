"""How near is the fused CPU kernel to the memory bandwidth, and how far ahead of the best bf16?

    .venv/bin/worklog bench float8_weight_only --study kernels

One linear layer, one row of activations, weights far larger than the caches (256 MiB in float8),
all of them on pages of 2 MiB where the system has such. Pure reads of the same bytes, the fused
kernel and every bf16 candidate take turns in shuffled rounds, so that whatever else the machine
does meets all of them; ratios are medians of the ratios within rounds, with their 95 % intervals.
The bytes are read with and without prefetch instructions, and the faster of the two (by its median
in the same rounds) is the bandwidth that shares are of. On a busy machine the shares are still
meaningful, the GB/s are not: the share of the CPU that others took is recorded. A bf16 candidate
that is twice as slow as the best is timed three times only, and said so.

Two more ask what limits the fused kernel: it runs over a weight that fits the caches, as often as
it takes to read as many bytes, and as many vector instructions as it needs run by themselves. No
kernel that decodes with so many is faster than the slower of that and the read; which of the two
it is changes by the minute where neighbours share the machine. And where the CPU runs the kernels
of other instruction sets, too, these take their turns: what an instruction set is worth can only be
said on one machine.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from fused_float8 import operators, packing  # beside this file

from common.experiments.study import add_sample, ratio_figure
from common.floors.machine import cpu_seconds
from common.timing.sampling import Measurement, Sample, StopRule, interleave
from common.timing.statistics import Comparison, compare

FLOAT8_BYTES = {"": 256 << 20, "tiny": 8 << 20}
CACHED_BYTES = 8 << 20  # fits a third cache; long enough for a call's own cost not to count
SHAPES = ((16384, 16384), (4096, 4096), (6144, 2048), (2048, 6144))
# Rounds are short (0.05 s), ratios near their bounds and the machine's other tenants not ours.
RULES = {"": StopRule(40, 400, 40.0, 0.004, 0.01), "tiny": StopRule(10, 10, 1.0)}
SCREENED, TOO_SLOW = 3, 2.0
COLUMNS = ("N × K", "what", "bytes per weight", "GB/s", "of the read", "time ÷ fused", "rounds")
FUSED, OWN, CACHED = "fused float8", "own bf16 GEMV", "fused float8, weights in the caches"
ALONE = "its instructions alone"
OTHER_SETS = ("avx512", "avx2")  # what a CPU may run besides the one that is chosen for it
READS = {  # bytes per weight -> reads of the same weights: the bandwidth is the faster one's
    1: ("read float8", "read float8, no prefetch"),
    2: ("read bf16", "read bf16, no prefetch"),
}
ALL_READS = (*READS[1], *READS[2])
Runs = dict[str, tuple[int, Callable[[], object]]]


def kernels(rows: int, columns: int, float8_bytes: int) -> Runs:
    """name -> (bytes per weight, one pass over weights of `float8_bytes` elements)."""
    count = max(1, float8_bytes // (rows * columns))
    x = torch.randn(1, columns).bfloat16()
    plain = [
        operators.on_huge_pages(torch.empty(rows, columns).normal_().bfloat16())
        for _ in range(count)
    ]
    packed = [packing.pack(each) for each in plain]  # on huge pages, too
    again = -(-count * rows * columns // CACHED_BYTES)  # times a part of so many rows: all of them
    small = packing.pack(plain[0][: count * rows // again])

    def summed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x.float() * w.float()).sum(1).bfloat16()

    one_kernel: Any = torch.compile(summed, dynamic=False)

    def each(function: Callable[[Any], object], weights: list[Any]) -> Callable[[], object]:
        return lambda: [function(weight) for weight in weights]

    def fused(weight: packing.PackedWeight) -> object:
        return operators.linear(x, weight.values, weight.scale, weight.nan_rows)

    def by_set(name: str) -> object:
        before = operators.instruction_set("")
        operators.instruction_set(name)
        found = [fused(weight) for weight in packed]
        operators.instruction_set(before)
        return found

    reads: Runs = {}
    stored: dict[int, list[torch.Tensor]] = {1: [each.values for each in packed], 2: plain}
    for width, (prefetched, unaided) in READS.items():
        reads[prefetched] = (width, each(operators.read_only, stored[width]))
        reads[unaided] = (width, each(lambda w: operators.read_only(w, False), stored[width]))
    if operators.instructions_alone(1):
        elements = count * rows * columns
        reads[ALONE] = (1, lambda: operators.instructions_alone(elements))
    by_others: Runs = {fused_by(name): (1, partial(by_set, name)) for name in other_sets()}
    return (
        reads
        | by_others
        | {
            FUSED: (1, each(fused, packed)),
            CACHED: (1, each(fused, [small] * again)),
            OWN: (2, each(lambda w: operators.bf16_gemv(x, w), plain)),
            "bf16 F.linear": (2, each(lambda w: torch.nn.functional.linear(x, w), plain)),
            "bf16 decomposed, compiled": (2, each(lambda w: one_kernel(x, w), plain)),
        }
    )


def other_sets() -> list[str]:
    """The instruction sets of OTHER_SETS that this CPU has and that were not chosen."""
    chosen, found = operators.instruction_set(""), []
    for name in OTHER_SETS:
        try:
            operators.instruction_set(name)
        except ValueError:
            continue
        found.append(name)
    operators.instruction_set(chosen)
    return [name for name in found if name != chosen]


def fused_by(name: str) -> str:
    return f"{FUSED} by {name}"


def timed(run: Callable[[], object]) -> int:
    started = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - started


def one_pass(run: Callable[[], object]) -> Mapping[str, int]:
    return {"pass": timed(run)}


def screened(runs: Runs) -> tuple[Runs, dict[str, float]]:
    """What is worth many rounds, and the median ns of what is not."""
    for _, run in runs.values():
        run()
    taken = {n: statistics.median(timed(r) for _ in range(SCREENED)) for n, (_, r) in runs.items()}
    best = min(taken[n] for n, (width, _) in runs.items() if width == 2 and n not in ALL_READS)
    needed = (FUSED, CACHED, ALONE, OWN, *ALL_READS)
    slow = {n: t for n, t in taken.items() if n not in needed and t > TOO_SLOW * best}
    return {name: run for name, run in runs.items() if name not in slow}, slow


def measure(runs: Runs, shape: str, rule: StopRule) -> dict[str, list[int]]:
    """name -> ns of each round, in the same order for all."""

    def say(sample: Sample) -> None:
        line = {"round": sample.round, "order": sample.order, "variant": sample.variant}
        add_sample({**line, "phase": shape, "duration_ns": sample.duration_ns})

    sides: Mapping[str, Callable[[], Mapping[str, int]]] = {
        name: partial(one_pass, run) for name, (_, run) in runs.items()
    }
    found: Measurement = interleave(sides, FUSED, rule, on_sample=say)
    taken: dict[str, list[int]] = {name: [] for name in runs}
    for sample in found.samples:
        taken[sample.variant].append(sample.duration_ns)
    return taken


def bandwidths(taken: Mapping[str, list[int]]) -> dict[int, list[int]]:
    """Bytes per weight -> ns of each round of the faster read."""
    return {
        width: min((taken[name] for name in names), key=statistics.median)
        for width, names in READS.items()
    }


def roof(taken: Mapping[str, list[int]], read: list[int]) -> list[int]:
    """ns of each round of the slower: reading the codes, or the instructions that decode them."""
    return [max(pair) for pair in zip(read, taken.get(ALONE, read), strict=True)]


def huge_page_share(weight_bytes: int) -> str:
    """How much of the weights lies on pages of 2 MiB, as the kernel counts them."""
    try:
        with open("/proc/self/smaps", encoding="ascii", errors="replace") as lines:
            held = sum(int(line.split()[1]) for line in lines if line.startswith("AnonHuge")) << 10
    except OSError:
        return "unknown"
    return f"{min(1.0, held / weight_bytes):.0%}"


def shown(found: Comparison, digits: int = 2) -> str:
    if found.interval is None:
        return f"{found.ratio:.{digits}f}"
    ends = f"{found.interval.low:.{digits}f} … {found.interval.high:.{digits}f}"
    return f"{found.ratio:.{digits}f} ({ends})"


def one_shape(shape: tuple[int, int], preset: str) -> tuple[list[list[Any]], dict[str, Any]]:
    """The table's rows for one shape, and its comparisons: ahead, share, roof_share, …"""
    name = f"{shape[0]} × {shape[1]}"
    runs = kernels(*shape, FLOAT8_BYTES[preset])
    kept, slow = screened(runs)
    taken = measure(kept, name, RULES[preset])
    read = bandwidths(taken)
    elements = max(1, FLOAT8_BYTES[preset] // (shape[0] * shape[1])) * shape[0] * shape[1]
    rows: list[list[Any]] = []
    labels = {ALONE: f"its {operators.instructions_alone(1)} instructions alone"}
    for what, (width, _) in runs.items():
        label = labels.get(what, what)
        if what in slow:
            speed = f"{width * elements / slow[what]:.1f}"
            ratio = f"{slow[what] / statistics.median(taken[FUSED]):.1f}"
            rows.append([name, label, width, speed, "", ratio, SCREENED])
            continue
        speed = f"{width * elements / statistics.median(taken[what]):.1f}"
        share = shown(compare(taken[what], read[width]))
        ratio = shown(compare(taken[FUSED], taken[what]))
        rows.append([name, label, width, speed, share, ratio, len(taken[what])])
    candidates = [n for n in kept if runs[n][0] == 2 and n not in ALL_READS]
    best = min(candidates, key=lambda n: statistics.median(taken[n]))
    return rows, {
        "best": best,
        "ahead": compare(taken[FUSED], taken[best]),
        "share": compare(taken[FUSED], read[1]),
        "roof_share": compare(taken[FUSED], roof(taken, read[1])),
        "own_share": compare(taken[OWN], read[2]),
        "cached_share": compare(taken[FUSED], taken[CACHED]),
        "huge_pages": huge_page_share(3 * elements),
        **{
            f"ahead_of_{name}": compare(taken[FUSED], taken[fused_by(name)])
            for name in other_sets()
            if fused_by(name) in kept
        },
    }


def busy_share(before: tuple[float, float] | None, own_before: float) -> str:
    after, own_s = cpu_seconds(), time.process_time() - own_before
    if before is None or after is None or after[1] <= before[1]:
        return "unknown"
    busy = after[0] - before[0] - own_s
    return f"{100 * max(0.0, busy) / (after[1] - before[1]):.0f} %"


def main() -> None:
    if operators.UNAVAILABLE is not None:
        print(f"error: {operators.UNAVAILABLE}", file=sys.stderr)
        sys.exit(3)
    preset = sys.argv[2] if len(sys.argv) > 2 else ""
    if preset not in RULES:
        print(f"error: preset {preset!r} is none of tiny; leave it out", file=sys.stderr)
        sys.exit(2)
    rows: list[list[Any]] = []
    figures: dict[str, Any] = {}
    first: dict[str, Any] = {}
    before, own_before = cpu_seconds(), time.process_time()
    for shape in SHAPES if not preset else SHAPES[1:]:
        print(f"timing {shape[0]} × {shape[1]}", file=sys.stderr, flush=True)
        with torch.no_grad():
            found, compared = one_shape(shape, preset)
        rows += found
        first = first or compared
        label = f"{shape[0]}x{shape[1]}"
        for key, value in compared.items():
            if isinstance(value, Comparison):
                figures[f"{key}_{label}"] = ratio_figure(value)
    limits = (("ahead", 1.5), ("share", 0.75), ("own_share", 0.9))
    says = (
        f"{rows[0][0]}: {{}} times as fast as the best bf16 ({first['best']}), wanted {{}}",
        f"{rows[0][0]}: {{}} of the read bandwidth, wanted {{}}",
        f"{rows[0][0]}: our own bf16 GEMV, as a baseline, {{}} of its read, wanted {{}}",
    )
    threads, others = torch.get_num_threads(), busy_share(before, own_before)
    isa = operators.instruction_set("")
    document = {
        "schema": "worklog.study/1",
        "title": f"One linear layer, one row, {isa}, {threads} threads; other programs took "
        f"{others} of the CPU",
        "columns": COLUMNS,
        "right": COLUMNS[2:],
        "rows": rows,
        "figures": figures,
        "facts": {
            "torch": torch.__version__,
            "threads": threads,
            "instruction_set": isa,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "others_cpu_share": others,
            "weights_on_huge_pages": first["huge_pages"],
        },
        "checks": [
            {
                "says": text.format(shown(first[key]), least),
                "holds": (first[key].interval.low if first[key].interval else 0.0) >= least,
            }
            for text, (key, least) in zip(says, limits, strict=True)
        ],
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
