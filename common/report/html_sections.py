"""What does each section of a run's report hold? Tables from `run_tables`, charts beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.floors.measured import from_json
from common.report import run_tables
from common.report.charts_floors import floor_chart
from common.report.charts_memory import memory_chart
from common.report.charts_operators import colours, operator_charts
from common.report.charts_timing import ratio_chart, samples_chart
from common.report.floor_tables import measured_table, run_floor_table
from common.report.memory_pools import memory_pools
from common.report.run_view import RunView, claimed_variants, headline
from common.report.tables import escape_html, inline_html, mebibytes

VERDICT_BADGES = {
    "SLOWER": "slow", "FASTER": "fast", "SAME": "same", "AMBIGUOUS": "unsure",
    "NOT_COMPARABLE": "unsure", "rejected": "no", "failed": "no", "not applicable": "same",
}  # fmt: skip
CLAIM_BADGES = {"NOT reproduced": "no", "reproduced": "yes", "not decided": "open"}
FOLDED_CLAIMS = 4  # so many that were not run are put away
UNKNOWN = "unknown"
CHECK_BADGES = {"passed": "yes", "rejected": "no"}


def header(view: RunView) -> str:
    """Banners, what came out in three figures, and the conditions it was measured under."""
    return _banners(view) + _key_figures(view) + _conditions(view)


def _banners(view: RunView) -> str:
    banners = []
    if not view.finished:
        banners.append(
            "<strong>Unfinished run.</strong> It was stopped before its end: what follows is what "
            "it had written until then, and no claim should rest on it."
        )
    if view.manifest.get("uncommitted_changes"):
        banners.append(
            "<strong>Uncommitted changes.</strong> The code that ran is not exactly that of the "
            "revision below."
        )
    failures = {**view.manifest.get("profile_failures", {}), **view.manifest.get("failures", {})}
    if failures:
        names = ", ".join(f"{name} ({_one_line(why)})" for name, why in failures.items())
        banners.append(f"<strong>Failed:</strong> {escape_html(names)}")
    return "".join(f'<p class="banner" role="note">{banner}</p>\n' for banner in banners)


def _one_line(text: object, most: int = 300) -> str:
    words = " ".join(str(text).split())
    return words if len(words) <= most else words[: most - 1] + "…"


def tally(view: RunView) -> str:
    """How many claims came out how, e.g. "1 reproduced, 4 not decided"."""
    words = ((True, "reproduced"), (False, "NOT reproduced"), (None, "not decided"))
    found = [claim["reproduced"] for claim in view.summary["claims"]]
    counts = [(found.count(value), word) for value, word in words]
    return ", ".join(f"{n} {word}" for n, word in counts if n) or "no claims"


def _key_figures(view: RunView) -> str:
    figures = []
    ratio = headline(view)
    if ratio:
        figures.append(("Headline ratio", *ratio))
    found = [claim["reproduced"] for claim in view.summary["claims"]]
    if found:
        figures.append(("Claims reproduced", f"{found.count(True)} of {len(found)}", tally(view)))
    peaks = [
        (memory["temporary_peak_bytes"], phase, name)
        for name in view.variants
        for phase in view.phases
        if (memory := view.profile(name, phase, "memory")) is not None
    ]
    if peaks:
        most, phase, name = max(peaks)
        figures.append(
            ("Largest peak of temporaries", f"{mebibytes(most)} MiB", f"{name}, {phase}")
        )
    cells = "".join(
        f'<div><dt>{name}</dt><dd>{escape_html(value)}</dd><dd class="small">'
        f"{escape_html(what)}</dd></div>"
        for name, value, what in figures
    )
    return f'<dl class="key">{cells}</dl>\n' if cells else ""


def _conditions(view: RunView) -> str:
    manifest, summary = view.manifest, view.summary
    changed = {True: ", with uncommitted changes", False: "", None: ""}
    facts = (
        ("Device", view.device),
        ("Origin of the numbers", summary["origin"]),
        ("torch", view.versions("torch")),
        ("torchao", view.versions("torchao")),
        ("Date", str(summary["started"])[:16].replace("T", " ") + " UTC"),
        ("Revision", str(summary["revision"])[:12] + changed[manifest.get("uncommitted_changes")]),
        ("Preset", summary["preset"]),
        ("Problem", manifest["problem"]),
    )
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{escape_html(value)}</dd></div>"
        for name, value in facts
        if value != UNKNOWN
    )
    return f'<dl class="facts">{cells}</dl>\n'


def claims(view: RunView, _: Path) -> str:
    if not view.summary["claims"]:
        return "<p>The problem makes no claims.</p>"
    whole = run_tables.claims(view.summary)
    left_out = [str(c.get("reason") or "").startswith("not run:") for c in view.summary["claims"]]
    shown, folded = (
        replace(
            whole, rows=tuple(r for r, out in zip(whole.rows, left_out, strict=True) if out is w)
        )
        for w in (False, True)
    )
    if not shown.rows or len(folded.rows) < FOLDED_CLAIMS:
        return whole.html("What this run must show, and did it", CLAIM_BADGES, "fit")
    return (
        shown.html("What this run must show, and did it", CLAIM_BADGES, "fit")
        + f"<details><summary>{len(folded.rows)} more are about what this run did not include"
        "</summary>"
        + folded.html("Claims not put to the test", CLAIM_BADGES, "fit")
        + "</details>\n"
    )


def times(view: RunView, _: Path) -> str:
    if not any(variant["phases"] for variant in view.variants.values()):
        states = run_tables.verdicts(view.summary, view.phases[0])
        note = "<p>No variant of this run was timed to its end.</p>"
        bad = any(variant.get("reason") for variant in view.variants.values())
        return note + (states.html("State of the variants", VERDICT_BADGES) if bad else "")
    parts = []
    for phase in view.phases:
        table = run_tables.verdicts(view.summary, phase)
        parts.append(f"<h4>{escape_html(phase)}</h4>\n")
        parts.append(table.html(_unit_in_words(view, phase), VERDICT_BADGES, style="sortable"))
        parts.append(ratio_chart(view, phase))
    foot = inline_html(run_tables.footer(view.summary, view.manifest).strip("_"))
    return "".join(parts) + f'<p class="note">{foot}</p>'


def _unit_in_words(view: RunView, phase: str) -> str:
    samples = {
        (measured["units_per_sample"], measured["samples"])
        for variant in view.variants.values()
        if (measured := variant["phases"].get(phase)) is not None
    }
    if len(samples) != 1:
        return "Median time of one unit and its 95 % interval"
    units, number = samples.pop()
    each = f"one step, samples of {units} steps" if units > 1 else "one sample"
    return f"Median time of {each}, and its 95 % interval; {number} samples of each variant"


def floors(view: RunView, _: Path) -> str:
    """Decode against the machine's bandwidth of the same run, where it was measured."""
    table = run_floor_table(view.summary)
    if not table.rows:
        return "<p>This run did not measure the machine's bandwidths.</p>"
    path = view.folder / "floors.json"
    rates = ""
    if path.exists():
        measured = measured_table(from_json(path.read_text(encoding="utf-8")))
        rates = measured.html("What this machine reached, measured before the timing")
    return (
        floor_chart(view)
        + rates
        + table.html(
            "Decode: stored bytes of all weights over the read bandwidth (floor), and the counted "
            "traffic of the code over the copy bandwidth (modelled); best samples of both",
            style="sortable",
        )
    )


def operators(view: RunView, _: Path) -> str:
    styles = colours(view, view.phases)
    parts = []
    for phase in view.phases:
        charts = operator_charts(view, phase, styles[phase])
        if charts:
            parts.append(f"<h4>{escape_html(phase)}</h4>\n{charts}{_operator_tables(view, phase)}")
    return "".join(parts) or "<p>This run was not profiled: no time by operator.</p>"


def _operator_tables(view: RunView, phase: str) -> str:
    """The variants that the claims speak of in the open, the others folded."""
    profiled = [name for name in view.variants if view.profile(name, phase, "time") is not None]
    open_now = [name for name in claimed_variants(view) if name in profiled] or profiled[:2]
    tables = {
        name: run_tables.operators(view.summary, name, phase).html(f"{name}, {phase}")
        for name in profiled
    }

    def side_by_side(names: list[str]) -> str:
        return '<div class="pair">' + "".join(f"<div>{tables[n]}</div>" for n in names) + "</div>"

    folded = [name for name in profiled if name not in open_now]
    more = (
        f"<details><summary>{escape_html(', '.join(folded))}</summary>"
        f"{side_by_side(folded)}</details>\n"
        if folded
        else ""
    )
    return side_by_side(open_now) + more


def memory(view: RunView, _: Path) -> str:
    table = run_tables.memory(view.summary)
    pools = memory_pools(view)
    if not table.rows:
        return pools or "<p>This run has no record of allocations.</p>"
    temporaries = table.html(
        "Peak of temporaries, above what was live when the phase began", style="sortable"
    )
    return pools + memory_chart(view) + temporaries


def correctness(view: RunView, _: Path) -> str:
    table = run_tables.correctness(view.summary)
    if not table.rows:
        return "<p>No variant was checked in this run.</p>"
    return table.html("Outputs against those of the baseline", CHECK_BADGES, style="sortable")


def samples(view: RunView, _: Path) -> str:
    return "".join(samples_chart(view, phase) for phase in view.phases)
