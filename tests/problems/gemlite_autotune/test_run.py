"""The second problem through the ordinary command, small; and its numbers' own check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command import run_here

from common.contract.problem import load_problem
from common.recording.run_folder import open_run
from common.report.summary import build_summary
from common.traces.formats import summarise

pytestmark = pytest.mark.slow
VARIANTS = ("shipped", "rtx-4090", "numerics", "gpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return run_here("gemlite_autotune", VARIANTS, tmp_path_factory.mktemp("run"))


def figure(summary: dict[str, Any], variant: str, name: str) -> Any:
    return summary["variants"][variant]["figures"][name]["value"]


def test_figures_are_worked_out_and_labelled(run: tuple[Path, dict[str, Any]]) -> None:
    _, summary = run
    assert summary["origin"] == "compiled"
    assert figure(summary, "shipped", "T0") == 12_676
    assert figure(summary, "rtx-4090", "compiled") == 2
    origins = {
        found["origin"]
        for variant in summary["variants"].values()
        for found in variant.get("figures", {}).values()
    }
    assert origins == {"published", "modelled", "compiled", "measured-cpu"}
    assert all(variant["phases"] == {} for variant in summary["variants"].values())


def test_claims_are_judged_only_on_the_preset_they_are_about(
    run: tuple[Path, dict[str, Any]],
) -> None:
    _, summary = run
    found = {row["claim"]: row for row in summary["claims"]}
    dead = found['figure("shipped", "dead_rows") == 100']
    assert dead["reproduced"] is True
    other = found['figure("rtx-4090", "m8_winner_blocks_per_sm") == 4']
    assert (other["reproduced"], other["reason"]) == (None, "is about preset cpu")


def test_right_kernels_pass_and_shifted_scales_are_rejected(
    run: tuple[Path, dict[str, Any]],
) -> None:
    _, summary = run
    figures = summary["variants"]["numerics"]["figures"]
    right = {name: f["value"] for name, f in figures.items() if not name.endswith("_shifted")}
    wrong = {name: f["value"] for name, f in figures.items() if name.endswith("_shifted")}
    assert len(right) == len(wrong) == 5
    assert max(right.values()) < 1e-3 < 0.1 < min(wrong.values())


def test_what_needs_a_gpu_is_listed_with_the_reason(run: tuple[Path, dict[str, Any]]) -> None:
    _, summary = run
    assert summary["variants"]["gpu"]["state"] == "not applicable"


def test_kernels_are_files_that_can_be_shown(run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = run
    files = sorted((folder / "traces" / "rtx-4090" / "kernels").glob("*.json.gz"))
    assert len(files) == 2
    assert {summarise(path)[1]["architecture"] for path in files} == {"sm_89"}


def test_the_summary_and_the_page_are_made_of_the_folder(
    run: tuple[Path, dict[str, Any]],
) -> None:
    folder, summary = run
    assert build_summary(open_run(folder)) == summary
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Figures and tables" in page and "Times and verdicts" not in page
    sealed = open_run(folder).manifest["predictions"]
    assert sealed == {s.name: s.sha256 for s in load_problem("gemlite_autotune").predictions}


def test_a_bench_does_the_static_work_and_judges_the_claims(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "common.cli", "bench", "gemlite_autotune", "--json"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--preset", "tiny", "--device", "cpu", "--variant", "shipped"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert figure(summary, "shipped", "dead_rows") == 100
    (folder,) = tmp_path.glob("gemlite_autotune/*/*")
    assert open_run(folder).finished and not (folder / "report.html").exists()
