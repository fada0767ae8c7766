"""Which operators lead from one variant to the other? One SVG that stands by itself, for a README.

A waterfall per unit of a phase, from a run's profiled pass. The printed figures add up as printed:
each is the difference of two rounded totals. Light and dark follow the reader's browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import UsageError
from common.report.diff_waterfall import Step, steps
from common.report.phase_difference import phase_difference
from common.report.run_view import RunView
from common.report.svg import Scale, short
from common.report.tables import escape_html, interval, milliseconds, percent, significant

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 290, 110, 26, 62
STEPS = 4
STYLE = """
text { font: 13px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: #1b1f24; }
.soft { fill: #59636e; font-size: 12px; } .title { font-size: 16px; font-weight: 650; }
.n { font-variant-numeric: tabular-nums; } .b { font-weight: 650; }
.page { fill: #ffffff; } .total { fill: #6a747e; } .up { fill: #b42318; } .down { fill: #1a6b3c; }
.base { fill: none; stroke: #6a747e; stroke-width: 1.5; } .grid { stroke: #e6eaee; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e8ec; } .soft { fill: #9aa5b1; } .page { fill: #12161b; }
  .total { fill: #7d8793; } .base { stroke: #7d8793; }
  .up { fill: #ff8f80; } .down { fill: #6fcf97; } .grid { stroke: #262d35; }
}
"""


@dataclass(frozen=True)
class Attribution:
    """What the figure shows: steps in ns per unit, from `before` to `after`, and the finding."""

    before: str
    after: str
    phase: str
    unit: str  # what the times are of: "decode step", "prefill"
    total_before_ns: int
    total_after_ns: int
    parts: tuple[Step, ...]
    baseline: tuple[str, int] | None  # of the same pass, where it is neither side
    finding: str
    timed: str
    conditions: str


def attribution(view: RunView, before: str, after: str, phase: str) -> Attribution:
    """Raises UsageError where a side was not profiled."""
    found = phase_difference(view, before, after, phase)
    if found is None:
        raise UsageError(
            f"{view.folder.name} has no profile of {before} and {after} in {phase}; name two "
            "variants that it profiled"
        )
    parts = _parts(steps(found, found.rows, STEPS), found.total_a)
    largest = found.rows[0]
    share = max(largest.a / found.total_a, largest.b / found.total_b)
    side = before if largest.a / found.total_a >= largest.b / found.total_b else after
    baseline = view.summary["baseline"]
    base = None
    if baseline not in (before, after):
        other = phase_difference(view, baseline, before, phase)
        base = None if other is None else (baseline, other.total_a)
    run = view.manifest["machine"]
    return Attribution(
        before,
        after,
        phase,
        _unit(view, phase),
        found.total_a,
        found.total_b,
        parts,
        base,
        f"{largest.name} is {percent(share)} of {side}'s {phase}",
        _timed(view, before, after, phase),
        f"{view.summary['origin']}: {run.get('cpu') or view.device}, preset "
        f"{view.summary['preset']}, {str(view.summary['started'])[:10]}",
    )


def _unit(view: RunView, phase: str) -> str:
    """ "decode step" where a sample of the phase has several of them, else the phase's own name."""
    key = str(view.manifest["phases"].get(phase) or "")
    return f"{phase} step" if key.endswith("_steps") else phase


def _parts(found: Sequence[Step], start: int) -> tuple[Step, ...]:
    """All that is not among the largest as one step."""
    kept = [step for step in found if not step.label.startswith("(")]
    rest = [step for step in found if step.label.startswith("(")]
    parts, at = [], start
    for step in kept:
        parts.append(Step(step.label, at, step.delta))
        at += step.delta
    if rest:
        parts.append(Step("all other operators", at, sum(step.delta for step in rest)))
    return tuple(parts)


def _timed(view: RunView, before: str, after: str, phase: str) -> str:
    """The ratio without a profiler, with its interval; empty where it was not timed."""
    compared = view.evidence.comparison(before, after, phase)
    one, other = (view.evidence.summary_ns(name, phase) for name in (before, after))
    if compared is None or one is None or other is None:
        return ""
    ends = compared.interval
    spread = f" ({interval(ends.low, ends.high)})" if ends else ""
    return (
        f"Timed without a profiler: {milliseconds(one.median)} → {milliseconds(other.median)} ms, "
        f"{significant(compared.ratio)}×{spread}."
    )


def alternative(found: Attribution) -> str:
    """The figure in words, for those who cannot see it."""
    moved = found.parts[0]
    return (
        f"{found.finding}: {found.before} {found.total_before_ns / 1e6:.1f} ms, of it "
        f"{moved.label} {moved.delta / 1e6:+.1f} ms, {found.after} "
        f"{found.total_after_ns / 1e6:.1f} ms. {found.timed}"
    )


def attribution_svg(found: Attribution) -> str:
    """The picture's text; the same run gives the same bytes."""
    places = [found.total_before_ns, found.total_after_ns]
    places += [step.start + step.delta for step in found.parts]
    scale = Scale(0, max(places) / 1e6)
    plot = WIDTH - LEFT - RIGHT

    def x(ns: float) -> float:
        return LEFT + plot * scale(ns / 1e6) / 100

    lines = len(found.parts) + 2 + (found.baseline is not None)
    bottom = TOP + ROW * lines
    height = bottom + 52
    body = [f'<rect class="page" width="{WIDTH}" height="{height}"/>']
    body.append(_text(16, 26, found.finding, "title"))
    how = f"Profiled pass, ms of one {found.unit}; every bar begins where the one above ends."
    body.append(_text(16, 46, how, "soft"))
    for tick in scale.ticks(5):
        at = x(tick * 1e6)
        body.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}"/>')
        body.append(_text(at, bottom + 16, f"{tick:g}", "soft n", "middle"))
    body.append(_text(LEFT + plot + 12, bottom + 16, "ms", "soft"))
    rows = [(found.before, 0, found.total_before_ns, "total")]
    rows += [
        (step.label, step.start, step.start + step.delta, "up" if step.delta > 0 else "down")
        for step in found.parts
    ]
    rows.append((found.after, 0, found.total_after_ns, "total"))
    if found.baseline is not None:
        rows.append((f"for comparison: {found.baseline[0]}", 0, found.baseline[1], "base"))
    for number, (label, start, end, style) in enumerate(rows):
        body.append(_row(number, label, x(start), x(end), style, _shown(start, end, style)))
    body.append(_text(16, height - 12, f"{found.timed} {found.conditions}".strip(), "soft"))
    words = escape_html(alternative(found))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">\n<title>{escape_html(found.finding)}'
        f"</title>\n<desc>{words}</desc>\n<style>{STYLE}</style>\n" + "\n".join(body) + "\n</svg>\n"
    )


def _row(number: int, label: str, start: float, end: float, style: str, shown: str) -> str:
    low, width = min(start, end), max(abs(end - start), 1.5)
    y = TOP + ROW * number
    bold = " b" if style == "total" else ""
    name = f"<title>{escape_html(label)}</title>{escape_html(short(label, 36))}"
    return (
        f'<text class="{bold.strip()}" x="{LEFT - 10}" y="{y + 17}" text-anchor="end">{name}</text>'
        f'<rect class="{style}" x="{low:.1f}" y="{y + 4}" width="{width:.1f}" height="{ROW - 8}"/>'
        f'<text class="n{bold}" x="{WIDTH - RIGHT + 12}" y="{y + 17}">{shown}</text>'
    )


def _shown(start: int, end: int, style: str) -> str:
    """Totals, and differences of rounded totals: what is printed adds up as printed."""
    if style in ("total", "base"):
        return f"{end / 1e6:.1f} ms"
    delta = round(end / 1e5) - round(start / 1e5)
    return f"{delta / 10:+.1f}"


def _text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">'
        f"{escape_html(words)}</text>"
    )
