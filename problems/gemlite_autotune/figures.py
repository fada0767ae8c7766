"""How do routes and winners look? Figures of the worklog, drawn from recorded evidence alone.

worklog render gemlite_autotune
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.contract.problem import Problem
from common.recording.run_folder import read_json
from common.report import svg_file as svg
from common.report.svg import Scale

COMMAND = "worklog render gemlite_autotune"
FAMILIES = {"GEMV_REVSPLITK": svg.COLOURS[0], "GEMM_SPLITK": svg.COLOURS[1], "GEMM": svg.COLOURS[2]}
LARGEST = 4096


def _read(problem: Problem, evidence: str, variant: str, name: str) -> Any:
    return read_json(problem.folder / problem.evidence[evidence] / "traces" / variant / name)


def figures(problem: Problem) -> dict[str, str]:
    """File name -> SVG of every figure."""
    data = _read(problem, "tables", "shipped", "data.json")
    ranks = _read(problem, "cpu", "rtx-4090", "tables.json")["rank"]["rows"]
    return {
        "routes.svg": routes_figure(data),
        "moves.svg": moves_figure(data["moves"]),
        "agreement.svg": agreement_figure(data["agreement"]),
        "ranks.svg": ranks_figure(ranks),
    }


def routes_figure(data: Mapping[str, Any]) -> str:
    """One row per GPU over log M; an empty box is a hole: tuned when the first such batch comes."""
    left, width, top, step, tall = 120.0, 800.0, 92.0, 58.0, 22.0
    scale = Scale(1, LARGEST + 1, logarithmic=True)

    def x(m: float) -> float:
        return left + width * scale(m) / 100

    bottom = top + step * len(data["routes"]) - 20
    body = [
        svg.legend(left, 56, [*((c, f) for f, c in FAMILIES.items()), ("", "tuned: a hole")], 165)
    ]
    for power in range(13):
        m = 2**power
        body += [
            svg.rule(x(m), top - 8, x(m), bottom),
            svg.text(x(m), bottom + 16, str(m), "small middle"),
        ]
    body.append(svg.text(left - 12, bottom + 16, "rows M", "small end"))
    for row, (gpu, stretches) in enumerate(data["routes"].items()):
        y = top + step * row
        body.append(svg.text(left - 12, y + 15, gpu, "end"))
        for first, last, family, hit, words in stretches:
            at, wide = x(first), max(x(last + 1) - x(first), 2.0)
            says = f"M = {first} … {last}: {family}, {words}"
            body.append(svg.box(at, y, wide, tall, FAMILIES[family], "" if hit else "hole", says))
            if not hit:  # which family it would tune
                body.append(svg.box(at, y + tall - 3, wide, 3, FAMILIES[family], title=says))
        body.append(svg.text(left, y + tall + 14, _holes(stretches), "small muted"))
    return svg.document(
        left + width + 30, bottom + 54, f"Which batches the shipped table answers: {data['layer']}",
        "One row per GPU over the number of rows. Filled: the table answers. Outlined: tuned.",
        body, f"published tables, modelled routes · {COMMAND}",
    )  # fmt: skip


def _holes(stretches: Sequence[Sequence[Any]]) -> str:
    holes: list[list[int]] = []
    for first, last, _, hit, _ in stretches:
        if hit:
            continue
        if holes and holes[-1][1] == first - 1:
            holes[-1][1] = last
        else:
            holes.append([first, last])
    words = [str(a) if a == b else f"{a}–{b}" for a, b in holes]
    return f"holes: {', '.join(words)}" if words else "no holes"


def _order(driver: str, values: Sequence[str]) -> list[str]:
    known = ["≤2k", "≤4k", "≤8k", ">8k", "4 bit", "8 bit", "fp8", "int8"]
    if driver == "M":
        return sorted(values, key=int)
    return [v for v in known if v in values] or sorted(values)


def moves_figure(moves: Mapping[str, Any]) -> str:
    """Rows: a knob each. Columns: what it moves with. Means, and quartiles as a line."""
    knobs = ("tile BM x BN", "BK", "warps", "stages", "SPLIT_K")
    widths = {"M": 300.0, "N (M ≤ 64)": 130.0, "K (M ≤ 64)": 130.0, "format": 130.0}
    left, top, tall, gap = 118.0, 92.0, 104.0, 22.0
    series = ("4090", "h100", "a100")
    body = [
        svg.legend(
            left, 56, [*zip(svg.COLOURS, series, strict=False), (svg.COLOURS[3], "all GPUs")], 100
        )
    ]
    at = left
    for driver, by_series in moves.items():
        wide = widths.get(driver, 250.0)
        body.append(svg.text(at + wide / 2, 80, f"by {driver}", "middle"))
        values = _order(driver, list({v for found in by_series.values() for v in found}))
        for row, knob in enumerate(knobs):
            y = top + row * (tall + gap)
            body += _panel(at, y, wide, tall, values, by_series, knob, _range(moves, knob), series)
            if at == left:
                body.append(svg.text(16, y + 14, knob, "small"))
            if row == len(knobs) - 1:
                body += _names(at, y + tall, wide, values)
        at += wide + gap + 16
    height = top + len(knobs) * (tall + gap) + 62
    return svg.document(
        at + 4, height, "What the 12,676 shipped winners choose, and what it moves with",
        "Rows are knobs, columns what they are drawn against. Dot: mean, line: quartiles.",
        body,
        "published: winners of GEMM and GEMM_SPLITK, 4 bit unless said; dot: mean, line: quartiles "
        f"· {COMMAND}",
    )  # fmt: skip


def _range(moves: Mapping[str, Any], knob: str) -> tuple[float, float]:
    every = [
        end
        for by_series in moves.values()
        for found in by_series.values()
        for knobs in found.values()
        if knob in knobs
        for end in knobs[knob][:3]
    ]
    return min(every), max(every)


def _panel(
    x: float, y: float, wide: float, tall: float, values: Sequence[str],
    by_series: Mapping[str, Any], knob: str, ends: tuple[float, float], series: Sequence[str],
) -> list[str]:  # fmt: skip
    scale = Scale(ends[0] * 0.9, ends[1] * 1.1, logarithmic=knob != "stages")
    parts = [svg.box(x, y, wide, tall, style="panel")]
    low, high = math.ceil(math.log2(ends[0])), math.floor(math.log2(ends[1]))
    ticks = [2.0**p for p in range(low, high + 1)]
    for tick in ticks if len(ticks) <= 6 else ticks[:: math.ceil(len(ticks) / 6)]:
        level = y + tall - tall * scale(tick) / 100
        parts += [svg.rule(x, level, x + wide, level)]
        parts += [
            svg.text(
                x - 4,
                level + 4,
                f"{tick:g}" if tick < 1024 else f"{tick / 1024:g}k",
                "small muted end",
            )
        ]
    for number, (name, found) in enumerate(by_series.items()):
        colour = svg.COLOURS[series.index(name)] if name in series else svg.COLOURS[3]
        points = []
        for index, value in enumerate(values):
            known = found.get(value, {}).get(knob)
            if known is None:
                continue
            mean, lower, upper, count = known
            shift = (number - (len(by_series) - 1) / 2) * min(5.0, wide / len(values) / 4)
            px = x + wide * (index + 0.5) / len(values) + shift
            heights = [y + tall - tall * scale(each) / 100 for each in (mean, lower, upper)]
            points.append((px, heights[0]))
            says = f"{name}, {value}: {knob} {mean:g} ({lower:g} … {upper:g}), {count} winners"
            parts += [
                svg.rule(px, heights[1], px, heights[2], stroke=colour),
                svg.dot(px, heights[0], 3, colour, says),
            ]
        if len(points) > 1 and len(values) > 4 and len(by_series) > 1:
            parts.append(svg.path(points, colour))
    return parts


def _names(x: float, y: float, wide: float, values: Sequence[str]) -> list[str]:
    parts = []
    for index, value in enumerate(values):
        px = x + wide * (index + 0.5) / len(values)
        if len(values) <= 4:
            parts.append(svg.text(px, y + 15, value, "small middle"))
        else:
            parts.append(
                f'<text class="small end" transform="translate({px + 4:.1f},{y + 10:.1f}) '
                f'rotate(-60)">{value}</text>'
            )
    return parts


def agreement_figure(shares: Mapping[str, Mapping[str, float]]) -> str:
    """A square per two GPUs: how often both have the identical winner at the same key."""
    tags, cell, left, top = list(shares), 58.0, 110.0, 120.0
    body = [
        svg.text(
            16,
            48,
            "percent of the common keys with one configuration (the mi300x has knobs of its own)",
            "small muted",
        )
    ]
    for row, one in enumerate(tags):
        body.append(svg.text(left - 10, top + cell * row + 34, one, "end"))
        body.append(svg.text(left + cell * (row + 0.5), top - 12, one, "middle small"))
        for column, other in enumerate(tags):
            if one == other:
                continue
            x, y, share = left + cell * column, top + cell * row, shares[one][other]
            if share < 0:
                body.append(
                    svg.box(
                        x + 1,
                        y + 1,
                        cell - 2,
                        cell - 2,
                        style="hole",
                        title=f"{one}, {other}: no common key",
                    )
                )
                continue
            says = f"{one} and {other}: {share:g} %"
            body.append(
                svg.box(
                    x + 1,
                    y + 1,
                    cell - 2,
                    cell - 2,
                    svg.COLOURS[0],
                    "",
                    says,
                    0.06 + 0.94 * share / 100,
                )
            )
            body.append(
                svg.text(
                    x + cell / 2,
                    y + 34,
                    f"{share:.0f}" if share >= 10 else f"{share:.1f}",
                    "middle",
                )
            )
    size = cell * len(tags)
    return svg.document(
        left + size + 24, top + size + 40, "What two GPUs share of their winners",
        "A table of squares, darker for more shared winners.", body, f"published · {COMMAND}",
    )  # fmt: skip


def ranks_figure(rows: Sequence[Sequence[str]]) -> str:
    """Where each order puts the shipped winner: left is first, the line are its ties."""
    batches = list(dict.fromkeys(row[0] for row in rows))
    orders = list(dict.fromkeys(row[2] for row in rows))
    left, top, wide, step, gap = 150.0, 96.0, 230.0, 30.0, 40.0
    body = [
        svg.text(
            16,
            48,
            "RTX 4090, 4-bit weights, 4096 x 4096: the winner among today's default list",
            "small muted",
        )
    ]
    for column, m in enumerate(batches):
        x = left + column * (wide + gap)
        winner = next(row[1] for row in rows if row[0] == m)
        body.append(svg.text(x, top - 26, f"M = {m}: {winner}"))
        for line, order in enumerate(orders):
            y = top + step * line
            found = next(row for row in rows if row[0] == m and row[2] == order)
            rank, ties, of = *_rank(found[3]), int(found[4])
            if column == 0:
                body.append(svg.text(left - 12, y + 5, order, "end"))
            body.append(svg.rule(x, y, x + wide, y))
            px = x + wide * (rank - 1) / max(of - 1, 1)
            end = x + wide * (rank - 1 + ties) / max(of - 1, 1)
            colour = svg.COLOURS[1] if order == orders[0] else svg.COLOURS[0]
            says = f"{order}: rank {rank} of {of}, {ties} equal"
            body += [svg.rule(px, y, end, y, stroke=colour), svg.dot(px, y, 5, colour, says)]
            body.append(svg.text(x + wide + 4, y + 4, str(rank), "small muted"))
        of = int(next(row[4] for row in rows if row[0] == m))
        bottom = top + step * len(orders) - 4
        body += [
            svg.text(x, bottom, "first", "small"),
            svg.text(x + wide, bottom, f"last of {of}", "small end"),
        ]
    return svg.document(
        left + len(batches) * (wide + gap) + 10, top + step * len(orders) + 46,
        "Where static figures rank the shipped winner",
        "One line per order; the dot is the winner's place, the thick line what ties with it.",
        body, f"compiled and modelled; the number is the rank, the thick line its ties · {COMMAND}",
    )  # fmt: skip


def _rank(words: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?: \(\+(\d+) equal\))?", words)
    if match is None:
        raise ValueError(f"rank {words!r}")
    return int(match[1]), int(match[2] or 0)
