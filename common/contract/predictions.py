"""What was expected before anybody looked? Predictions in sets, each sealed by its hash.

A set is for one kind of run (device, preset). Its hash goes into the manifest of every later run,
so a set that was changed after a run, or written after it, shows. Each prediction is a range of a
quantity (the grammar of claims), with the reason for it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
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

    def applies_to(self, device: str, preset: str) -> bool:
        return preset == self.preset and any(device.startswith(d) for d in self.devices)


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
        return sets
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
    return PredictionSet(
        str(table["name"]),
        tuple(devices),
        str(table["preset"]),
        str(table["sealed"]),
        str(table["basis"]),
        predictions,
        seal(table),
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
