"""Does `check` find every way in which page and evidence part, and `render` touch blocks alone?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command import worklog
from helpers.runs import summarise_into, write_run
from helpers.synthetic import EXERCISES, PREDICTIONS, SECTIONS, VARIANTS, make_problem

from common.contract.problem import load_problem
from common.errors import UsageError
from common.pages.blocks import RENDERERS, render_block, render_page
from common.pages.check import check, render

PLAIN = {"fill": [1_000_000] * 12, "step": [4_000_000] * 12}
DOUBLE = {"fill": [2_000_000] * 12, "step": [8_000_000] * 12}
BLOCKS = {
    "Setup": "setup",
    "Predictions": "predictions set=first run=cpu",
    "First look": "verdicts run=cpu phase=step",
    "Verification": "correctness run=cpu",
    "Fix": "claims run=cpu",
    "Card": "memory run=cpu",
}
Page = Callable[[], Path]


def block(head: str, body: str = "") -> str:
    return f"<!-- worklog:{head} -->\n{body}<!-- /worklog:{head.split()[0]} -->"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small problem with recorded evidence and a rendered page that `check` finds clean."""
    monkeypatch.setenv("WORKLOG_ROOT", str(tmp_path))
    folder = make_problem(tmp_path, evidence={"cpu": "recorded/cpu"})
    problem = load_problem("spin")
    run = write_run(
        folder / "recorded", {"plain": PLAIN, "double": DOUBLE},
        claims=[{"says": "twice", "claim": claim.text} for _, claim, _ in problem.claims],
        predictions={sets.name: sets.sha256 for sets in problem.predictions},
    )  # fmt: skip
    summarise_into(run.rename(folder / "recorded" / "cpu"))
    text = "# Spinning | a <b>title</b>\n\n"
    for section in SECTIONS:
        text += f"## {section}\n\nWords, `code` and ümlauts.\n\n"
        text += block(BLOCKS[section]) + "\n\n" if section in BLOCKS else ""
        text += EXERCISES if section == "Exercises" else ""
    path = folder / "WORKLOG.md"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "README.md").write_text("# Root\n\n" + block("problems") + "\n")
    changed, findings = render([])
    assert {p.name for p in changed} == {"WORKLOG.md", "README.md"} and findings == []
    assert check([]) == []
    return path


def findings(path: Path, old: str, new: str, count: int = 1) -> list[str]:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")
    return [str(finding) for finding in check([])]


def line_of(path: Path, text: str) -> int:
    return path.read_text(encoding="utf-8").split(text)[0].count("\n") + 1


def test_rendered_pages_hold_the_recorded_numbers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "| double | 2.00 (2.00 … 2.00) | 500 | 2 | 2 … 2 | SLOWER |" in text
    assert "revision 0123456" in text
    assert "reproduced" in text and "**miss**" in text and "hit" in text
    assert "sealed before it was made" in text
    assert "[spin](problems/spin/WORKLOG.md)" in (page.parents[2] / "README.md").read_text()


def test_rendering_again_changes_nothing(page: Path) -> None:
    before = page.read_bytes()
    assert render([]) == ([], [])
    assert page.read_bytes() == before


def test_text_outside_of_blocks_is_not_touched(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    odd = "  trailing  \n\n\n<!-- a comment -->\n```\n<!-- not ours -->\n```\nno end of line"
    page.write_text(text + odd, encoding="utf-8")
    page.write_text(page.read_text(encoding="utf-8").replace("SLOWER", "FASTER"), encoding="utf-8")
    render([])
    assert page.read_text(encoding="utf-8") == text + odd


def test_a_number_that_was_edited_by_hand_is_found_with_its_line(page: Path) -> None:
    start = line_of(page, "| double | 2.00 (2.00")
    found = findings(page, "2.00 (2.00", "1.90 (2.00")
    assert found == [
        f"{page}:{start}: block verdicts differs from its evidence; run worklog render"
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("memory run=cpu", "memory run=gpu", "no evidence 'gpu'; name one of"),
        ("memory run=cpu", "memory", "lacks the option or the data 'run'"),
        ("memory run=cpu", "memory run=cpu phase=step", "no option 'phase'; it takes: run"),
        ("phase=step", "phase=stepp", "no phase 'stepp'; there are: fill, step"),
        ("set=first", "set=second", "no set of predictions 'second'"),
        ("worklog:setup -->\n", "worklog:setpu -->\n", "block setpu is closed as setup"),
        ("<!-- /worklog:claims -->", "<!-- /worklog:memory -->", "claims is closed as memory"),
        ("<!-- /worklog:claims -->", "", "a marker has no partner"),
        ("<!-- worklog:claims run=cpu -->", "", "a marker has no partner"),
        ("<!-- worklog:claims run=cpu -->", "<!-- worklog:claims  run=cpu -->", "a marker has no"),
        ("## Threats to validity", "## Threats", "section 'Threats to validity' is missing"),
        ("## Fix", "### Fix", "section 'Fix' is missing"),
        ("## Question", "## Zwischenspiel\n\n## Question", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_on_a_page_is_found(page: Path, old: str, new: str, words: str) -> None:
    found = findings(page, old, new)
    if not words:
        assert found == []
        return
    assert any(words in each for each in found), found
    assert all(each.startswith(f"{page}:") for each in found)


def test_sections_out_of_order_are_found(page: Path) -> None:
    found = findings(page, "## Fix", "## Verification2")
    assert found
    text = page.read_text(encoding="utf-8")
    swapped = text.replace("## Verification2", "## X").replace("## Verification\n", "## Fix\n")
    page.write_text(swapped.replace("## X", "## Verification"), encoding="utf-8")
    assert any("out of order" in str(each) for each in check([]))


def test_both_ends_changed_to_an_unknown_block_are_found(page: Path) -> None:
    found = findings(page, "worklog:setup", "worklog:setpu", 2)
    assert any(
        "unknown block 'setpu'; there are: " in each and "problems" in each for each in found
    )


def test_a_block_that_is_not_closed_does_not_swallow_what_follows(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    twice = "\n<!-- worklog:setup -->\nprecious words\n\n" + block("setup") + "\n"
    page.write_text(text + twice, encoding="utf-8")
    start = line_of(page, "\n<!-- worklog:setup -->\nprecious") + 1
    _, found = render([])
    assert [str(each) for each in found] == [
        f"{page}:{start}: a marker has no partner or is misspelt; mend it"
    ]
    assert "precious words" in page.read_text(encoding="utf-8")


def test_a_prediction_that_was_changed_after_the_run_is_found(page: Path) -> None:
    predictions = page.with_name("predictions.toml")
    predictions.write_text(PREDICTIONS.replace("high = 200", "high = 201"))
    found = [str(each) for each in check([])]
    assert any(
        each.startswith(f"{predictions}:3: set first was changed after the run") for each in found
    )
    assert any("block predictions differs" in each for each in found)
    render([])
    assert "**retrospective**" in page.read_text(encoding="utf-8")
    predictions.write_text(PREDICTIONS.replace('name = "first"', 'name = "other"'))
    assert any("set first was removed or renamed" in str(each) for each in check([]))


def test_a_set_about_another_device_is_not_scored(page: Path) -> None:
    predictions = page.with_name("predictions.toml")
    predictions.write_text(PREDICTIONS.replace('["cpu-"]', '["nvidia-h200"]'))
    assert any("is not about cpu-a-2c with preset small" in str(each) for each in check([]))


def test_an_edited_summary_is_found_and_rebuilt(page: Path) -> None:
    path = page.parent / "recorded" / "cpu" / "summary.json"
    before = path.read_bytes()
    summary = json.loads(before)
    summary["ratios"][0]["ratio"] = 1.5
    path.write_text(json.dumps(summary))
    found = [str(each) for each in check([])]
    assert any(each.startswith(f"{path}:1: evidence cpu: summary.json is not") for each in found)
    assert worklog(page.parents[2], "render").returncode == 0
    assert path.read_bytes() == before
    assert check([]) == []


def test_evidence_that_is_missing_damaged_or_unfinished_is_found(page: Path) -> None:
    folder = page.parent / "recorded" / "cpu"
    manifest = folder / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"finished"', '"unfinished"', 1))
    assert any("unfinished run" in str(each) for each in check([]))
    manifest.write_text("{")
    assert any("evidence cpu: " in str(each) for each in check([]))
    manifest.write_text(whole.replace('"predictions"', '"predictionz"'))
    assert any("has no predictions" in str(each) for each in check([]))
    folder.rename(folder.with_name("gone"))
    assert any("is no folder" in str(each) for each in check([]))


def test_a_page_that_is_missing_or_no_utf8_is_a_finding(page: Path) -> None:
    page.write_bytes(page.read_bytes() + b"\xff")
    line = page.read_bytes().count(b"\n") + 1
    expected = f"{page}:{line}: is not UTF-8"
    assert any(str(each).startswith(expected) for each in check([]))
    assert any(str(each).startswith(expected) for each in render([])[1])
    page.unlink()
    assert any("is missing" in str(each) for each in check([]))


def test_the_command_prints_findings_and_exits_with_1(page: Path) -> None:
    root = page.parents[2]
    clean = worklog(root, "check")
    assert (clean.returncode, clean.stdout) == (0, "")
    findings(page, "2.00 (2.00", "1.90 (2.00")
    done = worklog(root, "check", "spin")
    assert done.returncode == 1
    assert done.stdout.startswith(f"{page}:") and done.stdout.count("\n") == 1
    rendered = worklog(root, "render", "spin")
    assert (rendered.returncode, rendered.stdout) == (0, f"rendered {page}\n")
    assert worklog(root, "check").returncode == 0


def test_every_block_can_be_rendered_or_says_what_it_lacks(page: Path) -> None:
    problem = load_problem("spin")
    for name in RENDERERS:
        page.write_text(block(f"{name} run=cpu"), encoding="utf-8")
        text, found = render_page(page, problem)
        assert text.startswith(f"<!-- worklog:{name} ")
        assert len(found) == 1 and "\n" not in str(found[0])


def test_a_page_outside_of_a_problem_names_it(page: Path) -> None:
    path = page.parents[2] / "README.md"
    path.write_text(block("setup"))
    assert "needs problem=NAME" in str(render_page(path, None)[1][0])
    path.write_text(block("setup problem=spin"))
    text, _ = render_page(path, None)
    assert all(f"`{name}`" in text for name in VARIANTS)
    path.write_text(block("setup problem=nothing"))
    assert "no problem 'nothing'" in str(render_page(path, None)[1][0])
    with pytest.raises(UsageError):
        check(["nothing"])


def test_evidence_that_is_awaited_is_said_to_be_and_is_no_finding(page: Path) -> None:
    toml = page.parent / "problem.toml"
    toml.write_text(
        toml.read_text().replace('cpu = "recorded/cpu"', 'cpu = "recorded/cpu"\nlater = ""')
    )
    text = page.read_text()
    page.write_text(text.replace("memory run=cpu", "memory run=later"))
    changed, found = render([])
    assert page in changed and found == [] and check([]) == []
    assert "_Evidence `later` is not recorded yet._" in page.read_text()


def test_the_published_rows_are_scored_and_the_open_ones_say_so(page: Path) -> None:
    problem = load_problem("spin")
    table = render_block(problem, "published", {"model": "8B"})
    assert "| 8B, RTX 5090 | float8wo tokens/s | 7.48 | 7.553 | +1.0 % | predicted |" in table
    assert "| float8dq tokens/s | 169.8 | 211.5 | +24.5 % | **open** |" in table
    assert "3B" not in table
    assert "3B" in render_block(problem, "published", {})
    with pytest.raises(UsageError, match="70B"):
        render_block(problem, "published", {"model": "70B"})


def test_a_drawing_stands_with_its_own_title_and_one_that_is_none_is_found(page: Path) -> None:
    problem = load_problem("spin")
    path = page.parent / "figures" / "one.svg"
    path.parent.mkdir()
    options = {"run": "cpu", "name": "one"}
    for text in (None, "<svg", "<svg xmlns='http://www.w3.org/2000/svg'/>"):
        if text is not None:
            path.write_text(text)
        with pytest.raises(UsageError, match="draw it anew"):
            render_block(problem, "drawing", options)
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg'><title>a [b]</title></svg>")
    assert render_block(problem, "drawing", options) == "![a (b)](figures/one.svg)"
    with pytest.raises(UsageError, match="no evidence 'other'"):
        render_block(problem, "drawing", {**options, "run": "other"})
