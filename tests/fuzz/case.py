"""What is one case: the bytes of a damaged file, and what in it nobody touched?

A case is made from a number alone: (seed, number) gives the same bytes on every machine, so that a
failure is reported by its number and made again with `python tests/fuzz/long_run.py --one NUMBER`.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

Unit = tuple[str, int]  # (label, ns or bytes): one event, row, launch, segment or opcode
Units = Counter[Unit]


@dataclass(frozen=True)
class Case:
    """`intact` must be found by the reader; None: nothing is known but that nothing may break.

    `exact`: nothing else may be found. `refusable`: the reader may also say no in one line.
    """

    format: str
    data: bytes
    changes: tuple[str, ...]
    intact: Units | None = None
    exact: bool = False
    refusable: bool = False
    seed: str = ""  # the real file that it was cut from, if it was


# What stands in a file where something else belongs. As JSON text, so that what no writer of JSON
# would print is among them.
ODD_JSON = (
    "null", "true", "false", "-1", "0", "1", "7", "2.5", "-0.0", "1e3", "1e400", "-1e400", "1e-400",
    "NaN", "-nan", "Infinity", "-Infinity", "inf", '""', '"text"', '"7"', '"-1"', '"stream 7"',
    '"NaN"', '"12.5"', "[]", "{}", "[1, 2]", '{"a": 1}', "[[]]", '"\\u0000"', '"\\ud800"',
    '"\\ud83d\\ude00"', '"\\"}, {\\""', "2147483648", "4294967296", "9007199254740993",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "1" + "0" * 40, "9" * 400, "9" * 5000,
    "0." + "3" * 400, "1719000000123456.7891", '"' + "x" * 3000 + '"', "01", "+1", ".5", "1.",
    "0x10", "undefined", "",
)  # fmt: skip
ODD_TEXTS = (
    "", "\x00", "\x1b[31m", "<script>", "a\nb", "\u202e", "\U0001f600", "x" * 5000, '"', "\\",
    "ProfilerStep#", "ProfilerStep#x", "[memory]", "nn.Module: ", "cudaGraphLaunch", "{}", "7",
)  # fmt: skip
ODD_INTEGERS = (
    0, 1, -1, 2, 255, 65_536, 1 << 31, -(1 << 31), 1 << 32, (1 << 53) + 1, 1 << 62, (1 << 63) - 1,
    -(1 << 63), 10**18, -(10**18),
)  # fmt: skip
HUGE_INTEGERS = (1 << 63, 1 << 64, -(1 << 63) - 1, 10**30, -(10**400))


def nested(draw: random.Random) -> str:
    """Brackets within brackets, closed or not."""
    depth = draw.choice((3, 60, 500, 1100, 5_000, 20_000))
    opening, closing = draw.choice((("[", "]"), ('{"a":', "}"), ('[{"":', "}]")))
    inside = draw.choice(("", "1", "null"))
    if opening != "[" and not inside:
        inside = "0"
    return opening * depth + inside + closing * depth
