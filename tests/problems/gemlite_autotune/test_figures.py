"""The worklog's figures: made of recorded evidence, well-formed, nothing outside the frame."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from common.contract.problem import Problem, load_problem
from common.pages.problem_figures import own_figures, write_own_figures
from common.recording.run_folder import read_json
from problems.gemlite_autotune.figure_data import figure_data
from problems.gemlite_autotune.figures import figures
from problems.gemlite_autotune.shipped_tables import shipped_tables
from problems.gemlite_autotune.table_findings import split
from problems.gemlite_autotune.tasks import describe, layer_from

PROBLEM = load_problem("gemlite_autotune")
NAMES = ("routes.svg", "moves.svg", "agreement.svg", "ranks.svg")


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return figures(PROBLEM)


def test_the_files_are_what_the_evidence_gives(made: dict[str, str], tmp_path: Path) -> None:
    assert set(made) == set(NAMES)
    for name, content in made.items():
        assert (PROBLEM.folder / "figures" / name).read_text(encoding="utf-8") == content
    copy: Problem = replace(PROBLEM, folder=tmp_path)
    assert own_figures(copy) == ({}, [])  # no figures.py, no figures
    assert write_own_figures(copy) == ([], [])


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_readable_by_itself(made: dict[str, str], name: str) -> None:
    page = ElementTree.fromstring(made[name])
    width, height = map(float, page.attrib["viewBox"].split()[2:])
    texts = [each for each in page.iter() if each.tag.endswith("text") and "x" in each.attrib]
    assert len(texts) > 20
    for each in texts:
        assert 0 <= float(each.attrib["x"]) <= width and 0 <= float(each.attrib["y"]) <= height
    assert "<script" not in made[name] and "http" not in made[name].replace("w3.org", "").replace(
        'xmlns="http://www./2000/svg"', ""
    )
    assert "published" in made[name] or "compiled" in made[name]


def test_the_holes_and_the_shares_are_the_known_ones(made: dict[str, str]) -> None:
    holes = re.findall(r">(holes: [^<]+)<", made["routes.svg"])
    assert holes == ["holes: 2–4, 64"] * 2 + ["holes: 2–16, 25–32, 49–4096", "holes: 1–4096"]
    assert "a40 and a6000: 64.1 %" in made["agreement.svg"]
    assert "4090 and h100: 7.86 %" in made["agreement.svg"]


def test_the_data_are_those_of_the_installed_tables() -> None:
    tables = shipped_tables()
    layer = layer_from(PROBLEM.presets["cpu"].settings)
    gpus = [describe(name) for name in ("rtx-4090", "h100-sxm", "rtx-5090", "h200-sxm")]
    folder = PROBLEM.folder / PROBLEM.evidence["tables"] / "traces" / "shipped"
    data = figure_data(layer, gpus, tables)
    assert data == read_json(folder / "data.json")
    mean, low, high, winners = data["moves"]["M"]["4090"]["32"]["SPLIT_K"]
    assert mean == pytest.approx(split(tables, "4090", (32, 32)), abs=1e-3)
    assert low <= mean <= high and winners > 20
