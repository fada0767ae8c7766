"""How are what `ncu --csv` prints and files of compiled kernels damaged?"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from fuzz.byte_changes import broken_gzip, damaged, packed
from fuzz.case import ODD_JSON, ODD_TEXTS, Case, Unit, Units, nested

NCU, COMPILED = "ncu", "compiled"
DURATION = "gpu__time_duration.sum"
HEADER = (
    "ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream",
    "Block Size", "Grid Size", "Device", "CC", "dram__bytes_read.sum", DURATION,
    "launch__registers_per_thread", "sm__throughput.avg.pct_of_peak_sustained_elapsed",
)  # fmt: skip
UNITS = ("",) * 11 + ("byte", "nsecond", "register/thread", "%")
DETAILS = (*HEADER[:11], "Section Name", "Metric Name", "Metric Unit", "Metric Value")
_CELLS = (
    "", "nan", "-nan", "inf", "n/a", "(!) n/a", "1,234,567", "1.5", "-5", "1e5", "9" * 60, "1e999",
    "6 (1; 2; 3)", "0x10", "<error>", "’", "1 234", "\u00a05", "١٢", "²", "NaN%", "true",
    *ODD_TEXTS[:8],
)  # fmt: skip
# Rows that begin like a row of the table would be taken for one: what is put between does not.
_LINES = ("==PROF== Disconnected", "hello world", "", "==WARNING== x", "\x1b[2J", "a,b,c", "\0")


def _quoted(cells: tuple[str, ...] | list[str]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)


def launches() -> list[list[str]]:
    return [
        [str(i), "41", "python", "host", f"void k{i}<float>(float *)", "1", "7", "(128, 1, 1)",
         "(64, 1, 1)", "0", "8.9", str(4096 * (i + 1)), f"{1000 + 37 * i}", "32", f"{10 + i}.5"]
        for i in range(8)
    ]  # fmt: skip


def raw_case(draw: random.Random) -> Case:
    """The raw page: a row per launch. Every row that nobody touched counts."""
    rows = launches()
    units: Units = Counter((row[4], int(row[12])) for row in rows)
    text_rows: list[str] = [_quoted(row) for row in rows]
    said, clean = [], True
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(len(rows))
        unit = (rows[at][4], int(rows[at][12])) if rows[at] else None
        way = draw.choice(
            ("cell", "cell", "cut", "drop", "halve", "twice", "line", "wide", "units", "quote")
        )
        if unit is None:
            continue
        if way == "cell":
            column = draw.randrange(len(HEADER))
            cells = list(rows[at])
            cells[column] = draw.choice(_CELLS)
            text_rows[at] = _quoted(cells)
            if column not in (2, 3, 5, 6, 7, 8, 9, 10, 11, 13, 14) or "\n" in cells[column]:
                units[unit] -= 1
                clean = False
            rows[at] = []
        elif way == "cut":
            text_rows[at] = text_rows[at][: draw.randrange(len(text_rows[at]))]
            units[unit] -= 1
            clean, rows[at] = False, []
        elif way == "quote":
            # A quote that is never closed swallows lines until one begins like a row.
            text_rows[at] = text_rows[at] + '"'
            units[unit] -= 1
            clean, rows[at] = False, []
        elif way == "drop":
            text_rows[at] = ""
            units[unit] -= 1
            rows[at] = []
        elif way == "halve":
            cells = list(rows[at])
            cells[12] = str(unit[1] // 2)
            units[unit] -= 1
            units[unit[0], unit[1] // 2] += 1
            text_rows[at], rows[at] = _quoted(cells), []
        elif way == "twice":
            text_rows[at] += "\n" + text_rows[at]
            units[unit] += 1
            rows[at] = []
        elif way == "line":
            text_rows[at] = draw.choice(_LINES) + "\n" + text_rows[at]
        elif way == "wide":
            text_rows[at] += ',"more"' * draw.choice((1, 200))
        said.append(way)
    head = [_quoted(HEADER), _quoted(UNITS)] if "units" not in said else [_quoted(HEADER)]
    noise = draw.choice(([], ["==PROF== Connected to process 41"], ["my program says hello", ""]))
    text = draw.choice(("\n", "\r\n")).join([*noise, *head, *text_rows]) + "\n"
    data = text.encode("utf-8", "surrogatepass")
    encoding = draw.random()
    if encoding < 0.1:
        data = b"\xef\xbb\xbf" + data
    elif encoding < 0.2 and "\0" not in text:
        data = text.encode("utf-16", "surrogatepass")
    return Case(NCU, data, tuple(said), +units, clean)


def details_text() -> str:
    lines = ["==PROF== x", _quoted(DETAILS)]
    for row in launches():
        for section, name, unit, value in (
            ("GPU Speed Of Light Throughput", "Duration", "nsecond", row[12]),
            ("Launch Statistics", "Registers Per Thread", "register/thread", row[13]),
            ("", "", "", ""),
        ):
            lines.append(_quoted([*row[:11], section, name, unit, value]))
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Page:
    """A real page of `ncu --csv`, cut to a few launches: its lines, and what those are."""

    head: tuple[str, ...]
    lines: tuple[str, ...]
    found: tuple[tuple[Unit, ...], ...] | None  # per line; None: not known of this page

    @property
    def data(self) -> bytes:
        return ("\n".join((*self.head, *self.lines)) + "\n").encode()

    @property
    def units(self) -> Units:
        return Counter(unit for line in self.found or () for unit in line)


def real_ncu_case(draw: random.Random, page: Page) -> Case:
    """Lines of a real page lost, repeated, cut, or with others between them."""
    if page.found is None or draw.random() < 0.5:
        data, said = damaged(draw, page.data)
        return Case(NCU, data, said)
    lines, units, said, clean = list(page.lines), page.units, [], True
    at = draw.randrange(len(lines))
    way = draw.choice(("drop", "twice", "line", "wide", "cut", "last lost"))
    if way == "drop":
        lines[at] = ""
    elif way == "twice":
        lines[at] += "\n" + lines[at]
        units += Counter(page.found[at])
    elif way == "line":
        lines[at] = draw.choice(_LINES) + "\n" + lines[at]
    elif way == "wide":
        lines[at] += ',"more"' * draw.choice((1, 200))
    elif way == "cut":
        lines[at], clean = lines[at][: draw.randrange(len(lines[at]))], False
    else:
        lines = lines[:at]
        units = Counter(unit for line in page.found[:at] for unit in line)
    if way in ("drop", "cut"):
        units -= Counter(page.found[at])
    said = [f"{way} at {at}"]
    data = ("\n".join((*page.head, *lines)) + "\n").encode()
    if draw.random() < 0.1:
        data, how = packed(draw, data)
        said += how
    return Case(NCU, data, tuple(said), +units, clean, refusable=not lines)


RAW_BYTES = "\n".join(map(_quoted, [list(HEADER), list(UNITS), *launches()])).encode() + b"\n"
DETAILS_BYTES = details_text().encode()


def ncu_case(draw: random.Random) -> Case:
    kind = draw.random()
    if kind < 0.35:
        data, said = damaged(draw, draw.choice((RAW_BYTES, DETAILS_BYTES)))
        return Case(NCU, data, said)
    if kind < 0.40:
        broken, said, _ = broken_gzip(draw, RAW_BYTES)
        return Case(NCU, broken, said)
    if kind < 0.45:  # the second half lost: what stood before it counts
        lines = RAW_BYTES.decode().split("\n")
        keep = draw.randrange(1, 9)
        units = Counter((row[4], int(row[12])) for row in launches()[:keep])
        data = "\n".join(lines[: keep + 2]).encode()
        return Case(NCU, data, (f"{keep} rows kept",), units, True)
    found = raw_case(draw)
    if kind > 0.95:
        data, how = packed(draw, found.data)
        return Case(NCU, data, (*found.changes, *how), found.intact, found.exact)
    return found


def compiled_document() -> dict[str, Any]:
    return {
        "schema": "worklog.compiled/1", "kernel": "gemm", "title": "a kernel",
        "architecture": "sm_89", "facts": {"rows": 4}, "metrics": {"waves": 1.5},
        "resources": {"registers": 64, "stack_bytes": 0, "shared_bytes": 4096, "threads": 128},
        "instructions": {"HMMA.16816.F32": 32, "LDG.E.128": 12, "BRA": 3}, "loop_instructions": 40,
    }  # fmt: skip


def compiled_case(draw: random.Random, real: dict[str, Any] | None = None) -> Case:
    """One document, ours or a real one: it is read as it stands, or refused."""
    document = copy.deepcopy(real) if real else compiled_document()
    whole = json.dumps(document).encode()
    kind = draw.random()
    if kind < 0.3:
        data, said = damaged(draw, whole)
        return Case(COMPILED, data, said, refusable=True)
    if kind < 0.4:
        broken, said, _ = broken_gzip(draw, whole)
        return Case(COMPILED, broken, said, refusable=True)
    key = draw.choice([key for key in document if key != "schema"])
    inner = document[key] if isinstance(document[key], dict) and draw.random() < 0.6 else None
    value = draw.choice(ODD_JSON) if draw.random() < 0.95 else nested(draw)
    mark = "@value@"
    if inner is None:
        document[key] = mark
    else:
        inner[draw.choice(list(inner))] = mark
    text = json.dumps(document).replace(f'"{mark}"', value)
    return Case(COMPILED, text.encode("utf-8", "surrogatepass"), (f"{key} = {value[:30]}",),
                refusable=True)  # fmt: skip
