"""What does a page about a difference show, however it is written? Figures and words, no markup.

The terminal, Markdown and HTML pages all take theirs from here, so that they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.diff.by_name import aggregate
from common.diff.difference import Difference, Row
from common.diff.gate import side_total
from common.report.svg import short
from common.report.tables import printable, significant
from common.report.trace_page import exact_ms

NOTICEABLE = 0.001  # a total that moved by less than this share of itself has no direction
MEMORY_TOTALS = (
    ("peak of requested bytes", "peak_allocated_bytes"),
    ("peak until reusable", "peak_active_bytes"),
    ("peak reserved", "peak_reserved_bytes"),
    ("reserved at the end", "reserved_bytes"),
    ("in private pools", "private_pool_reserved_bytes"),
)
TIME_TOTALS = (
    ("GPU time", "gpu_time_ns"),
    ("CPU time", "cpu_time_ns"),
    ("busy", "busy_ns"),
    ("idle", "idle_ns"),
    ("span", "span_ns"),
)
_WORDS = {key: words for words, key in (*MEMORY_TOTALS, *TIME_TOTALS)}


@dataclass(frozen=True)
class Total:
    """One figure of both sides; None is unknown."""

    label: str
    a: int | None
    b: int | None
    unit: str  # "ms", "bytes" or ""

    @property
    def delta(self) -> int | None:
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def head(self) -> str:
        """The label with its unit, where the label does not say it."""
        return (
            self.label if not self.unit or self.unit in self.label else f"{self.label}, {self.unit}"
        )

    @property
    def change(self) -> float | None:
        """(B - A) / A, None where it is unknown or A is 0."""
        return self.delta / self.a if self.a and self.delta is not None else None


def names_of(difference: Difference) -> tuple[Row, ...]:
    return aggregate(difference.rows)


def unit_of(quantity: str) -> str:
    return "ms" if quantity.endswith("_ns") else "bytes" if quantity.endswith("_bytes") else ""


def amount(value: int | None, unit: str) -> str:
    """A value of a quantity exactly: to the nanosecond, or in whole bytes."""
    if value is None:
        return "unknown"
    return exact_ms(value) if unit == "ms" else f"{value:,}"


def signed(value: int | None, unit: str) -> str:
    text = amount(value, unit)
    return f"+{text}" if value is not None and value > 0 else text


def residual_words(difference: Difference) -> str:
    left = difference.residual
    return (
        f"{amount(left, unit_of(difference.quantity))}: WRONG, please report this" if left else "0"
    )


def mebibytes(value: int) -> str:
    return f"{value / (1 << 20):+,.2f}"


def words_of(quantity: str) -> str:
    """ "GPU time" for gpu_time_ns, and so on; the name itself for a quantity that is not known."""
    return _WORDS.get(quantity, printable(quantity.removesuffix("_ns").replace("_", " ")))


def totals(difference: Difference) -> tuple[Total, ...]:
    """The compared quantity first, then the other totals that at least one side knows."""
    quantity = difference.quantity
    found = [Total(words_of(quantity), difference.total_a, difference.total_b, unit_of(quantity))]
    gpus = max(len(side.get("devices") or ()) for side in (difference.a, difference.b))
    for label, key in (*TIME_TOTALS, *MEMORY_TOTALS):
        a, b = side_total(difference.a, key), side_total(difference.b, key)
        if gpus > 1 and key in ("busy_ns", "idle_ns"):
            label += f" of {gpus} GPUs"  # the span is that of all at once: these do not add to it
        idle_gpu = quantity == "cpu_time_ns" and not a and not b  # no GPU was there to be idle
        if key != quantity and (a, b) != (None, None) and not idle_gpu:
            found.append(Total(label, a, b, unit_of(key)))
    return tuple(found)


def information(difference: Difference) -> tuple[Total, ...]:
    """What stands beside the rows and is part of them: unlinked, graph-launched, out of ranges."""
    found = []
    for label, key in (
        ("without a launching call", "unlinked_ns"),
        ("from graph launches", "graph_launched_ns"),
        ("outside every range", "outside_ranges_ns"),
        ("outside every range", "outside_ns"),
    ):
        a, b = side_total(difference.a, key), side_total(difference.b, key)
        if a or b:
            found.append(Total(label, a, b, "ms"))
    return tuple(found)


def direction(difference: Difference) -> str:
    """The compared total and the span in one sentence; that they point opposite ways is said."""
    found = totals(difference)
    span = next((total for total in found if total.label == "span"), None)
    moved = [total for total in (found[0], span) if total is not None and total.change is not None]
    said = ", ".join(f"{total.label} {_moved(total.change)}" for total in moved)
    if len(moved) == 2 and moved[0] is not moved[1]:
        one, two = (total.change or 0.0 for total in moved)
        told = any("opposite ways" in reason for reason in difference.judgement.reasons)
        if one * two < 0 and min(abs(one), abs(two)) >= NOTICEABLE and not told:
            return f"{said}: they point in opposite directions."
    return f"{said}." if said else ""


def _moved(change: float | None) -> str:
    if not change:
        return "the same"
    if change >= 1:  # "up 1763.0 %" is hard to read
        return f"{significant(1 + change, 4)} times"
    shown = f"{100 * abs(change):.1f}"
    size = shown if float(shown) else significant(100 * abs(change), 2)
    return f"{'up' if change > 0 else 'down'} {size} %"


def verdict_words(difference: Difference) -> str:
    """What the verdict rests on: "interval: span per step 1.052 × A (1.048 … 1.057)"."""
    found = difference.judgement
    words = str(found.confidence)
    if found.ratio is not None:
        words += f": {printable(found.judged_on or 'B')} {found.ratio:.4g} × A"
        if found.interval is not None:
            words += f" ({found.interval[0]:.4g} … {found.interval[1]:.4g})"
    return words


def clipped(name: str, most: int) -> str:
    """A name in at most `most` characters that are safe to print, its middle left out."""
    if len(name) > 4 * most:  # of a name of any length only so much has to be looked at
        name = name[: 3 * most] + name[-most:]
    return short(printable(name) or "(no name)", most)


def sentence(text: str, most: int = 400) -> str:
    """One line of a note, a reason or a warning."""
    words = printable(" ".join(text[: 4 * most].split()))
    return words if len(words) <= most and len(text) <= 4 * most else words[: most - 1] + "…"
