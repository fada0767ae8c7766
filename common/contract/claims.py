"""What must a run show, and did it? A small grammar of claims over measured quantities; no eval.

    claim      := quantity comparison
    quantity   := NAME "(" STRING ("," STRING)* ")"
    comparison := (">=" | "<=" | ">" | "<" | "==") NUMBER
                | "within" NUMBER "%" "of" NUMBER

    ratio("float8wo-0.13.0", "bf16", "decode") >= 5
    temporary_bytes_per_element("float8wo-0.13.0", "prefill") within 1% of 14

A quantity with an interval is judged on the interval: reproduced only if all of it satisfies the
claim, not reproduced only if none of it does, else null with the reason.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import UsageError

TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)"
    r'|"(?P<string>[^"]*)"|(?P<symbol>>=|<=|==|[<>(),%]))'
)


# What can be asked of a run, and what its arguments name. `common.report.evidence` answers; the
# table stands here so that a misspelt claim is found when the file is read, not after the run.
QUANTITIES: Mapping[str, tuple[str, ...]] = {
    "ratio": ("variant", "variant", "phase"),
    "milliseconds": ("variant", "phase"),
    "tokens_per_second": ("variant", "phase"),
    "operator_share": ("variant", "phase", "operator"),
    "temporary_bytes_per_element": ("variant", "phase"),
    "logit_error": ("variant", "phase"),
    "floor_share": ("variant", "phase"),
    "figure": ("variant", "figure"),  # of a problem that compiles or counts, not times
}
COMPARISONS = (">=", "<=", ">", "<", "==")


@dataclass(frozen=True)
class Measured:
    """A quantity's value. `value` None: unknown, and `reason` says why (e.g. "needs profile")."""

    value: float | None
    interval: tuple[float, float] | None = None
    reason: str | None = None


Quantity = Callable[..., Measured]


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        quoted = ", ".join(f'"{argument}"' for argument in self.arguments)
        return f"{self.name}({quoted})"


@dataclass(frozen=True)
class Claim:
    """`low` and `high` bound what is accepted; a strict bound is excluded itself."""

    text: str
    quantity: Call
    low: float
    high: float
    strict: bool = False

    def accepts(self, value: float) -> bool:
        if self.strict:
            return self.low < value < self.high
        return self.low <= value <= self.high


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.tokens, at = text, [], 0
        while at < len(text.rstrip()):
            match = TOKEN.match(text, at)
            if match is None:
                raise self.error(f"unexpected {text[at:].strip()[:10]!r}")
            kind = str(match.lastgroup)
            self.tokens.append((kind, match.group(kind)))
            at = match.end()
        self.at = 0

    def error(self, what: str) -> UsageError:
        return UsageError(
            f'claim {self.text!r}: {what}; write it as quantity("a", …) >= NUMBER '
            "or quantity(…) within P% of NUMBER"
        )

    def take(self, kind: str, value: str | None = None) -> str:
        if self.at < len(self.tokens):
            found_kind, found = self.tokens[self.at]
            if found_kind == kind and (value is None or found == value):
                self.at += 1
                return found
        expected = value or kind
        found = self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"
        raise self.error(f"expected {expected}, found {found}")

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def number(self) -> float:
        text = self.take("number")
        if not math.isfinite(float(text)):
            raise self.error(f"expected a finite number, found {text}")
        return float(text)

    def call(self) -> Call:
        name = self.take("name")
        self.take("symbol", "(")
        arguments = [self.take("string")]
        while self.peek() == ("symbol", ","):
            self.take("symbol", ",")
            arguments.append(self.take("string"))
        self.take("symbol", ")")
        return Call(name, tuple(arguments))

    def end(self) -> None:
        if self.at < len(self.tokens):
            raise self.error(f"nothing may follow, found {self.tokens[self.at][1]}")


def parse_quantity(text: str) -> Call:
    reader = _Reader(text)
    call = reader.call()
    reader.end()
    return call


def parse_claim(text: str) -> Claim:
    """Parse one claim. Raises UsageError that names what was expected."""
    reader = _Reader(text)
    call = reader.call()
    infinity = float("inf")
    kind, symbol = reader.peek()
    if reader.peek() == ("name", "within"):
        reader.take("name")
        percent = reader.number()
        reader.take("symbol", "%")
        reader.take("name", "of")
        centre = reader.number()
        low, high, strict = centre * (1 - percent / 100), centre * (1 + percent / 100), False
    else:
        if kind != "symbol" or symbol not in COMPARISONS:
            raise reader.error(
                f"expected {', '.join(COMPARISONS)} or within, found {symbol or 'the end'}"
            )
        reader.take("symbol")
        bound = reader.number()
        low = bound if symbol in (">=", ">", "==") else -infinity
        high = bound if symbol in ("<=", "<", "==") else infinity
        strict = symbol in (">", "<")
    reader.end()
    return Claim(text, call, low, high, strict)


def measure(call: Call, quantities: Mapping[str, Quantity]) -> Measured:
    quantity = quantities.get(call.name)
    if quantity is None:
        raise UsageError(f"unknown quantity {call.name}; known are {', '.join(sorted(quantities))}")
    try:
        inspect.signature(quantity).bind(*call.arguments)
    except TypeError as error:
        raise UsageError(
            f"{call}: wrong number of arguments ({error}); see problem.toml"
        ) from error
    return quantity(*call.arguments)


def check_call(call: Call, variants: Collection[str], phases: Collection[str]) -> None:
    """Raises UsageError, saying what would be right, for a call that no run could ever answer."""
    kinds = QUANTITIES.get(call.name)
    if kinds is None:
        raise UsageError(
            f"{call}: unknown quantity {call.name}; use one of {', '.join(sorted(QUANTITIES))}"
        )
    if len(kinds) != len(call.arguments):
        raise UsageError(
            f"{call}: {call.name} takes {len(kinds)} arguments ({', '.join(kinds)}), "
            f"not {len(call.arguments)}; correct them"
        )
    known = {"variant": variants, "phase": phases}
    for kind, argument in zip(kinds, call.arguments, strict=True):
        if kind in known and argument not in known[kind]:
            raise UsageError(
                f"{call} names {argument!r}, which is no {kind}; "
                f"use one of {', '.join(known[kind])}"
            )


def judge(claim: Claim, quantities: Mapping[str, Quantity]) -> dict[str, Any]:
    """The record of one claim as it stands in summary.json: value, interval, reproduced, reason."""
    found = measure(claim.quantity, quantities)
    record: dict[str, Any] = {"claim": claim.text, "value": found.value}
    if found.interval is not None:
        record["interval"] = list(found.interval)
    if found.value is None:
        return {**record, "reproduced": None, "reason": found.reason or "not measured"}
    if not math.isfinite(found.value):
        # Neither a verdict nor valid JSON can be made of it.
        record = {"claim": claim.text, "value": None}
        return {**record, "reproduced": None, "reason": "not a finite number"}
    ends = found.interval or (found.value, found.value)
    accepted = [claim.accepts(end) for end in ends]
    if all(accepted):
        return {**record, "reproduced": True}
    if claim.strict:  # an end that lies on an excluded bound satisfies nothing
        overlaps = ends[0] < claim.high and ends[1] > claim.low
    else:
        overlaps = ends[0] <= claim.high and ends[1] >= claim.low
    if any(accepted) or (found.interval is not None and overlaps):
        return {**record, "reproduced": None, "reason": "the interval crosses the bound"}
    return {**record, "reproduced": False}
