"""The third problem through the ordinary command, small; what its variants wrote, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.command import run_here

from common.recording.run_folder import open_run
from common.report.summary import build_summary
from common.traces.formats import summarise

pytestmark = pytest.mark.slow
VARIANTS = ("int8wo", "stack", "plan", "gpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return run_here("cuda_graph_memory", VARIANTS, tmp_path_factory.mktemp("run"))


def figure(summary: dict[str, Any], variant: str, name: str) -> Any:
    return summary["variants"][variant]["figures"][name]["value"]


def test_the_run_is_modelled_and_every_figure_says_what_it_is(
    run: tuple[Path, dict[str, Any]],
) -> None:
    _, summary = run
    assert summary["origin"] == "modelled"
    origins = {
        found["origin"]
        for variant in summary["variants"].values()
        for found in variant.get("figures", {}).values()
    }
    assert origins == {"modelled", "compiled", "measured-cpu"}
    assert summary["variants"]["gpu"]["state"] == "not applicable"


def test_the_notes_figures_are_met(run: tuple[Path, dict[str, Any]]) -> None:
    _, summary = run
    found = {
        (how, which): figure(summary, "stack", f"{how}_{which}_7")
        for how in ("streamed", "hoisted")
        for which in ("separate", "shared")
    }
    assert list(found.values()) == [462, 66, 2030, 290]
    assert figure(summary, "plan", "chosen_6_measured") == 1088
    assert figure(summary, "plan", "first_6_measured") == 1024 * 6 + 32
    assert figure(summary, "plan", "first_6_off") == figure(summary, "plan", "chosen_6_off") == 0


def test_what_inductor_compiled_makes_one_weight_and_reuses_it(
    run: tuple[Path, dict[str, Any]],
) -> None:
    """The largest weight of the tiny model, its head, is 2 MiB in bf16."""
    _, summary = run
    assert figure(summary, "int8wo", "largest_weight") == 2
    compiled = figure(summary, "int8wo", "compiled_peak_8")
    assert 2 <= compiled < 4 <= figure(summary, "int8wo", "eager_peak_8")
    assert figure(summary, "int8wo", "graph_nodes_8") < 40
    assert figure(summary, "bf16", "compiled_peak_8") < 2


def test_the_files_are_snapshots_with_pools_and_growth(run: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = run
    path = folder / "traces" / "int8wo" / "separate-pools.pickle.gz"
    _, shown = summarise(path)
    assert shown["warnings"] == []
    assert shown["private_pool_reserved_bytes"] == pytest.approx(
        figure(summary, "int8wo", "separate-pools_4_private") * (1 << 20)
    )
    grown = [row["private_bytes"] for row in shown["growth"] if row["phase"].startswith("capture")]
    assert len(grown) == 4 and min(grown) > 0
    assert "/" not in shown["path"]


def test_the_summary_is_made_of_the_folder(run: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = run
    assert build_summary(open_run(folder)) == summary
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "(a) private pools" in page
