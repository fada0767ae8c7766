"""What does a recorded tuning say? Figures and tables of `gpu_route`'s and `gpu_sides`' documents.

Pure: the same on the machine that measured and anywhere else. Origin: measured on the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from common.report.tables import Table, interval, significant
from problems.gemlite_autotune.results import Results
from problems.gemlite_autotune.shipped_tables import Config, parse_config

Record = Mapping[str, Any]
MAIN_MODE = "fast"  # what `set_autotune` is set to when nobody sets it
ORIGIN = "measured-gpu"


def tuning_results(document: Record, prefix: str = "") -> Results:
    """Everything that one document of `record_tuning` says, with `sides` where they were timed.

    `prefix` comes before the name of every figure.
    """
    results = Results()
    routes = []
    for m, of_m in document["batches"].items():
        for mode, seen in of_m["modes"].items():
            name = f"m{m}" if mode == MAIN_MODE else f"m{m}_{mode}"
            _one_tuning(results, prefix, name, seen)
        if "restore" in of_m and MAIN_MODE in of_m["modes"]:
            _restoring(results, f"{prefix}m{m}", of_m["modes"][MAIN_MODE], of_m["restore"])
        if "sides" in of_m:
            _sides(results, prefix, m, of_m["sides"])
        routes.append(_route_row(m, of_m))
    columns = (
        "M",
        "family",
        "in the table",
        "mode",
        "left by the pruner",
        "benchmarked",
        "launched",
    )
    results.tables["routes"] = Table(columns, tuple(row for rows in routes for row in rows), ("M",))
    return results


def timed(record: Record) -> dict[Config, list[float | None]]:
    """Configuration -> median, 20 % and 80 % in ms; None in them for one that could not run."""
    return {parse_config(_integers(row["values"])): row["ms"] for row in record["timings"]}


def medians(record: Record) -> dict[Config, float]:
    """Those that ran: configuration -> ms."""
    return {config: ms[0] for config, ms in timed(record).items() if ms[0] is not None}


def _one_tuning(results: Results, prefix: str, name: str, seen: Record) -> None:
    record = seen["heard"]
    if record is None:  # one configuration was left: launched without a benchmark
        return
    every, ran = timed(record), medians(record)
    refused = len(every) - len(ran)
    results.figure(f"{prefix}{name}_refused", refused, "configurations", ORIGIN)
    if record["duration_seconds"] is not None:
        results.figure(f"{prefix}{name}_tuning_seconds", record["duration_seconds"], "s", ORIGIN)
    if not ran:
        return
    best = min(ran.values())
    results.figure(f"{prefix}{name}_best_us", 1e3 * best, "µs", ORIGIN)
    results.figure(f"{prefix}{name}_worst_over_best", max(ran.values()) / best, "", ORIGIN)
    noise = stage_noise(record["kernel"], ran)
    if noise is not None:
        results.figure(f"{prefix}{name}_same_program_ratio", noise, "", ORIGIN)
    rows = [
        (str(config), *(significant(1e3 * ms) if ms is not None else "" for ms in every[config]),
         significant(value / best))
        for config, value in sorted(ran.items(), key=lambda item: item[1])
    ]  # fmt: skip
    rows += [(str(config), "", "", "", "could not run") for config in every if config not in ran]
    columns = ("configuration", "µs", "20 %", "80 %", "over the best")
    results.tables[name] = Table(columns, tuple(rows), columns[1:])


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


def _restoring(results: Results, name: str, seen: Record, without: Record) -> None:
    """What cloning and restoring the weights adds to each timed call, and whether it matters."""
    if seen["heard"] is None or without["heard"] is None:
        return
    one, other = medians(seen["heard"]), medians(without["heard"])
    common = one.keys() & other.keys()
    if not common:
        return
    ratio = median(one[config] / other[config] for config in common)
    results.figure(f"{name}_restore_ratio", ratio, "", ORIGIN)
    added = median(one[config] - other[config] for config in common)
    results.figure(f"{name}_restore_added_us", 1e3 * added, "µs", ORIGIN)
    chosen = min(one, key=lambda config: one[config])
    # What the choice made under the clones costs where there are none.
    if chosen in other:
        regret = other[chosen] / min(other.values())
        results.figure(f"{name}_restore_regret", regret, "", ORIGIN)


def _sides(results: Results, prefix: str, m: str, sides: Record) -> None:
    """Default, shipped, tuned and the static model's choice, with intervals and verdicts."""
    rows = []
    for side, config in sides["configs"].items():
        if side in sides["rejected"]:
            error = significant(sides["errors"][side])
            rows.append((side, config, "", "", "", f"rejected: relative error {error}"))
            continue
        found = sides.get("ns", {}).get(side)
        if found is None:
            rows.append((side, config, "", "", "", "not timed"))
            continue
        results.figure(f"{prefix}m{m}_{side}_us", found["median"] / 1e3, "µs", ORIGIN)
        ends = found["interval"]
        spread = (
            ""
            if ends is None
            else f"{significant(ends['low'] / 1e3)} … " + significant(ends["high"] / 1e3)
        )
        against = sides["against_default"].get(side)
        ratio = "" if against is None else significant(against["ratio"])
        if against is not None and against["interval"] is not None:
            low, high = against["interval"]["low"], against["interval"]["high"]
            ratio += f" ({interval(low, high)})"
        rows.append((side, config, significant(found["median"] / 1e3), spread, ratio,
                     "baseline" if against is None else against["verdict"]))  # fmt: skip
    times = {side: found["median"] for side, found in sides.get("ns", {}).items()}
    if "tuned" in times:
        for side in ("default", "shipped", "static"):
            if side in times:
                regret = times[side] / times["tuned"]
                results.figure(f"{prefix}m{m}_{side}_regret", regret, "", ORIGIN)
    columns = ("side", "configuration", "µs per launch", "95 %", "time ÷ default", "verdict")
    note = ""
    if "copies" in sides:
        note = f"_{sides['copies']} copies of the layer in turn; {sides['stopped_because']}._"
    results.tables[f"sides-m{m}"] = Table(columns, tuple(rows), columns[2:5], note)


def _route_row(m: str, of_m: Record) -> list[tuple[str, ...]]:
    """Route and table apart from what was tuned: the listener is silent where nothing was."""
    family, in_table = of_m["route"]["family"], "yes" if of_m["route"]["in_table"] else "no"
    seen = {"shipped": of_m["shipped"]} if "shipped" in of_m else {}
    rows: list[tuple[str, ...]] = []
    for mode, one in {**seen, **of_m["modes"]}.items():
        left = str(len(one["left"])) if one["asked_pruner"] else "not asked"
        heard = one["heard"]
        tuned = "no" if heard is None else f"{len(heard['timings'])}"
        launched = str(parse_config(_integers(one["launched"])))
        rows.append((m, family, in_table, mode, left, tuned, launched))
    return rows


def _integers(values: Mapping[str, Any]) -> dict[str, int]:
    return {k: int(v) for k, v in values.items() if isinstance(v, int | bool)}
