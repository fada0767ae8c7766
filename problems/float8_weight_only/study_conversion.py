"""Where does a CPU spend a dequantised weight's time, and what does the conversion alone cost?

    .venv/bin/worklog bench float8_weight_only --study conversion

Every pass of torchao 0.13.0's and 0.14.1's linear layer by itself, on one 2048 × 2048 weight: CPU
time of one thread per weight, so that a busy machine disturbs little. Then the same chain of passes
as a whole, and both once more with one variable changed: the stored byte is read as int8 instead of
float8, which torch converts with vector instructions on every CPU. The codes are those of a normal
weight as torchao quantises it; what other codes cost the generated kernel, and what its loads of
int8 cost it where vectors have 256 bits, is measured beside them (`conversion_inputs.py`).

A pass by itself gets the memory that it has just let go; a chain, whose temporaries live side by
side, may get fresh pages from the kernel each time: with glibc's defaults some processes did, and
their eager chains took 1.8 to 2.7 ns more. So malloc is told to keep its memory here (as in the
variant float8wo-0.13.0-kept-memory), fresh pages are counted, and what one costs is measured.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import conversion_inputs as inputs  # beside this file
import torch
from torch import Tensor

from common.experiments.study import add_sample, ratio_figure
from common.timing.statistics import compare, summarise
from common.timing.worker import fresh_pages

ROWS = COLUMNS = 2048
COLUMNS_SHOWN = (
    "what",
    "ns per weight",
    "fresh bytes per weight",
    "passes + fresh pages, ns",
    "whole against that",
)
ROUNDS = {"": 41, "tiny": 7}
CLOSES_WITHIN = 0.15  # the sum against the chain, whose passes find other things in the caches
KEEP_MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
FRESH, KEPT = "write 4 bytes into fresh pages", "write 4 bytes into kept memory"
CAST, GENERATED = "cast float8 to float32", "generated dequantise, float8"
NONE = f"{GENERATED}, {inputs.NO_SUBNORMAL}"
NARROW, BUFFERED = f"{GENERATED}, 256 bits", "generated dequantise, int8, 256 bits"
DIRECT = f"{BUFFERED}, loaded without a buffer"
# figure -> (the time above, the time below): what the codes and the loads are worth. A pattern
# against the same codes without it differs from them in nothing else.
WORTH = {
    "no_subnormal": (NONE, GENERATED),
    "every_second": (f"{GENERATED}, {inputs.EVERY_SECOND}", GENERATED),
    "half_at_random": (f"{GENERATED}, {inputs.HALF_AT_RANDOM}", GENERATED),
    "at_random": (f"{GENERATED}, {inputs.AT_RANDOM}", GENERATED),
    "second_over_none": (f"{GENERATED}, {inputs.EVERY_SECOND}", NONE),
    "half_over_none": (f"{GENERATED}, {inputs.HALF_AT_RANDOM}", NONE),
    "random_over_none": (f"{GENERATED}, {inputs.AT_RANDOM}", NONE),
    "at_random_eager": (f"{CAST}, {inputs.AT_RANDOM}", CAST),
    "at_random_256": (f"{NARROW}, {inputs.AT_RANDOM}", NARROW),
    "buffered_int8": (BUFFERED, DIRECT),
}
Taken = dict[str, tuple[list[float], list[float]]]  # name -> ns, fresh pages; both per weight


def chain(stored: Tensor, scale: Tensor, x: Tensor, expanded: bool) -> Tensor:
    """What both versions do, eagerly: cast, (expand the scale,) multiply, cast, product."""
    wide = stored.to(torch.float32)
    factor = scale.repeat_interleave(COLUMNS, 1) if expanded else scale
    return torch.mm(x, (wide * factor).to(torch.bfloat16).t())


def dequantise(stored: Tensor, scale: Tensor) -> Tensor:
    return (stored.to(torch.float32) * scale).to(torch.bfloat16)


def compiled_chain(compiled: Any, stored: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    return torch.mm(x, compiled(stored, scale).t())


def into_fresh_pages() -> None:
    with mmap.mmap(-1, 4 * ROWS * COLUMNS) as memory:
        values = torch.frombuffer(memory, dtype=torch.float32)
        values.fill_(1.0)
        del values  # the map cannot be closed while a tensor looks into it


def generated(**options: Any) -> Any:
    """`dequantise`, compiled with Inductor's `options` and shared with nobody.

    Dynamo keeps what it compiled with the code object and gives it to all with equal options.
    """
    own = FunctionType(dequantise.__code__.replace(), dequantise.__globals__)
    return torch.compile(own, fullgraph=True, dynamic=False, options=options)


def runs() -> dict[str, Callable[[], object]]:
    codes, scale = inputs.quantised(ROWS, COLUMNS)
    stored = {"float8": codes.view(torch.float8_e4m3fn), "int8": codes.view(torch.int8)}
    x = torch.randn(1, COLUMNS).bfloat16()
    wide = stored["float8"].float()
    full = scale.repeat_interleave(COLUMNS, 1)
    product = wide * full
    narrow = product.bfloat16()
    compiled = generated()
    found: dict[str, Callable[[], object]] = {
        "expand the scale": lambda: scale.repeat_interleave(COLUMNS, 1),
        "multiply by the expanded scale": lambda: wide * full,
        "multiply, the scale broadcast": lambda: wide * scale,
        "cast float32 to bf16": lambda: product.to(torch.bfloat16),
        "bf16 product, one row": lambda: torch.mm(x, narrow.t()),
        FRESH: into_fresh_pages,
        KEPT: lambda: full.fill_(1.0),
    }
    for kind, values in stored.items():
        found |= {
            f"cast {kind} to float32": partial(values.to, torch.float32),
            f"generated dequantise, {kind}": partial(compiled, values, scale),
            f"0.13.0 eager, {kind}": partial(chain, values, scale, x, True),
            f"0.14.1 eager, {kind}": partial(chain, values, scale, x, False),
            f"0.14.1 compiled, {kind}": partial(compiled_chain, compiled, values, scale, x),
        }
    patterns = {
        name: held.view(torch.float8_e4m3fn)
        for name, held in inputs.patterns(ROWS, COLUMNS).items()
    }
    found |= {f"{GENERATED}, {n}": partial(compiled, held, scale) for n, held in patterns.items()}
    at_random = patterns[inputs.AT_RANDOM]
    found[f"{CAST}, {inputs.AT_RANDOM}"] = partial(at_random.to, torch.float32)
    if "AVX" not in torch.backends.cpu.get_cpu_capability() or torch._dynamo.config.disable:
        return found
    narrower = generated(**{"cpp.simdlen": 256})
    direct = generated(**{"cpp.simdlen": 256})
    with inputs.loads_without_a_buffer() as changed:
        direct(stored["int8"], scale)
    same = torch.equal(direct(stored["int8"], scale), narrower(stored["int8"], scale))
    if len(changed) == 1 and same:  # not where another Inductor writes another load
        found[DIRECT] = partial(direct, stored["int8"], scale)
    return found | {
        BUFFERED: partial(narrower, stored["int8"], scale),
        NARROW: partial(narrower, stored["float8"], scale),
        f"{NARROW}, {inputs.AT_RANDOM}": partial(narrower, at_random, scale),
    }


def sampled(found: dict[str, Callable[[], object]], rounds: int) -> Taken:
    """CPU time and fresh pages, in shuffled rounds, after one that compiles and is thrown away."""
    for run in found.values():
        run()
    taken: Taken = {name: ([], []) for name in found}
    shuffled = random.Random(inputs.SEED)
    for number in range(rounds):
        # What ran before decides what lies in the caches: each meets every other now and then.
        for order, (name, run) in enumerate(shuffled.sample(list(found.items()), len(found))):
            pages, started = fresh_pages(), time.process_time_ns()
            run()
            spent, pages = time.process_time_ns() - started, fresh_pages() - pages
            taken[name][0].append(spent / (ROWS * COLUMNS))
            taken[name][1].append(pages / (ROWS * COLUMNS))
            line = {"round": number, "order": order, "variant": name, "phase": "cpu time"}
            add_sample({**line, "duration_ns": spent, "fresh_pages": pages})
    return taken


def parts(version: str, kind: str) -> tuple[str, ...]:
    cast, down, product = f"cast {kind} to float32", "cast float32 to bf16", "bf16 product, one row"
    if version == "0.13.0 eager":
        return cast, "expand the scale", "multiply by the expanded scale", down, product
    if version == "0.14.1 eager":
        return cast, "multiply, the scale broadcast", down, product
    return f"generated dequantise, {kind}", product


def shares() -> dict[str, str]:
    """Name of the codes -> how many vectors of 16 hold a subnormal one."""
    held = {"quantised": inputs.quantised(ROWS, COLUMNS)[0], **inputs.patterns(ROWS, COLUMNS)}
    return {name: f"{inputs.subnormal_share(codes):.2%}" for name, codes in held.items()}


def main() -> None:
    if os.environ.get("GLIBC_TUNABLES") != KEEP_MEMORY:  # read when a process starts
        os.environ["GLIBC_TUNABLES"] = KEEP_MEMORY
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    torch.set_num_threads(1)
    torch.compiler.config.force_disable_caches = True  # one kernel is changed after it is generated
    warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")  # that says so
    preset = sys.argv[2] if len(sys.argv) > 2 else ""
    with torch.no_grad():
        taken = sampled(runs(), ROUNDS["tiny" if preset == "tiny" else ""])
    ns = {name: statistics.median(found) for name, (found, _) in taken.items()}
    pages = {name: statistics.median(found) for name, (_, found) in taken.items()}
    page_ns = max(0.0, ns[FRESH] - ns[KEPT]) / max(pages[FRESH], 1e-9)
    rows: list[list[Any]] = []
    for name, (found, _) in taken.items():
        ends = summarise(found).interval
        spread = f" ({ends.low:.3f} … {ends.high:.3f})" if ends else ""
        fresh = f"{4096 * pages[name]:.1f}"  # as bytes per weight: 4096 in a page
        rows.append([name, f"{ns[name]:.3f}{spread}", fresh, "", ""])
    checks: list[dict[str, Any]] = []
    figures: dict[str, Any] = {"page_ns": {"value": page_ns, "unit": "ns per fresh page"}}
    for kind in ("float8", "int8"):
        for version in ("0.13.0 eager", "0.14.1 eager", "0.14.1 compiled"):
            name = f"{version}, {kind}"
            passes, faults = sum(ns[p] for p in parts(version, kind)), page_ns * pages[name]
            off = ns[name] / (passes + faults) - 1
            (row,) = [row for row in rows if row[0] == name]
            row[3:] = [f"{passes:.2f} + {faults:.2f}", f"{100 * off:+.0f} %"]
            checks.append(
                {
                    "says": f"{name}: its passes and its fresh pages, {passes:.2f} + {faults:.2f} "
                    f"ns, give the whole, {ns[name]:.2f}, within {100 * CLOSES_WITHIN:.0f} %",
                    "holds": abs(off) <= CLOSES_WITHIN,
                }
            )
            figures[f"residual_{version.replace(' ', '_')}_{kind}"] = {"value": off, "unit": ""}
        ratio = ns[f"0.13.0 eager, {kind}"] / ns[f"0.14.1 compiled, {kind}"]
        figures[f"ratio_{kind}"] = {"value": ratio, "unit": "0.13.0 ÷ 0.14.1 compiled"}
        share = ns[f"cast {kind} to float32"] / ns[f"0.13.0 eager, {kind}"]
        figures[f"cast_share_{kind}"] = {"value": share, "unit": "of 0.13.0's time"}
        figures[f"cast_ns_{kind}"] = {"value": ns[f"cast {kind} to float32"], "unit": "ns"}
    for figure, (above, below) in WORTH.items():
        if above in taken and below in taken:
            figures[figure] = ratio_figure(compare(taken[below][0], taken[above][0]))
    capability = torch.backends.cpu.get_cpu_capability()
    document = {
        "schema": "worklog.study/1",
        "title": f"One weight of {ROWS} × {COLUMNS}, one thread, ns of CPU time per weight; torch "
        f"takes {capability} code on this CPU; a fresh page costs {page_ns:.0f} ns",
        "columns": COLUMNS_SHOWN,
        "right": COLUMNS_SHOWN[1:],
        "rows": rows,
        "figures": figures,
        "facts": {
            "torch": torch.__version__,
            "threads": 1,
            "cpu_capability": capability,
            "vectors_with_a_subnormal_code": shares(),
        },
        "checks": checks,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
