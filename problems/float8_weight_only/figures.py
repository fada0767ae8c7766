"""The worklog's figures, drawn from the recorded runs.

    .venv/bin/worklog render float8_weight_only

Each is drawn from the evidence that problem.toml names, and from nothing else; one whose evidence
is not recorded yet is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.contract.problem import Problem
from common.pages.blocks import Recorded, recorded
from common.report.dot_chart import Chart, Mark, dot_chart
from common.report.evidence import Evidence
from common.report.run_tables import device_name, ratio_of
from common.report.svg import Scale
from common.report.tables import interval, milliseconds, significant

PASSES = ("cast", "expand the scale", "multiply", "cast to bf16", "product", "fresh pages")


def origin(found: Recorded) -> str:
    summary, manifest = found.summary, found.run.manifest
    where = device_name(summary, manifest)
    text = f"{summary['origin']}: {where}; {summary['started'][:10]}, {summary['revision'][:7]}"
    busy = [f["others_cpu_share"] for f in manifest["facts"].values() if "others_cpu_share" in f]
    return text + "".join(f"; other programs took {share} of the CPU" for share in busy)


def times(found: Recorded, phase: str, title: str) -> Chart:
    """Time of every variant with its interval, on a logarithmic axis."""
    marks, ends = [], []
    for name, variant in found.summary["variants"].items():
        measured = variant["phases"].get(phase)
        if measured is None:
            continue
        low, high = measured["interval_ns"] or (measured["median_ns"],) * 2
        ends += [low / 1e6, high / 1e6]
        ratio = ratio_of(found.summary, name, phase)
        text = milliseconds(measured["median_ns"]) + " ms"
        if ratio is not None:
            text += f", {significant(ratio['ratio'])} ×"
        style = 3 if "fused" in name else 2 if name.startswith("bf16") else 1
        marks.append(Mark(name, measured["median_ns"] / 1e6, text, (low / 1e6, high / 1e6), style))
    scale = Scale(min(ends) / 1.3, max(ends) * 1.3, logarithmic=True)
    how = "Dot: median, whisker: its 95 % interval; × is the time over bf16's. Logarithmic axis."
    return Chart(title, how, "ms", marks, scale, origin(found))


def figures_of(found: Recorded, study: str) -> dict[str, Any]:
    return Evidence(found.run).figures(study)


def shares(found: Recorded) -> Chart:
    """The float8 and bf16 kernels as shares of the read bandwidth and of the roof, by shape."""
    shown = {
        "share": ("float8, fused", 3),
        "roof_share": ("float8, of its bound", 4),
        "own_share": ("bf16, our GEMV", 2),
    }
    marks = []
    for name, figure in figures_of(found, "kernels").items():
        kind, _, shape = name.rpartition("_")
        if kind not in shown:
            continue
        value, ends = figure["value"], figure.get("interval")
        bounds = (ends[0], ends[1]) if ends else None
        label, style = shown[kind]
        text = f"{100 * value:.0f} %" + (f" ({interval(*bounds)})" if bounds else "")
        marks.append(Mark(f"{label} {shape}", value, text, bounds, style))
    most = max(1.0, *(end for m in marks for end in (m.value, *(m.interval or ()))))
    how = (
        "Time of a pure read of the same bytes over the kernel's, in the same rounds; its bound: "
        "the slower of that and its instructions alone."
    )
    title = "One linear layer, one row: share of the read bandwidth"
    return Chart(title, how, "share", marks, Scale(0, 1.05 * most), origin(found), one=1.0)


def passes(found: Recorded) -> Chart:
    """CPU time per weight of each pass, float8 against int8 stored."""
    rows = Evidence(found.run).tables("conversion")["rows"]["rows"]
    ns = {row[0]: float(row[1].split()[0]) for row in rows}
    sums = {row[0]: row[3] for row in rows}
    marks = []
    for kind in ("float8", "int8"):
        cast, down = ns[f"cast {kind} to float32"], ns["cast float32 to bf16"]
        product = ns["bf16 product, one row"]
        old = (cast, ns["expand the scale"], ns["multiply by the expanded scale"], down, product)
        new = (cast, 0.0, ns["multiply, the scale broadcast"], down, product)
        compiled = (ns[f"generated dequantise, {kind}"], 0.0, 0.0, 0.0, product)
        named = (("0.13.0 eager", old), ("0.14.1 eager", new), ("0.14.1 compiled", compiled))
        for version, lengths in named:
            whole = ns[f"{version}, {kind}"]
            faults = float(sums[f"{version}, {kind}"].split(" + ")[1])
            stacked = tuple((length, style) for style, length in enumerate((*lengths, faults)))
            text = f"{sum(lengths) + faults:.2f} summed, {whole:.2f} whole"
            marks.append(Mark(f"{version}, stored as {kind}", whole, text, parts=stacked))
    most = max(sum(length for length, _ in mark.parts) for mark in marks)
    how = "Bars: the passes by themselves (compiled: one kernel, then the product). One thread."
    title = "CPU time per weight: the conversion from float8 is what fills it"
    legend = tuple((name, style) for style, name in enumerate(PASSES))
    scale = Scale(0, 1.05 * most)
    return Chart(title, how, "ns", marks, scale, origin(found), legend=legend)


def layers(found: Recorded) -> Chart:
    """Share of the copy bandwidth at one row, by library."""
    marks = []
    for name, figure in figures_of(found, "layers").items():
        library, _, rest = name.rpartition("-share-")
        if rest != "m1" or library == "copy":
            continue
        ends = tuple(figure["interval"]) if figure.get("interval") else None
        text = f"{100 * figure['value']:.0f} %" + (f" ({interval(*ends)})" if ends else "")
        style = 3 if library.startswith("fused") else 1
        marks.append(Mark(library, figure["value"], text, ends, style))
    how = "Stored weights per second over the measured copy bandwidth, one row; 1 is the copy."
    scale = Scale(0, max(1.1, *(m.value for m in marks)))
    title = "Linear layers beyond every cache: share of the copy bandwidth"
    return Chart(title, how, "share", marks, scale, origin(found), one=1.0)


FIGURES: dict[str, tuple[str, Callable[[Recorded], Chart]]] = {  # file -> (evidence, chart)
    "decode": ("decode", lambda found: times(found, "decode", "Decode, ms per token")),
    "ablation": (
        "ablation",
        lambda found: times(found, "decode", "Ablation: decode, ms per token"),
    ),
    "decode-pairs": ("decode_pairs", lambda found: times(found, "decode", "Decode, ms per token")),
    "kernels": ("kernels", shares),
    "kernels-pairs": ("kernels_pairs", shares),
    "passes": ("conversion", passes),
    "layers": ("layers", layers),
}


def figures(problem: Problem) -> dict[str, str]:
    """File name -> SVG, of every study whose evidence is recorded."""
    return {
        f"{name}.svg": dot_chart(chart(recorded(problem, key)))
        for name, (key, chart) in FIGURES.items()
        if key in problem.evidence
    }
