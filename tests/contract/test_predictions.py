"""Does a seal hold whatever the formatting, break with any value, and does scoring follow it?"""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from common.contract.claims import Measured
from common.contract.predictions import read_predictions, score, seal
from common.errors import UsageError

REAL = Path(__file__).parents[2] / "problems" / "float8_weight_only" / "predictions.toml"
TEXT = """schema = "worklog.predictions/1"
[[set]]
name = "one"
devices = ["cpu-", "nvidia-h200"]
preset = "cpu"
sealed = "2026-01-01"
basis = "arithmetic"
[[set.prediction]]
id = "P1"
quantity = 'ratio("a", "b", "decode")'
low = 2
high = 4.5
because = "bytes"
"""
REFORMATTED = """# a comment
schema   =   "worklog.predictions/1"

[[set]]
sealed = '2026-01-01'      # another
preset = "cpu"
basis = "arith\\u006detic"
devices = [
  'cpu-',
  'nvidia-h200', ]
name = "one"
[[set.prediction]]
because = "bytes"
high = 4.50
low = +2
id = "P1"
quantity = 'ratio("a", "b", "decode")'
"""


def read(tmp_path: Path, text: str | bytes):  # type: ignore[no-untyped-def]
    path = tmp_path / "predictions.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_predictions(path)


def test_formatting_comments_and_order_of_keys_do_not_change_a_seal(tmp_path: Path) -> None:
    (first,), (second,) = read(tmp_path, TEXT), read(tmp_path, REFORMATTED)
    assert first.sha256 == second.sha256
    assert len(first.sha256) == 64


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for key, each in value.items() for p in leaves(each, (*path, key))]
    if isinstance(value, list):
        return [p for i, each in enumerate(value) for p in leaves(each, (*path, i))]
    return [path]


def test_every_single_value_of_the_real_sets_is_under_its_seal() -> None:
    for table in tomllib.loads(REAL.read_text())["set"]:
        before = seal(table)
        for path in leaves(table):
            changed = copy.deepcopy(table)
            place = changed
            for step in path[:-1]:
                place = place[step]
            old = place[path[-1]]
            place[path[-1]] = old + "." if isinstance(old, str) else old + 0.001
            assert seal(changed) != before, path
        assert seal(copy.deepcopy(table)) == before


def test_the_real_predictions_are_readable() -> None:
    sets = read_predictions(REAL)
    assert len(sets) >= 3
    assert all(p.low <= p.high and p.because for each in sets for p in each.predictions)


def test_a_set_is_for_its_devices_and_its_preset_only(tmp_path: Path) -> None:
    (one,) = read(tmp_path, TEXT)
    assert one.applies_to("cpu-amd-2c", "cpu")
    assert one.applies_to("nvidia-h200", "cpu")
    assert not one.applies_to("nvidia-a100", "cpu")
    assert not one.applies_to("cpu-amd-2c", "tiny")


@pytest.mark.parametrize(
    ("value", "hit"),
    [(2, True), (4.5, True), (3, True), (1.999, False), (4.51, False), (None, None)],
)
def test_a_hit_lies_inside_the_range_ends_included(tmp_path, value, hit) -> None:  # type: ignore[no-untyped-def]
    (one,) = read(tmp_path, TEXT)
    (result,) = score(one, {"ratio": lambda a, b, c: Measured(value, reason="why")})
    assert (result.hit, result.value, result.reason) == (hit, value, "why")


def test_a_missing_file_holds_no_predictions(tmp_path: Path) -> None:
    assert read_predictions(tmp_path / "none.toml") == ()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("worklog.predictions/1", "worklog.predictions/9", "schema"),
        ("[[set]]", "[[set", "mend the file"),
        (TEXT.split("\n", 1)[1], "set = 3", "misuses"),
        (TEXT.split("\n", 1)[1], "set = [3]", "misuses"),
        ('name = "one"\n', "", "'name'"),
        ("low = 2", "low = 9", "low is not below high"),
        ("low = 2", "low = nan", "low is not below high"),
        ("low = 2", 'low = "two"', "two"),
        ("ratio(", "ratio[", "unexpected"),
        ('["cpu-", "nvidia-h200"]', '"cpu-"', "no list of names"),
    ],
)
def test_a_bad_file_is_a_usage_error_that_names_it(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in TEXT
    with pytest.raises(UsageError, match=r"predictions\.toml: ") as caught:
        read(tmp_path, TEXT.replace(old, new, 1))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_sets_or_predictions_of_one_name_are_refused(tmp_path: Path) -> None:
    """Seals and scores are kept by name: the second would hide the first."""
    body = TEXT.split("\n", 1)[1]
    with pytest.raises(UsageError, match="'one' stands there twice"):
        read(tmp_path, TEXT + body)
    prediction = "[[set.prediction]]" + TEXT.split("[[set.prediction]]")[1]
    with pytest.raises(UsageError, match="'P1' stands there twice"):
        read(tmp_path, TEXT + prediction)


def test_bytes_that_are_no_utf8_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mend the file"):
        read(tmp_path, TEXT.encode().replace(b"bytes", b"\xff\xfe"))


VERSIONED = """schema = "worklog.predictions/1"
[[set]]
name = "old"
devices = ["nvidia-h200"]
preset = "cpu"
sealed = "2026-01-01"
basis = "kernels compiled with Triton 3.9.0; nobody has run it"
prediction = []
[[set]]
name = "new"
devices = ["nvidia-h200"]
preset = "cpu"
sealed = "2026-01-02"
basis = "the same with another compiler"
versions = { torch = "2.11", triton = "3.6" }
prediction = []
"""


def test_a_set_is_about_the_versions_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "predictions.toml"
    path.write_text(VERSIONED)
    old, new = read_predictions(path)
    lent = {"torch": "2.11.0+cu130", "triton": "3.6.0"}
    assert new.applies_to("nvidia-h200", "cpu", lent)
    assert not new.applies_to("nvidia-h200", "cpu", {**lent, "triton": "3.60.1"})
    assert not new.applies_to("nvidia-h200", "cpu", {"torch": "2.110.0", "triton": "3.6.0"})
    assert not new.applies_to("nvidia-h200", "cpu", {"torch": "2.11.0", "triton": None})
    assert old.applies_to("nvidia-h200", "cpu", lent)  # it names none: any
    # Versions inside a set are sealed with it.
    path.write_text(VERSIONED.replace('triton = "3.6"', 'triton = "3.7"'))
    assert read_predictions(path)[1].sha256 != new.sha256


def test_versions_outside_a_seal_say_no_more_than_the_sealed_basis(tmp_path: Path) -> None:
    path = tmp_path / "predictions.toml"
    path.write_text(VERSIONED)
    before = [one.sha256 for one in read_predictions(path)]
    path.write_text(VERSIONED + '[versions.old]\ntriton = "3.9.0"\n')
    sets = read_predictions(path)
    assert [one.sha256 for one in sets] == before
    assert sets[0].applies_to("nvidia-h200", "cpu", {"triton": "3.9.0"})
    assert not sets[0].applies_to("nvidia-h200", "cpu", {"triton": "3.6.0"})
    for wrong in (
        '[versions.old]\ntriton = "3.6"\n',
        '[versions.new]\ntorch = "2.11"\n',
        '[versions.nobody]\ntorch = "2.11"\n',
    ):
        path.write_text(VERSIONED + wrong)
        with pytest.raises(UsageError, match=r"does not say|is none"):
            read_predictions(path)


def test_a_set_is_about_the_kind_of_cpu_that_it_names(tmp_path: Path) -> None:
    path = tmp_path / "predictions.toml"
    text = VERSIONED.replace("nvidia-h200", "cpu-").replace("the same with", "AVX-512 with")
    path.write_text(text)
    before = [one.sha256 for one in read_predictions(path)]
    path.write_text(text + '[cpus]\nnew = "AVX512"\n')
    old, new = read_predictions(path)
    assert [old.sha256, new.sha256] == before and old.cpu is None
    assert new.applies_to("cpu-amd-2c", "cpu", cpu="AVX512")
    assert not new.applies_to("cpu-amd-2c", "cpu", cpu="AVX2")
    assert not new.applies_to("cpu-amd-2c", "cpu")  # an older run does not say
    assert old.applies_to("cpu-amd-2c", "cpu", cpu="AVX2")
    for wrong in ('old = "AVX2"', 'nobody = "AVX512"', 'new = ""', 'new = "AVX"', "new = 512"):
        path.write_text(f"{text}[cpus]\n{wrong}\n")
        with pytest.raises(UsageError, match=r"says|is none"):
            read_predictions(path)
    inside = text.replace('sealed = "2026-01-02"', 'sealed = "2026-01-02"\ncpu = "AVX2"')
    path.write_text(inside)
    assert read_predictions(path)[1].cpu == "AVX2"
    assert read_predictions(path)[1].sha256 != before[1]
    path.write_text(inside.replace('"AVX2"', '""'))
    with pytest.raises(UsageError, match="cpu is a text"):
        read_predictions(path)
