"""Do figures come from their evidence alone, and is every other state of a file found?"""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.contract.problem import load_problem
from common.errors import UsageError
from common.pages.check import check, render
from common.pages.figure_blocks import INPUTS, make_figure, stale
from common.pages.problem_figures import own_figures

CHECKOUT = Path(__file__).resolve().parents[2]
FLOAT8, GEMLITE = "float8_weight_only", "gemlite_autotune"
OWN = '''"""Draws one figure from the recorded summary."""
from common.recording.run_folder import read_json

def figures(problem):
    summary = read_json(problem.folder / problem.evidence["cpu"] / "summary.json")
    return {"own.svg": f"<svg xmlns='http://www.w3.org/2000/svg'>{len(summary['claims'])}</svg>"}
'''
OPTIONS: tuple[Mapping[str, str], ...] = (
    {"kind": "ratios", "run": "cpu", "phase": "decode"},
    {"kind": "operators", "run": "cpu", "phase": "decode"},
    {"kind": "operators", "run": "cpu", "phase": "prefill", "variants": "bf16,float8wo-0.13.0"},
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o['kind']}-{o['phase']}")
def test_a_figure_is_drawn_alike_each_time_and_says_what_it_shows(
    options: Mapping[str, str],
) -> None:
    problem = load_problem(FLOAT8)
    figure = make_figure(problem, {"name": "x", **options})
    assert figure == make_figure(problem, {"name": "x", **options})
    root = ElementTree.fromstring(figure.content)
    described = root.find("{http://www.w3.org/2000/svg}desc")
    assert described is not None and "float8wo-0.13.0: " in str(described.text)
    assert "measured-cpu" in figure.markdown and "](figures/x.svg)" in figure.markdown
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, wide = float(box.get("x", 0)), float(box.attrib["width"])
        assert x >= 0 and x + wide <= width + 0.1
        assert float(box.get("y", 0)) + float(box.attrib["height"]) <= height


def test_bars_of_one_variant_add_up_to_its_time() -> None:
    from common.pages.figure_blocks import _operators

    problem = load_problem(FLOAT8)
    from common.pages.blocks import recorded

    summary = recorded(problem, "cpu").summary
    drawing = _operators(summary, {"phase": "decode"}, None)
    for bar in drawing.bars:
        time = summary["variants"][bar.label]["profile"]["decode"]["time"]
        whole = time["total_ns"] / time["occurrences"] / 1e6
        assert sum(value for value, _ in bar.parts) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"kind": "pie"},
            "unknown kind of figure 'pie'; use one of attribution, operators, ratios, table",
        ),
        ({"kind": "ratios"}, "takes phase; correct its options"),
        ({"kind": "ratios", "phase": "decode", "table": "x"}, "takes phase"),
        ({"kind": "ratios", "phase": "nothing"}, "has nothing for a figure"),
        ({"kind": "ratios", "phase": "decode", "run": "gpu"}, "has no evidence 'gpu'"),
        ({"kind": "ratios", "phase": "decode", "name": "../x"}, "use small letters"),
        ({"kind": "table", "variant": "bf16", "table": "t", "column": "c"}, "has no table 't'"),
    ],
)
def test_wrong_options_are_said_in_one_line(options: Mapping[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        make_figure(load_problem(FLOAT8), {"name": "x", "run": "cpu", **options})
    assert "\n" not in str(refused.value)


def test_the_inputs_hash_changes_with_what_is_drawn_alone() -> None:
    problem = load_problem(FLOAT8)
    options = {"name": "x", **OPTIONS[0]}
    hashes = {
        INPUTS.search(make_figure(problem, {**options, "phase": phase}).content)[1]  # type: ignore[index]
        for phase in ("decode", "prefill", "decode")
    }
    assert len(hashes) == 2
    assert stale(make_figure(problem, options)) == "figure x.svg is not there"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a worklog whose problem draws a figure of its own, and no other."""
    others = own_figures(load_problem(GEMLITE))[0]
    monkeypatch.setenv("WORKLOG_ROOT", str(tmp_path))
    folder = tmp_path / "problems" / GEMLITE
    ignored = shutil.ignore_patterns("__pycache__", "*.py", "figures")
    shutil.copytree(CHECKOUT / "problems" / GEMLITE, folder, ignore=ignored)
    for name in ("common", "tests"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    (folder / "figures.py").write_text(OWN)
    page = folder / "WORKLOG.md"
    image = "## Question\n\n![How many claims](figures/own.svg)\n\nAll of them were judged.\n"
    text = page.read_text(encoding="utf-8")
    for name in others:
        text = re.sub(rf"!\[[^\n]*\]\(figures/{re.escape(name)}\)\n\n", "", text)
    page.write_text(text.replace("## Question\n", image, 1), "utf-8")
    changed, found = render([GEMLITE])
    assert found == [] and folder / "figures" / "own.svg" in changed
    return page


def findings(name: str = GEMLITE) -> list[str]:
    return [str(finding) for finding in check([name]) if "figure" in str(finding)]


def test_a_problems_own_figures_are_drawn_again_and_compared(own: Path) -> None:
    assert findings() == []
    line = own.read_text(encoding="utf-8").split("](figures/own.svg)")[0].count("\n") + 1
    figure = own.parent / "figures" / "own.svg"
    figure.write_text(figure.read_text() + " ")
    assert findings() == [
        f"{own}:{line}: figure own.svg is stale or was edited by hand; run worklog render"
    ]
    figure.unlink()
    assert f"{own}:{line}: figure own.svg is not there; run worklog render" in findings()
    render([GEMLITE])
    assert findings() == []


def test_figures_that_nothing_draws_or_shows_are_found(own: Path) -> None:
    extra = own.parent / "figures" / "old.svg"
    extra.write_text("<svg/>")
    assert findings() == [
        f"{extra}:1: nothing draws and no page shows this file; draw it or remove it"
    ]
    text = own.read_text(encoding="utf-8")
    image = "\n![Old](figures/old.svg)\n\nSomething that was seen once.\n"
    own.write_text(text.replace("\n## Setup\n", image + "\n## Setup\n", 1), encoding="utf-8")
    assert len(findings()) == 1 and "nothing draws figures/old.svg" in findings()[0]


def test_a_figure_without_a_finding_below_it_is_found(own: Path) -> None:
    text = own.read_text(encoding="utf-8")
    own.write_text(text.replace("All of them were judged.", "### Next", 1), encoding="utf-8")
    line = text.split("](figures/own.svg)")[0].count("\n") + 1
    assert findings() == [
        f"{own}:{line}: the figure has no caption; write its finding in the line below the block"
    ]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def draw(problem):\n    return {}\n", "has no function figures(problem)"),
        ("def figures(problem):\n    return {'x.svg': 1 / 0}\n", "ZeroDivisionError"),
        ("import no_such_module\n", "no_such_module"),
        ("def figures(problem:\n", "SyntaxError"),
    ],
)
def test_code_that_cannot_draw_is_a_finding(own: Path, code: str, says: str) -> None:
    own.with_name("figures.py").write_text(code)
    found = findings()
    assert len(found) == 1 and found[0].startswith(f"{own.with_name('figures.py')}:1: ")
    assert says in found[0] and "\n" not in found[0]
