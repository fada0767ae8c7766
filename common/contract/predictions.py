"""What was expected before anybody looked? Predictions in sets, each sealed by its hash.

A set is for one kind of run (device, preset, and where they matter versions of torch and Triton).
Its hash goes into the manifest of every later run, so a set that was changed after a run, or
written after it, shows. Each prediction is a range of a quantity (the grammar of claims), with the
reason for it.

A set names versions in its own table, `versions = { torch = "2.11", triton = "3.6" }`: a run of
2.11.0 is meant, one of 2.110 is not. A set that was sealed without them may get them afterwards in
`[versions.SET]` of the file, outside the seal, but only those that its sealed basis already says.
So it is with `cpu = "AVX2"`, torch's name for the vector instructions of the CPUs that a set is
about, and the table `[cpus]`, which may say what the sealed name or basis does.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.contract.claims import Call, Quantity, measure, parse_quantity
from common.errors import UsageError

SCHEMA = "worklog.predictions/1"


@dataclass(frozen=True)
class Prediction:
    id: str
    quantity: Call
    low: float
    high: float
    because: str


@dataclass(frozen=True)
class PredictionSet:
    """`devices` are slugs or slug prefixes of run folders (e.g. "cpu-", "nvidia-h200")."""

    name: str
    devices: tuple[str, ...]
    preset: str
    sealed: str
    basis: str
    predictions: tuple[Prediction, ...]
    sha256: str
    versions: Mapping[str, str] = field(default_factory=dict)
    cpu: str | None = None

    def applies_to(
        self,
        device: str,
        preset: str,
        versions: Mapping[str, str | None] | None = None,
        cpu: str | None = None,
    ) -> bool:
        """Whether it is about such a run. `versions` None: not asked, as for evidence by name.

        `cpu` is torch's name for the run's vector instructions, None where the run does not say:
        a set that names one is not about it.
        """
        about = preset == self.preset and any(device.startswith(d) for d in self.devices)
        about = about and self.cpu in (None, cpu)
        return about and (versions is None or self.is_of(versions))

    def is_of(self, versions: Mapping[str, str | None]) -> bool:
        """Whether a run of these versions is meant; a version that nobody knows is not."""
        return all(
            _is_version(versions.get(package), wanted) for package, wanted in self.versions.items()
        )


@dataclass(frozen=True)
class Score:
    prediction: Prediction
    value: float | None
    hit: bool | None  # None: not measured, or the interval crosses a bound
    interval: tuple[float, float] | None = None
    reason: str | None = None


def seal(table: Mapping[str, Any]) -> str:
    """SHA-256 of a set's content, whatever its formatting and comments."""
    text = json.dumps(table, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_predictions(path: Path) -> tuple[PredictionSet, ...]:
    if not path.exists():
        return ()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        if document.get("schema") != SCHEMA:
            raise UsageError(f'{path}: schema is not "{SCHEMA}"; add that line at its top')
        sets = tuple(_read_set(table) for table in document.get("set", []))
        _refuse_doubles("set", [each.name for each in sets])
        sets = _with_versions(sets, document.get("versions", {}))
        return _with_cpus(sets, document.get("cpus", {}))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}; mend the file") from error
    except UsageError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise UsageError(f"{where}{error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: a set or prediction lacks or misuses {error}; "
            "see the other sets for the keys that are needed"
        ) from error


def _with_versions(
    sets: tuple[PredictionSet, ...], added: Mapping[str, Mapping[str, str]]
) -> tuple[PredictionSet, ...]:
    """Sets with the versions that stand outside their seals, where the sealed text bears them."""
    by_name = {each.name: each for each in sets}
    for name, versions in added.items():
        one = by_name.get(name)
        if one is None:
            raise UsageError(f"[versions] names the set {name!r}, which is none; correct the name")
        for package, version in versions.items():
            said = re.search(rf"\b{re.escape(package)} {re.escape(version)}\b", one.basis, re.I)
            if one.versions or said is None:
                raise UsageError(
                    f"[versions] {name!r}: the sealed basis does not say {package} {version}; "
                    "write a new set instead"
                )
        by_name[name] = replace(one, versions=dict(versions))
    return tuple(by_name.values())


def _with_cpus(
    sets: tuple[PredictionSet, ...], added: Mapping[str, str]
) -> tuple[PredictionSet, ...]:
    """Sets with the kind of CPU that stands outside their seals, where the sealed text bears it."""
    by_name = {each.name: each for each in sets}
    for name, cpu in added.items():
        one = by_name.get(name)
        if one is None:
            raise UsageError(f"[cpus] names the set {name!r}, which is none; correct the name")
        sealed = re.sub(r"-(?=\d)", "", f"{one.name} {one.basis}".lower())  # AVX-512 is AVX512
        if (
            one.cpu
            or not isinstance(cpu, str)
            or cpu.lower() not in re.findall(r"[a-z0-9]+", sealed)
        ):
            raise UsageError(
                f"[cpus] {name!r}: neither its sealed name nor its basis says {cpu}; "
                "write a new set instead"
            )
        by_name[name] = replace(one, cpu=cpu)
    return tuple(by_name.values())


def _is_version(found: str | None, wanted: str) -> bool:
    """Whether `found` (2.11.0+cu130) is `wanted` (2.11) or a part of that series."""
    public = (found or "").partition("+")[0]
    return public == wanted or public.startswith(wanted + ".")


def _refuse_doubles(what: str, names: list[str]) -> None:
    # Seals and scores are kept by name: the second of two would replace the first in silence.
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UsageError(f"{what} {double!r} stands there twice; rename one")


def _read_set(table: Mapping[str, Any]) -> PredictionSet:
    predictions = tuple(
        Prediction(
            str(row["id"]),
            parse_quantity(row["quantity"]),
            float(row["low"]),
            float(row["high"]),
            str(row["because"]),
        )
        for row in table["prediction"]
    )
    for each in predictions:
        if not each.low <= each.high:
            raise UsageError(f"prediction {each.id}: low is not below high; correct the range")
    _refuse_doubles("prediction", [each.id for each in predictions])
    devices = table["devices"]
    if not isinstance(devices, list) or not all(isinstance(d, str) and d for d in devices):
        raise UsageError(f"set {table['name']!r}: devices is no list of names; write one")
    versions = table.get("versions", {})
    if not all(isinstance(version, str) and version for version in versions.values()):
        raise UsageError(f'set {table["name"]!r}: versions are texts; write torch = "2.11"')
    cpu = table.get("cpu")
    if not (cpu is None or (isinstance(cpu, str) and cpu)):
        raise UsageError(f'set {table["name"]!r}: cpu is a text; write cpu = "AVX2"')
    return PredictionSet(
        str(table["name"]),
        tuple(devices),
        str(table["preset"]),
        str(table["sealed"]),
        str(table["basis"]),
        predictions,
        seal(table),
        dict(versions),
        cpu,
    )


def score(sets: PredictionSet, quantities: Mapping[str, Quantity]) -> tuple[Score, ...]:
    """Hit or miss of every prediction on one run; None where the run did not measure it."""
    scores = []
    for prediction in sets.predictions:
        found = measure(prediction.quantity, quantities)
        hit, reason = None, found.reason
        if found.value is not None:
            low, high = found.interval or (found.value, found.value)
            if prediction.low <= low and high <= prediction.high:
                hit = True
            elif high < prediction.low or low > prediction.high:
                hit = False
            else:
                reason = "the interval crosses a bound"
        scores.append(Score(prediction, found.value, hit, found.interval, reason))
    return tuple(scores)
