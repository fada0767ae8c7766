"""Where does a CPU spend a dequantised weight's time, and what does the conversion alone cost?

    .venv/bin/worklog bench float8_weight_only --study conversion

Every pass of torchao 0.13.0's and 0.14.1's linear layer by itself, on one 2048 × 2048 weight: CPU
time of one thread per weight, so that a busy machine disturbs little. Then the same chain of passes
as a whole, and both once more with one variable changed: the stored byte is read as int8 instead of
float8, which torch converts with vector instructions on every CPU. What is left is the bytes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from common.experiments.study import add_sample
from common.timing.statistics import summarise

ROWS = COLUMNS = 2048
ROUNDS = {"": 21, "tiny": 7}
CLOSES_WITHIN = 0.25  # the passes by themselves against the chain; they share caches there


def chain(stored: Tensor, scale: Tensor, x: Tensor, expanded: bool) -> Tensor:
    """What both versions do, eagerly: cast, (expand the scale,) multiply, cast, product."""
    wide = stored.to(torch.float32)
    factor = scale.repeat_interleave(COLUMNS, 1) if expanded else scale
    return torch.mm(x, (wide * factor).to(torch.bfloat16).t())


def dequantise(stored: Tensor, scale: Tensor) -> Tensor:
    return (stored.to(torch.float32) * scale).to(torch.bfloat16)


def compiled_chain(compiled: Any, stored: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    return torch.mm(x, compiled(stored, scale).t())


def runs() -> dict[str, Callable[[], object]]:
    codes = torch.randint(0, 127, (ROWS, COLUMNS), dtype=torch.uint8)
    stored = {"float8": codes.view(torch.float8_e4m3fn), "int8": codes.view(torch.int8)}
    scale, x = torch.rand(ROWS, 1) + 0.5, torch.randn(1, COLUMNS).bfloat16()
    wide = stored["float8"].float()
    full = scale.repeat_interleave(COLUMNS, 1)
    product = wide * full
    narrow = product.bfloat16()
    compiled: Any = torch.compile(dequantise, fullgraph=True, dynamic=False)
    found: dict[str, Callable[[], object]] = {
        "expand the scale": lambda: scale.repeat_interleave(COLUMNS, 1),
        "multiply by the expanded scale": lambda: wide * full,
        "multiply, the scale broadcast": lambda: wide * scale,
        "cast float32 to bf16": lambda: product.to(torch.bfloat16),
        "bf16 product, one row": lambda: torch.mm(x, narrow.t()),
    }
    for kind, values in stored.items():
        found |= {
            f"cast {kind} to float32": partial(values.to, torch.float32),
            f"generated dequantise, {kind}": partial(compiled, values, scale),
            f"0.13.0 eager, {kind}": partial(chain, values, scale, x, True),
            f"0.14.1 eager, {kind}": partial(chain, values, scale, x, False),
            f"0.14.1 compiled, {kind}": partial(compiled_chain, compiled, values, scale, x),
        }
    return found


def sampled(found: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """ns of CPU time per weight, in turn, after a round that compiles and is thrown away."""
    for run in found.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds):
        for order, (name, run) in enumerate(found.items()):
            started = time.process_time_ns()
            run()
            spent = time.process_time_ns() - started
            taken[name].append(spent / (ROWS * COLUMNS))
            line = {"round": number, "order": order, "variant": name, "phase": "cpu time"}
            add_sample({**line, "duration_ns": spent})
    return taken


def parts(version: str, kind: str) -> tuple[str, ...]:
    cast, down, product = f"cast {kind} to float32", "cast float32 to bf16", "bf16 product, one row"
    if version == "0.13.0 eager":
        return cast, "expand the scale", "multiply by the expanded scale", down, product
    if version == "0.14.1 eager":
        return cast, "multiply, the scale broadcast", down, product
    return f"generated dequantise, {kind}", product


def main() -> None:
    torch.set_num_threads(1)
    preset = sys.argv[2] if len(sys.argv) > 2 else ""
    with torch.no_grad():
        taken = sampled(runs(), ROUNDS["tiny" if preset == "tiny" else ""])
    ns = {name: statistics.median(found) for name, found in taken.items()}
    rows: list[list[Any]] = []
    for name, found in taken.items():
        ends = summarise(found).interval
        spread = f" ({ends.low:.3f} … {ends.high:.3f})" if ends else ""
        rows.append([name, f"{ns[name]:.3f}{spread}", "", ""])
    checks, figures = [], {}
    for kind in ("float8", "int8"):
        for version in ("0.13.0 eager", "0.14.1 eager", "0.14.1 compiled"):
            whole, summed = ns[f"{version}, {kind}"], sum(ns[p] for p in parts(version, kind))
            (row,) = [row for row in rows if row[0] == f"{version}, {kind}"]
            row[2:] = [f"{summed:.3f}", f"{100 * (whole / summed - 1):+.0f} %"]
            checks.append(
                {
                    "says": f"{version}, {kind}: the passes by themselves give the whole within "
                    f"{100 * CLOSES_WITHIN:.0f} % ({summed:.2f} against {whole:.2f} ns)",
                    "holds": abs(whole / summed - 1) <= CLOSES_WITHIN,
                }
            )
        ratio = ns[f"0.13.0 eager, {kind}"] / ns[f"0.14.1 compiled, {kind}"]
        figures[f"ratio_{kind}"] = {"value": ratio, "unit": "0.13.0 ÷ 0.14.1 compiled"}
        share = ns[f"cast {kind} to float32"] / ns[f"0.13.0 eager, {kind}"]
        figures[f"cast_share_{kind}"] = {"value": share, "unit": "of 0.13.0's time"}
        figures[f"cast_ns_{kind}"] = {"value": ns[f"cast {kind} to float32"], "unit": "ns"}
    capability = torch.backends.cpu.get_cpu_capability()
    document = {
        "schema": "worklog.study/1",
        "title": f"One weight of {ROWS} × {COLUMNS}, one thread, ns of CPU time per weight; torch "
        f"takes {capability} code on this CPU",
        "columns": ("what", "ns per weight", "sum of its passes", "whole against the sum"),
        "right": ("ns per weight", "sum of its passes", "whole against the sum"),
        "rows": rows,
        "figures": figures,
        "facts": {"torch": torch.__version__, "threads": 1, "cpu_capability": capability},
        "checks": checks,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
