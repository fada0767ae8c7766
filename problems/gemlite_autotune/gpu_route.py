"""What does the autotuner really choose on this GPU? Every configuration's time, as Triton saw it.

Tunes after `reset_config()`, so that no shipped row answers, and keeps what Triton's listener says
of every configuration. The listener is silent where one configuration is left (a table hit): route
and cache state are recorded separately, from the route map. The times are the tuner's own: around
GEMV_REVSPLITK it clones and restores the weights inside each timed call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.report.tables import Table, significant
from problems.gemlite_autotune.layers import Layer
from problems.gemlite_autotune.results import Results
from problems.gemlite_autotune.shipped_tables import Config, parse_config

Record = Mapping[str, Any]


def listener_record(
    fn: Any, key: Any, best_config: Any, configs_timings: Any, duration: Any, cache_hit: Any
) -> dict[str, Any]:
    """What Triton's autotune listener was told, as JSON: times in ms (median, 20 %, 80 %).

    A configuration that could not run has the time None: Triton scores it as infinite.
    """
    timings = []
    for config, times in configs_timings.items():
        values = [float(time) for time in (times if isinstance(times, Sequence) else [times])]
        finite = [value if math.isfinite(value) else None for value in values]
        timings.append({"values": dict(config.all_kwargs()), "ms": finite})
    return {
        "kernel": str(fn.__name__),
        "key": [str(part) for part in key],
        "best": dict(best_config.all_kwargs()),
        "timings": timings,
        "duration_seconds": duration,
        "cache_hit": bool(cache_hit),
    }


def tuning_results(layer: Layer, records: Mapping[int, Record]) -> Results:
    """Figures and tables of one tuned list per batch. Origin: measured on the GPU."""
    results = Results()
    for m, record in records.items():
        timed = [
            (parse_config(_integers(row["values"])), row["ms"][0], row["ms"])
            for row in record["timings"]
        ]
        ran = [(config, ms, all_ms) for config, ms, all_ms in timed if ms is not None]
        refused = len(timed) - len(ran)
        results.figure(f"m{m}_refused", refused, "configurations", "measured-gpu")
        if not ran:
            continue
        best = min(ms for _, ms, _ in ran)
        results.figure(f"m{m}_best_us", 1e3 * best, "µs", "measured-gpu")
        results.figure(f"m{m}_worst_over_best", max(ms for _, ms, _ in ran) / best, "",
                       "measured-gpu")  # fmt: skip
        noise = stage_noise(record["kernel"], {config: ms for config, ms, _ in ran})
        if noise is not None:
            results.figure(f"m{m}_same_program_ratio", noise, "", "measured-gpu")
        rows = [
            (str(config), *(significant(1e3 * value) if value is not None else "" for value in all),
             significant(ms / best))
            for config, ms, all in sorted(ran, key=lambda row: row[1])
        ]  # fmt: skip
        rows += [
            (str(config), "", "", "", "could not run") for config, ms, _ in timed if ms is None
        ]
        columns = ("configuration", "µs", "20 %", "80 %", "over the best")
        results.tables[f"m{m}"] = Table(columns, tuple(rows), columns[1:])
    return results


def stage_noise(kernel: str, times: Mapping[Config, float]) -> float | None:
    """Largest ratio of two times of one program: GEMV_REVSPLITK ignores the number of stages."""
    if "revsplitK" not in kernel:
        return None
    same: dict[Any, list[float]] = {}
    for config, ms in times.items():
        name = (config.block_n, config.block_k, config.warps, config.a_order, config.dot_mode)
        same.setdefault(name, []).append(ms)
    pairs = [max(found) / min(found) for found in same.values() if len(found) > 1]
    return max(pairs) if pairs else None


def _integers(values: Mapping[str, Any]) -> dict[str, int]:
    return {k: int(v) for k, v in values.items() if isinstance(v, int | bool)}


def record_tuning(layer: Layer, batches: Sequence[int], folder: Path | None) -> dict[int, Record]:
    """Tune each batch on the GPU that is here; also as lines of `tuning.jsonl` in `folder`."""
    import torch
    from gemlite import core
    from triton import knobs

    from problems.gemlite_autotune.gemlite_layers import gemlite_layer

    made = gemlite_layer(layer).to("cuda")
    found: dict[int, Record] = {}
    core.GemLiteLinear.reset_config()  # a shipped row would be launched without any benchmark
    heard: list[dict[str, Any]] = []
    before = knobs.autotuning.listener
    knobs.autotuning.listener = lambda **said: heard.append(listener_record(**said))
    try:
        for m in batches:
            heard.clear()
            x = torch.randn((m, layer.k), device="cuda").to(
                torch.float16 if layer.activation == "fp16" else torch.bfloat16
            )
            made.forward(x)
            torch.cuda.synchronize()
            if heard:
                found[m] = heard[-1]
                if folder is not None:
                    line = json.dumps({"m": m, "layer": str(layer), **heard[-1]})
                    with (folder / "tuning.jsonl").open("a", encoding="utf-8") as stream:
                        stream.write(line + "\n")
    finally:
        knobs.autotuning.listener = before
    return found
