"""What does the vendor say that this GPU can do, and where does the vendor say it?

The figures stand in `devices.toml` beside this file, each with its source. Rates are dense (no
structured sparsity) and, for floating point, with FP32 accumulation. A figure that no source gave
is None: unknown, never zero and never a guess. All figures have the origin "published"; a claim
about a machine needs `measure.py`, not this table.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from common.errors import UsageError

SCHEMA = "worklog.devices/1"

FIGURES = (
    "memory_bytes",
    "memory_bandwidth_gb_per_s",
    "l2_bytes",
    "memory_side_cache_bytes",
    "sm_count",
    "fp32_tflop_per_s",
    "fp16_tflop_per_s",
    "bf16_tflop_per_s",
    "fp8_tflop_per_s",
    "int8_top_per_s",
)
_COUNTS = ("memory_bytes", "l2_bytes", "memory_side_cache_bytes", "sm_count")
_NEXT = "mend common/floors/devices.toml"


@dataclass(frozen=True)
class Source:
    """A public document: datasheet, whitepaper, product page, or what a driver reports."""

    id: str
    title: str
    url: str


@dataclass(frozen=True)
class Figure:
    """One published number. `confirmed` is False where we could not read it in the source itself
    or in a second place: show it, but build no claim on it."""

    value: float
    source: Source
    confirmed: bool = True
    origin: Literal["published"] = "published"


@dataclass(frozen=True)
class Device:
    """One GPU model. `figures` holds the known ones of `FIGURES`; units are in the names.

    `sm_count` counts compute units on AMD devices. `memory_side_cache_bytes` is a cache between L2
    and memory, on devices that have one.
    """

    id: str
    title: str
    driver_names: tuple[str, ...]
    compute_capability: str | None
    figures: Mapping[str, Figure]

    def figure(self, name: str) -> Figure | None:
        """The named figure with its source, or None where it is unknown."""
        if name not in FIGURES:
            raise UsageError(f"no figure is called {name!r}; choose from {', '.join(FIGURES)}")
        return self.figures.get(name)

    def value(self, name: str) -> float | None:
        """The named figure's number (unit as in the name), or None where it is unknown."""
        figure = self.figure(name)
        return None if figure is None else figure.value

    @property
    def last_cache_bytes(self) -> float | None:
        """Size of the last cache before memory: what a bandwidth measurement must exceed."""
        return self.value("memory_side_cache_bytes") or self.value("l2_bytes")


def canonical_driver_name(name: str) -> str:
    """The form in which driver names are compared: one case, single spaces, no leading "NVIDIA".

    Drivers before 470 left the vendor out ("GeForce RTX 3090"). Nothing else is dropped: every
    other word ("Laptop GPU", "D", "Ti", "NVL", "MIG 1g.5gb") makes another device.
    """
    return re.sub(r"\s+", " ", name).strip().casefold().removeprefix("nvidia ")


def find_device(name_from_driver: str) -> Device | None:
    """The device that the driver calls by exactly this name, or None.

    Never the nearest match: an "RTX 4090 Laptop GPU" has half the bandwidth of an "RTX 4090", and a
    plain "NVIDIA H100" may be any of three products.
    """
    return _by_driver_name().get(canonical_driver_name(name_from_driver))


def device_by_id(device_id: str) -> Device:
    """The device with this id of ours, such as "h200-sxm". Raises UsageError if there is none."""
    for device in all_devices():
        if device.id == device_id:
            return device
    known = ", ".join(device.id for device in all_devices())
    raise UsageError(f"no device is called {device_id!r}; choose from {known}")


@functools.cache
def all_devices() -> tuple[Device, ...]:
    """Every device of the table that comes with the package."""
    text = resources.files("common.floors").joinpath("devices.toml").read_text(encoding="utf-8")
    return parse_devices(text, "devices.toml")


@functools.cache
def _by_driver_name() -> dict[str, Device]:
    return {canonical_driver_name(n): d for d in all_devices() for n in d.driver_names}


def parse_devices(text: str, where: str) -> tuple[Device, ...]:
    """Read and check a table of devices. `where` names it in errors (UsageError, one line)."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML ({error}); {_NEXT}") from error
    if table.get("schema") != SCHEMA:
        raise UsageError(f"{where}: schema is {table.get('schema')!r}, not {SCHEMA!r}; {_NEXT}")
    _only_keys(table, {"schema", "sources", "device"}, where)
    sources = {key: _source(key, row, where) for key, row in table.get("sources", {}).items()}
    devices = tuple(_device(row, sources, where) for row in table.get("device", []))
    _reject_duplicates([device.id for device in devices], "id", where)
    names = [canonical_driver_name(n) for device in devices for n in device.driver_names]
    _reject_duplicates(names, "driver name", where)
    return devices


def _only_keys(row: Mapping[str, Any], allowed: set[str], where: str) -> None:
    unknown = sorted(set(row) - allowed)
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; remove it or {_NEXT}")


def _reject_duplicates(values: list[str], what: str, where: str) -> None:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise UsageError(f"{where}: {what} {twice[0]!r} stands twice; {_NEXT}")


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where}: {key!r} must be text that is not empty; {_NEXT}")
    return value


def _source(key: str, row: Mapping[str, Any], where: str) -> Source:
    where = f"{where}, source {key!r}"
    _only_keys(row, {"title", "url"}, where)
    url = _text(row, "url", where)
    if not url.startswith("https://"):
        raise UsageError(f"{where}: url must start with https://; {_NEXT}")
    return Source(key, _text(row, "title", where), url)


def _device(row: Mapping[str, Any], sources: Mapping[str, Source], where: str) -> Device:
    device_id = _text(row, "id", f"{where}, a device")
    where = f"{where}, device {device_id!r}"
    other = {"id", "title", "driver_names", "compute_capability", "source"}
    _only_keys(row, {*FIGURES, *other, "figure_sources", "unconfirmed"}, where)
    names = row.get("driver_names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UsageError(f"{where}: driver_names must be a list of names; {_NEXT}")
    capability = row.get("compute_capability")
    if capability is not None and not re.fullmatch(r"\d+\.\d", str(capability)):
        raise UsageError(f"{where}: compute_capability must be text like '9.0'; {_NEXT}")

    default = _text(row, "source", where)
    special = row.get("figure_sources", {})
    unconfirmed = row.get("unconfirmed", [])
    known = [name for name in FIGURES if name in row]
    for name in [*special, *unconfirmed]:
        if name not in known:
            raise UsageError(f"{where}: {name!r} has a remark but no figure; {_NEXT}")
    figures = {}
    for name in known:
        source = special.get(name, default)
        if source not in sources:
            raise UsageError(f"{where}: {name} names the unknown source {source!r}; {_NEXT}")
        value = _number(row[name], name, where)
        figures[name] = Figure(value, sources[source], name not in unconfirmed)
    return Device(device_id, _text(row, "title", where), tuple(names), capability, figures)


def _number(value: object, name: str, where: str) -> float:
    # bool is a subclass of int: `sm_count = true` must not become 1.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
        raise UsageError(f"{where}: {name} must be a positive number, not {value!r}; {_NEXT}")
    if name in _COUNTS and not isinstance(value, int):
        raise UsageError(f"{where}: {name} must be a whole number, not {value!r}; {_NEXT}")
    return value
