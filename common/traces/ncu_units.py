"""What number did ncu print, and what is it in base units? Decimal throughout, never a float.

ncu scales each value to a readable unit, so that one column can mix seconds and microseconds, and
it has changed the spelling: `usecond`, `Kbyte`, `cycle/nsecond` up to 2024, `us`, `Ghz` since.
Prefixes are decimal (32,768 bytes are printed as 32.77 Kbyte).
"""

from __future__ import annotations

import re
from decimal import Decimal

from common.traces.ncu_model import Metric, Number, whole

_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "K": 3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15}
_SECOND = re.compile(r"^([num]?)(?:second|sec|s)$")
_SCALED = re.compile(r"^([KkMGTP]?)(byte|hz|Hz|bit|flop|FLOP)s?$")
# "1,234.5", also with the apostrophes and thin spaces of other locales between the thousands.
_NUMBER = re.compile(r"^[+-]?(\d+|\d{1,3}([,'’\u00a0\u202f ]\d{3})+)(\.\d*)?([eE][+-]?\d{1,3})?$")
_SEPARATORS = re.compile(r"[,'’\u00a0\u202f ]")
_INSTANCES = re.compile(r"^([^\s(]+) \([^()]*;.*\)$")
_LONGEST_NUMBER = 28  # digits that Decimal's arithmetic keeps exactly
_LARGEST_EXPONENT = 60  # no counter, rate or time is near: what is beyond is text, not a value

NOT_A_NUMBER = frozenset({"nan", "-nan", "nan(ind)", "-nan(ind)", "inf", "-inf", "+inf"})
NO_VALUE = frozenset({"", "n/a", "(!) n/a", "no data", "<error>"})


def base_unit(unit: str) -> tuple[str, int]:
    """The base unit and the power of ten that leads to it: "Gbyte/s" gives ("byte/s", 9)."""
    top, slash, bottom = unit.strip().partition("/")
    second = _SECOND.match(top)
    scaled = _SCALED.match(top)
    power = 0
    if second and not slash:
        return "ns", _POWERS[second[1]] + 9
    if scaled:
        top, power = ("hz" if scaled[2] == "Hz" else scaled[2]), _POWERS[scaled[1]]
    below = _SECOND.match(bottom) if slash else None
    if below:
        bottom, power = "s", power - _POWERS[below[1]]
        if top == "cycle":
            return "hz", power
    return top + slash + bottom, power


def unit_of_name(name: str) -> str | None:
    """The base unit of a metric whose unit was not printed: an ncu that is older than the report
    prints base units and leaves the unit empty. None where the name does not tell.

    Source: NVIDIA's naming of metrics, unit__counter.rollup.submetric.
    """
    if name.startswith("gpu__time_duration"):
        return "ns"
    if ".pct" in name or name.endswith("_pct"):
        return "%"
    counter, _, rest = name.partition(".")
    per_second = rest.endswith("per_second")
    if "cycles_elapsed" in counter and per_second:
        return "hz"
    if counter.endswith(("__bytes", "_bytes", "bytes_read", "bytes_write")):
        return "byte/s" if per_second else "byte" if rest in ("sum", "avg", "min", "max") else None
    if counter.startswith("launch__shared_mem_per_block"):
        return "byte/block"
    return "register/thread" if counter == "launch__registers_per_thread" else None


def parse_number(text: str) -> Decimal | None:
    """The number that a CSV prints, None for other text."""
    if len(text) > 2 * _LONGEST_NUMBER or not _NUMBER.match(text):
        return None
    number = Decimal(_SEPARATORS.sub("", text))
    if abs(number.adjusted()) > _LARGEST_EXPONENT and number:
        return None
    return number if len(number.as_tuple().digits) <= _LONGEST_NUMBER else None


def printed_metric(name: str, text: str, unit: str) -> tuple[Metric, bool, bool]:
    """The metric that a CSV prints; whether it is NaN (or infinite); whether its unit was missing.

    Values that are lists ("6 (1; 2; 3)") count with their total. Other text stays text.
    """
    stripped = text.strip()
    if stripped.lower() in NOT_A_NUMBER:
        return Metric(None, base_unit(unit)[0], text, unit), True, False
    if stripped.lower() in NO_VALUE:
        return Metric(None, base_unit(unit)[0], text, unit), False, False
    listed = _INSTANCES.match(stripped)
    number = parse_number(listed[1] if listed else stripped)
    if number is None:
        return Metric(stripped, "", text, unit), False, False
    assumed = None if unit else unit_of_name(name)
    base, power = base_unit(unit) if unit else (assumed or "", 0)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # _NUMBER lets no NaN or infinity through
    value: Number = whole(number.scaleb(power))
    resolution = Decimal(1).scaleb(min(exponent, 0) + power)
    return Metric(value, base, text, unit, resolution), False, assumed not in (None, "%")
