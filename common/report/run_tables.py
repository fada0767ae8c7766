"""What does one run say, as tables? From its summary alone; used by terminal, pages and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.report.tables import Table, interval, mebibytes, milliseconds, percent, significant

Summary = Mapping[str, Any]


def device_name(summary: Summary, manifest: Mapping[str, Any]) -> str:
    """The device that was measured, in words."""
    machine = manifest["machine"]
    if summary["device"]["kind"] == "cuda" and machine["gpus"]:
        return str(machine["gpus"][0]["name"])
    device = f"{machine['cpu'] or 'unknown CPU'}, {machine['usable_cpus']} cores"
    return device + (", virtual machine" if machine["virtual"] else "")


def cpu_capability(manifest: Mapping[str, Any]) -> str | None:
    """torch's name for the vector instructions of the CPU; None on a GPU and in older runs."""
    if manifest["device"]["kind"] != "cpu":
        return None
    facts = manifest.get("facts", {}).values()
    return next((str(f["cpu_capability"]) for f in facts if f.get("cpu_capability")), None)


def footer(summary: Summary, manifest: Mapping[str, Any]) -> str:
    """The conditions that stand under every table: device, versions, date, run."""
    facts = {**manifest.get("profile_facts", {}), **manifest.get("facts", {})}
    torch = next((f["torch"] for f in facts.values() if "torch" in f), "unknown")
    return (
        f"_{summary['origin']}: {device_name(summary, manifest)}; torch {torch}; "
        f"preset {summary['preset']}; "
        f"{summary['started'][:10]}, revision {summary['revision'][:7]}._"
    )


def ratio_of(summary: Summary, variant: str, phase: str) -> Mapping[str, Any] | None:
    for row in summary["ratios"]:
        if row["variant"] == variant and row["phase"] == phase:
            found: Mapping[str, Any] = row
            return found
    return None


def verdicts(summary: Summary, phase: str = "decode") -> Table:
    """Every variant against the baseline in one phase, with intervals and verdicts."""
    rows = []
    for name, variant in summary["variants"].items():
        measured = variant["phases"].get(phase)
        if measured is None:
            rows.append((name, variant["state"], "", "", "", variant.get("reason", "")))
            continue
        ratio, is_baseline = ratio_of(summary, name, phase), name == summary["baseline"]
        ends = measured["interval_ns"]
        spread = f" ({milliseconds(ends[0])} … {milliseconds(ends[1])})" if ends is not None else ""
        rows.append(
            (
                name,
                milliseconds(measured["median_ns"]) + spread,
                significant(1e9 / measured["median_ns"]),
                significant(ratio["ratio"]) if ratio else "1" if is_baseline else "",
                "" if ratio is None or not ratio["interval"] else interval(*ratio["interval"]),
                ratio["verdict"] if ratio else "baseline" if is_baseline else "no baseline",
            )
        )
    return Table(
        ("variant", f"{phase} ms", "per second", "time ÷ baseline", "interval", "verdict"),
        tuple(rows),
        (f"{phase} ms", "per second", "time ÷ baseline", "interval"),
        _how_measured(summary, phase),
    )


def _how_measured(summary: Summary, phase: str) -> str:
    """What stands under a table of times: what was counted, how often, and why it ended."""
    timed = [v["phases"][phase] for v in summary["variants"].values() if phase in v["phases"]]
    if not timed:
        return ""
    rounds = max(found["samples"] for found in timed)
    units = max(found["units_per_sample"] for found in timed)
    each = f"one of the {units} steps of a sample" if units > 1 else "one sample"
    sampling = summary.get("sampling") or {}
    order = "interleaved" if sampling.get("interleaved", True) else "one variant after the other"
    text = f"_Median of {each} and its 95 % interval; {rounds} rounds, {order}"
    if sampling.get("stopped_because"):
        text += f"; ended: {sampling['stopped_because']}"
    return text + "._"


def claims(summary: Summary) -> Table:
    words = {True: "reproduced", False: "NOT reproduced", None: "not decided"}
    rows = []
    for row in summary["claims"]:
        value = "" if row["value"] is None else significant(row["value"], 4)
        if row.get("interval"):
            value += f" ({interval(*row['interval'])})"
        verdict = words[row["reproduced"]]
        if row.get("reason"):
            verdict += f": {row['reason']}"
        rows.append((row["says"], value, verdict))
    return Table(("claim", "measured", "result"), tuple(rows), ("measured",))


def figures(summary: Summary) -> Table:
    """Every figure of the variants that are not timed."""
    rows = []
    for name, variant in summary["variants"].items():
        for figure, found in variant.get("figures", {}).items():
            number = found["value"]
            value = "" if number is None else significant(number, 4)
            if number is not None and float(number).is_integer():
                value = f"{int(number):,}"  # counts are exact
            rows.append((name, figure, value, found.get("unit", ""), found.get("origin", "")))
        if variant["state"] != "measured" or "profile_failure" in variant:
            why = variant.get("profile_failure") or variant.get("reason", "")
            rows.append((name, "", "", "", f"{variant['state']}: {why}"))
    return Table(("variant", "figure", "value", "unit", "origin"), tuple(rows), ("value",))


def operators(summary: Summary, variant: str, phase: str, most: int = 6) -> Table:
    """Time by operator in one phase of one variant; the rows add up to the phase's time."""
    time = summary["variants"][variant]["profile"][phase]["time"]
    total, runs = time["total_ns"], time["occurrences"] * time.get("units", 1)

    def row(name: str, count: str, time_ns: int) -> tuple[str, ...]:
        share = percent(time_ns / total) if total else ""
        return name, count, milliseconds(time_ns / runs), share

    rows = [
        row(f"`{r['operator']}`", significant(r["count"] / runs), r["time_ns"])
        for r in time["rows"][:most]
    ]
    rest = sum(r["time_ns"] for r in time["rows"][most:]) + time["other_operators"]["time_ns"]
    rows.append(row("all other operators", "", rest))
    rows.append(row("outside any operator (Python, dispatch)", "", time["outside_operators_ns"]))
    rows.append(row("**sum**", "", total))
    return Table(
        ("operator", "calls", "ms", "share"), tuple(rows), ("calls", "ms", "share"),
        f"_Profiled pass, {time['quantity']}, mean of the {runs} recorded (`{phase}`)._",
    )  # fmt: skip


def memory(summary: Summary) -> Table:
    rows = []
    for name, variant in summary["variants"].items():
        for phase, profile in variant.get("profile", {}).items():
            found = profile.get("memory")
            if found is None:
                continue
            per_element = found["bytes_per_element_of_largest_linear"]
            rows.append(
                (
                    name,
                    phase,
                    mebibytes(found["temporary_peak_bytes"]),
                    "" if per_element is None else f"{per_element:.2f}",
                    " › ".join(f"`{op}`" for op in found["held_by"][:2]),
                )
            )
    return Table(
        ("variant", "phase", "peak of temporaries MiB", "bytes per element of the largest linear",
         "held by"),
        tuple(rows),
        ("peak of temporaries MiB", "bytes per element of the largest linear"),
    )  # fmt: skip


def fresh_pages(summary: Summary) -> Table:
    """Pages that the kernel had to hand out per repetition: one sample of every phase."""
    rows = []
    for name, variant in summary["variants"].items():
        found = variant.get("fresh_pages_per_repetition")
        if found is not None:
            rows.append((name, *(f"{found[k]:,}" for k in ("median", "minimum", "maximum"))))
    columns = ("variant", "fresh pages per repetition, median", "minimum", "maximum")
    return Table(columns, tuple(rows), columns[1:])


def correctness(summary: Summary) -> Table:
    rows = []
    for name, variant in summary["variants"].items():
        check = variant.get("correctness")
        if check is None:
            continue
        if "relative_error" not in check:
            rows.append((name, "", "", "", "", f"rejected: {check['reason']}"))
            continue
        worst = max(check["relative_error"].values())
        result = "reference" if check.get("reference") else "passed"
        if not check["passed"]:
            result = "rejected"
        rows.append(
            (
                name,
                significant(worst),
                significant(check["tolerance"]) if "tolerance" in check else "",
                significant(max(check["divergence_nats"].values())),
                percent(min(check["top1_agreement"].values())),
                result,
            )
        )
    columns = ("variant", "relative error of the logits", "tolerance", "KL nats", "same top token",
               "result")  # fmt: skip
    note = "_Against the baseline's logits; of each figure the worst of the phases is shown._"
    return Table(columns, tuple(rows), columns[1:5], note)
