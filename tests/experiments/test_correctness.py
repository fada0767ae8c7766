"""Does the correctness check pass what is right and refuse everything else, silence included?"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from common.experiments.correctness import (
    check_outputs,
    divergence_nats,
    load_outputs,
    relative_error,
    top1_agreement,
)

LOGITS = np.random.default_rng(3).normal(size=(4, 100)).astype(np.float32)
REFERENCE = {"prefill": LOGITS[:1], "decode": LOGITS}


def test_the_reference_agrees_with_itself() -> None:
    record = check_outputs(REFERENCE, REFERENCE, None)
    assert record["passed"] and record["reference"]
    assert set(record["relative_error"].values()) == {0.0}
    assert set(record["top1_agreement"].values()) == {1.0}


@pytest.mark.parametrize(("error", "passed"), [(0.0, True), (0.09, True), (0.11, False)])
def test_the_tolerance_decides(error: float, passed: bool) -> None:
    outputs = {name: values * np.float32(1 + error) for name, values in REFERENCE.items()}
    record = check_outputs(outputs, REFERENCE, 0.1)
    assert record["passed"] is passed
    assert record["relative_error"]["decode"] == pytest.approx(error, abs=1e-6)
    assert ("reason" in record) != passed


def test_one_wrong_phase_is_enough() -> None:
    outputs = {**REFERENCE, "prefill": -LOGITS[:1]}
    assert not check_outputs(outputs, REFERENCE, 0.5)["passed"]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "prefill has shape None"),
        ({"prefill": LOGITS[:1]}, "decode has shape None"),
        ({**REFERENCE, "decode": LOGITS[:2]}, r"shape \(2, 100\), not \(4, 100\)"),
        ({**REFERENCE, "decode": LOGITS * np.float32(np.nan)}, "not finite"),
        ({**REFERENCE, "decode": LOGITS + np.float32(np.inf)}, "not finite"),
    ],
)
def test_missing_misshapen_and_infinite_outputs_are_refused(outputs, words: str) -> None:  # type: ignore[no-untyped-def]
    record = check_outputs(outputs, REFERENCE, math.inf)
    assert not record["passed"]
    assert "relative_error" not in record
    import re

    assert re.search(words, record["reason"])


@pytest.mark.parametrize(
    "reference",
    [{}, {"decode": np.zeros((2, 3), np.float32)}, {"decode": np.float32(3)},
     {"decode": np.ones((0, 3), np.float32)}, {"decode": np.full((1, 2), np.nan, np.float32)}],
)  # fmt: skip
def test_a_reference_that_says_nothing_passes_nobody(reference) -> None:  # type: ignore[no-untyped-def]
    named = {name: np.asarray(values) for name, values in reference.items()}
    assert not check_outputs(named, named, None)["passed"]
    assert not check_outputs(named, named, 1.0)["passed"]


def test_a_tolerance_that_is_no_number_passes_nobody() -> None:
    assert not check_outputs(REFERENCE, REFERENCE, math.nan)["passed"]


def test_known_answers_of_the_three_measures() -> None:
    reference = np.array([[3.0, 4.0]], np.float32)
    assert relative_error(np.array([[3.0, 5.0]], np.float32), reference) == pytest.approx(0.2)
    assert top1_agreement(np.array([[9.0, 4.0]], np.float32), reference) == 0
    # Two classes: KL(1/2, 1/2 || 1/4, 3/4) = ln 2 - ln 3 / 2.
    even = np.array([[0.0, 0.0]], np.float32)
    skew = np.log(np.array([[0.25, 0.75]], np.float32))
    assert divergence_nats(skew, even) == pytest.approx(math.log(2) - math.log(3) / 2, rel=1e-6)
    assert divergence_nats(even + 1000, even) == pytest.approx(0, abs=1e-12)


def test_outputs_are_read_as_float32_and_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", a=np.ones(3, np.float16))
    assert load_outputs(tmp_path / "o.npz")["a"].dtype == np.float32
    np.savez(tmp_path / "p.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_outputs(tmp_path / "p.npz")
