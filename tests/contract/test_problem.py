"""Is the real problem.toml accepted, and each way to break it refused with the file's name?"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from common.contract.problem import (
    Problem,
    choose_preset,
    choose_variants,
    load_problem,
    problem_names,
    read_problem,
)
from common.errors import PreconditionError, UsageError

CHECKOUT = Path(__file__).parents[2]
REAL = CHECKOUT / "problems" / "float8_weight_only"
GB = 10**9


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKLOG_ROOT", str(CHECKOUT))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return read_problem(REAL / "problem.toml")


def broken(tmp_path: Path, pattern: str, replacement: str) -> Path:
    """The real problem with one thing changed; the rest, predictions too, as it is."""
    folder = tmp_path / "broken"
    folder.mkdir()
    shutil.copy(REAL / "predictions.toml", folder)
    text, count = re.subn(
        pattern, lambda _: replacement, (REAL / "problem.toml").read_text(), count=1
    )
    assert count == 1
    (folder / "problem.toml").write_text(text)
    return folder / "problem.toml"


def test_every_problem_here_loads() -> None:
    assert "float8_weight_only" in problem_names()
    for name in problem_names():
        assert load_problem(name).name == name


def test_the_real_problem_has_claims_variants_and_sealed_predictions(problem: Problem) -> None:
    assert problem.baseline == "bf16"
    assert len(problem.claims) >= 6
    assert problem.predictions
    assert any(v.role == "must-be-rejected" for v in problem.variants.values())
    assert "wrong-scales-permuted" not in problem.default_variants()


@pytest.mark.parametrize(
    ("pattern", "replacement", "words"),
    [
        ('baseline = "bf16"', 'baseline = "bf17"', "baseline 'bf17' is no variant"),
        ('role = "diagnostic"', 'role = "optional"', "role 'optional' is none of"),
        ('title = "torchao 0.13.0', 'titel = "torchao 0.13.0', "'title'"),
        (r"needs_device_bytes = 0\n", "", "needs_device_bytes"),
        ("min_rounds = 10", "min_round = 10", "min_round"),
        ("min_rounds = 10", "min_rounds = 99", "min_rounds <= max_rounds"),
        ("min_rounds = 10", 'min_rounds = "10"', "give numbers"),
        ("tolerance = 0.04\n", "", "has no tolerance"),
        ("tolerance = 0.04\n", 'tolerance = "0.04"\n', "numbers"),
        ("worklog.problem/1", "worklog.problem/2", "schema is not"),
        (r'ratio\("float8wo-0.13.0", "bf16"', 'ratio("float8wo-0.13.1", "bf16"', "float8wo-0.13.1"),
        (r'"bf16", "decode"\) >= 5', '"bf16", "decoding") >= 5', "no phase"),
        (r">= 5'", "about 5'", "expected >="),
        (r"claim = 'ratio\(", "claim = 'ratoi(", "unknown quantity ratoi"),
        (r"\[phases\]", "[phases", "mend the file"),
        ("decode_steps = 4", "decode_step = 4", "phase decode counts its units by 'decode_steps'"),
        ("decode_steps = 4", "decode_steps = 0", "whole number from 1"),
        (r'\["torchao==0.13.0"\]', '["torchao>=0.13.0"]', "is not pinned"),
        (r'\["torchao==0.13.0"\]', '["../../torchao==0.13.0"]', "is not pinned"),
        (r"variants.float8dq-tensor", 'variants."../up"', "names files and folders"),
        ('scheme = "int8wo" }', "scheme = 2026-01-01 }", "not JSON serializable"),
        ('scheme = "int8wo" }', "scheme = nan }", "not JSON compliant"),
    ],
)
def test_a_broken_problem_is_a_usage_error_that_names_the_file(
    tmp_path: Path, pattern: str, replacement: str, words: str
) -> None:
    path = broken(tmp_path, pattern, replacement)
    with pytest.raises(UsageError) as caught:
        read_problem(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    assert words in message
    assert message.count(str(path)) == 1
    assert "\n" not in message
    assert re.search(
        r"[;:] (\S+ )*(mend|add|compare|name|state|choose|correct|use|give|write)\b", message
    ), message


def test_a_table_where_none_belongs_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "problem.toml"
    path.write_text('schema = "worklog.problem/1"\nvariants = 3\npresets = 4\n')
    with pytest.raises(UsageError, match="lacks or misuses"):
        read_problem(path)


def test_bytes_that_are_no_utf8_are_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "problem.toml"
    path.write_bytes(b'schema = "\xff"')
    with pytest.raises(UsageError, match="mend the file"):
        read_problem(path)


def test_a_prediction_about_an_unknown_variant_is_a_usage_error(tmp_path: Path) -> None:
    path = broken(tmp_path, "status = ", "status = ")
    predictions = path.with_name("predictions.toml")
    predictions.write_text(predictions.read_text().replace('"int8wo-0.18.0"', '"int9"', 1))
    with pytest.raises(UsageError, match=r"predictions\.toml: .*'int9'"):
        read_problem(path)


def test_an_unknown_problem_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="float8_weight_only"):
        load_problem("float8")
    with pytest.raises(UsageError):
        load_problem("../problems/float8_weight_only")


def test_the_baseline_is_always_there_and_first(problem: Problem) -> None:
    names = [v.name for v in choose_variants(problem, ["int8wo-0.18.0", "float8wo-0.13.0"])]
    assert names == ["bf16", "float8wo-0.13.0", "int8wo-0.18.0"]
    with pytest.raises(UsageError, match=r"there are: bf16, .*int8wo-0\.18\.0"):
        choose_variants(problem, ["int4"])


@pytest.mark.parametrize(
    ("wanted", "device", "gb", "found"),
    [
        (None, "cpu", 16, "cpu"),
        (None, "cuda", 80, "llama-3.1-8b"),
        (None, "cuda", 24, "llama-3.2-3b"),
        ("gpu", "cuda", 24, "llama-3.2-3b"),
        ("tiny", "cpu", 0, "tiny"),
        ("cpu", "cpu", 0, "cpu"),  # asked for by name: taken, whatever it needs
    ],
)
def test_a_preset_fits_the_device(problem, wanted, device, gb, found) -> None:  # type: ignore[no-untyped-def]
    assert choose_preset(problem, wanted, device, gb * GB).name == found


@pytest.mark.parametrize(("wanted", "device"), [(None, "cpu"), (None, "cuda"), ("gpu", "cuda")])
def test_tiny_is_taken_only_when_asked_for(problem: Problem, wanted: str, device: str) -> None:
    with pytest.raises(PreconditionError, match=r"fits the 1\.0 GB .*--preset: .*tiny"):
        choose_preset(problem, wanted, device, GB)


@pytest.mark.parametrize(
    ("wanted", "device", "words"),
    [("cpu", "cuda", "llama-3.1-8b"), ("gpu", "cpu", "--preset cpu"), ("huge", "cpu", "tiny")],
)
def test_a_preset_of_another_device_is_refused_with_the_choices(
    problem: Problem, wanted: str, device: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        choose_preset(problem, wanted, device, 99 * GB)
