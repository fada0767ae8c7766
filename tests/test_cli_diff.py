"""`worklog diff`: where results, pages and warnings go, and with what exit code it ends.

What is compared is given here; `test_cli_diff_files.py` has it read from files.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from helpers.command import assert_one_line_error, worklog
from helpers.differences import difference, judgement, large, row

from common import cli_diff
from common.cli import main
from common.diff.difference import Difference

Captured = pytest.CaptureFixture[str]


class Given:
    """Stands where the files would be read: returns a difference and keeps what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found = difference([row("gemm", 2_000_000, 2_200_000), row("add", 10, 10)])
        self.asked: list[tuple[str, str, str | None]] = []
        monkeypatch.setattr(cli_diff, "compare", self.compare)

    def compare(self, a: str, b: str, by: str | None) -> Difference:
        self.asked.append((a, b, by))
        return self.found

    def judged(self, verdict: str, ratio: float | None) -> None:
        self.found = self.found.judged(judgement(verdict, ratio))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    return Given(monkeypatch)


def test_a_difference_goes_to_stdout_and_its_warnings_to_stderr(
    given: Given, capsys: Captured
) -> None:
    given.found = difference([row("gemm", 1, 2)], warnings=("names\x1b overlap\nlittle",))
    assert main(["diff", "a", "b#v", "--by", "operator"]) == 0
    out, err = capsys.readouterr()
    assert given.asked == [("a", "b#v", "operator")]
    assert "gemm" in out and "residual 0" in out and "overlap" not in out and "\x1b" not in out
    assert err == "warning: names\\x1b overlap little\n"


def test_the_rows_are_those_of_one_screen_unless_a_number_is_given(
    given: Given, capsys: Captured
) -> None:
    given.found = large(2000, 300)
    main(["diff", "a", "b"])
    assert capsys.readouterr().out.count("\n") <= 45
    main(["diff", "a", "b", "--top", "60"])
    assert capsys.readouterr().out.count("kernel_") >= 60
    main(["diff", "a", "b", "--top", "0"])
    assert "kernel_" not in capsys.readouterr().out


def test_json_is_one_document_and_nothing_else(given: Given, capsys: Captured) -> None:
    odd = judgement("SLOWER", math.inf, evidence={"nan": math.nan, "inside": [-math.inf, 1.5]})
    name = "half \ud800 <b> \u4e2d"
    given.found = difference([row(name, 1, 2**70)], judgement=odd, warnings=("w",))
    assert main(["diff", "a", "b", "--json"]) == 0
    out, err = capsys.readouterr()
    read = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert read["rows"][0]["name"] == read["by_name"][0]["name"] == name
    assert read["delta"] == 2**70 - 1
    assert read["speed"]["ratio"] is None and read["speed"]["inside"] == [None, 1.5]
    assert read["warnings"] == ["w"] and err == ""


@pytest.mark.parametrize("found", [large(300, 40), difference()])
def test_json_says_what_the_difference_holds(
    found: Difference, given: Given, capsys: Captured
) -> None:
    given.found = found
    assert main(["diff", "a", "b", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    by_name = read.pop("by_name")
    assert read == json.loads(json.dumps(found.to_json()))
    assert sum(r["delta"] for r in by_name) + sum(
        r["delta"] for r in read["remainders"]
    ) == read["delta"]  # fmt: skip


def test_json_and_pages_can_be_had_at_once(given: Given, tmp_path: Path, capsys: Captured) -> None:
    page, text = tmp_path / "new" / "page.html", tmp_path / "comment.md"
    assert main(["diff", "a", "b", "--json", "--html", str(page), "--markdown", str(text)]) == 0
    assert json.loads(capsys.readouterr().out)["delta"] == 200_000
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "`gemm`" in text.read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["comment.md", "page.html"]


@pytest.mark.parametrize(
    ("verdict", "ratio", "options", "code"),
    [
        ("SLOWER", 1.1, [], 0), ("SLOWER", 1.1, ["--fail-on", "slower=5%"], 1),
        ("SLOWER", 1.1, ["--fail-on", "slower=20%"], 0), ("SLOWER", 1.1, ["--strict"], 0),
        ("AMBIGUOUS", 1.1, ["--fail-on", "slower=5%"], 0), ("AMBIGUOUS", 1.1, ["--strict"], 1),
        ("AMBIGUOUS", 1.1, ["--fail-on", "slower=5%", "--strict"], 1),
        ("NOT_COMPARABLE", None, ["--fail-on", "slower=5%"], 0),
        ("NOT_COMPARABLE", None, ["--fail-on", "slower=5%", "--strict"], 1),
        ("SAME", 1.0, ["--fail-on", "slower=0%", "--strict"], 0),
        ("FASTER", 0.5, ["--fail-on=slower=0%", "--strict"], 0),
        ("SAME", 1.0, ["--fail-on", "slower=5%", "--fail-on", "gpu_time=1%"], 1),
        ("SAME", 1.0, ["--fail-on", "gpu_time=+1ms"], 0),
    ],
)  # fmt: skip
def test_a_gate_decides_the_exit_code_and_tells_why(
    verdict: str, ratio: float | None, options: list[str], code: int, given: Given, capsys: Captured
) -> None:
    given.judged(verdict, ratio)
    assert main(["diff", "a", "b", *options]) == code
    out, err = capsys.readouterr()
    assert "residual 0" in out  # the attribution is printed whatever the gate says
    assert ("failed: " in err) is (code == 1)
    undecided = verdict in ("AMBIGUOUS", "NOT_COMPARABLE") and "--fail-on" in options
    assert (verdict in err) is (undecided or verdict in err.partition("failed: ")[2])


def test_a_failing_gate_still_writes_everything(
    given: Given, tmp_path: Path, capsys: Captured
) -> None:
    given.judged("SLOWER", 2.0)
    page = tmp_path / "page.html"
    options = ["--fail-on", "slower=5%", "--json", "--html", str(page)]
    assert main(["diff", "a", "b", *options]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "SLOWER" and page.exists()
    assert err == "failed: SLOWER: span is 2 times that of A, beyond slower=5%\n"


def test_a_bound_on_what_is_unknown_is_an_error(given: Given, capsys: Captured) -> None:
    assert main(["diff", "a", "b", "--fail-on", "peak=5%"]) == 2
    assert "do not say" in capsys.readouterr().err


def test_a_page_never_replaces_what_is_compared(
    given: Given, tmp_path: Path, capsys: Captured
) -> None:
    trace = tmp_path / "a.json"
    trace.write_text("{}")
    for options in (
        ["--html", str(trace)],
        ["--markdown", f"{tmp_path}/./a.json"],
        ["--html", str(tmp_path)],
        ["--html", ""],
        ["--html", f"{tmp_path}/x", "--markdown", f"{tmp_path}/x"],
    ):
        assert main(["diff", str(trace), "b", *options]) == 2, options
        assert capsys.readouterr().err.startswith("error: --")
    assert trace.read_text() == "{}" and given.asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["a"], ["a", "b", "c"], ["a", "b", "--top", "-1"], ["a", "b", "--top", "x"],
        ["a", "b", "--fail-on"], ["a", "b", "--fail-on", "faster=5%"], ["a", "b", "--js"],
        ["a", "b", "--fail-on", "slower=\x1b[31m"],
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line_before_anything_is_read(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = worklog(tmp_path, "diff", *arguments)
    assert_one_line_error(done, 2)
    assert done.stdout == "" and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


def test_the_command_is_added_without_the_cost_of_running_it(tmp_path: Path) -> None:
    done = worklog(tmp_path, "diff", "--help")
    assert done.returncode == 0 and "--fail-on" in done.stdout and "slower=5%" in done.stdout
    assert sys.modules["common.cli_diff"].__doc__
