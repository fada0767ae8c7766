"""The route on a GPU as far as it goes without one: files as a GPU writes them, from the model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.graph_cells import SIZES, program

from common.allocator.settings import MIB
from common.allocator.snapshot_file import write_snapshot
from common.contract.problem import load_problem
from problems.cuda_graph_memory.cells import CAPTURING, MODES, Machine, run_cell
from problems.cuda_graph_memory.gpu_route import (
    KINDS,
    KNOBS,
    CellFailed,
    CellName,
    cells,
    gpu_task,
    nsys_of_cell,
    run_in_process,
)

PRESET: Mapping[str, Any] = {
    "model": "tiny", "layers": 1, "prompt_tokens": 4, "sizes": list(SIZES), "gpu_sizes": [4],
}  # fmt: skip
CONTEXT = 500 * MIB


def modelled(cell: CellName, preset: Mapping[str, Any], snapshot: Path) -> Mapping[str, Any]:
    """Writes what a GPU would: a snapshot without pool ids in its history, as torch 2.11."""
    if cell.kind == "float8wo" and cell.mode == "eager":
        raise CellFailed("float8wo_eager_4: out of memory")
    found = run_cell(program(), cell.mode, cell.sizes, Machine())
    write_snapshot(snapshot, found.allocator, trace_pool_ids=False)
    total, private, phases = 80 << 30, 0, []
    names = ["load", "prefill"]
    if cell.mode in CAPTURING:
        names += [f"{what} {size}" for size in found.sizes for what in ("warm-up", "capture")]
    by_size = dict(found.growth_bytes)
    trees = cell.mode == "reduce-overhead"
    for name in [*names, "serve"]:
        if name.startswith("warm-up" if trees else "capture"):
            private += by_size[int(name.split()[1])]
        reserved = 1000 * MIB + private
        graphs = 7 * MIB if name == "serve" else 0
        phases.append(
            {
                "phase": name,
                "total_bytes": total,
                "free_bytes": total - reserved - CONTEXT - graphs,
                "reserved_bytes": reserved,
                "peak_reserved_bytes": reserved + 3 * MIB,
            }
        )
    return {"phases": phases, "steps_per_s": {1: 100.0}, "torch": "2.13.0", "gpu": "a model"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("gpu")
    return gpu_task(PRESET, folder, lambda text, done: None, modelled), folder


def test_every_cell_is_one_process_of_its_own() -> None:
    assert len(cells(PRESET)) == len(KINDS) * len(MODES) + len(KNOBS)
    assert len({cell.text for cell in cells({**PRESET, "gpu_sizes": [1, 4]})}) == 48 + len(KNOBS)


def test_each_knob_is_turned_in_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reaches the process: the environment before torch is imported, Inductor's setting."""
    seen: dict[str, tuple[Mapping[str, str], Mapping[str, Any]]] = {}

    def started(command: Any, **given: Any) -> Any:
        seen[Path(command[-1]).stem] = given["env"], json.loads(given["input"])
        return subprocess.CompletedProcess(command, 0, '{"phases": []}\n', "")

    monkeypatch.setattr(subprocess, "run", started)
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for cell in cells(PRESET):
        run_in_process(cell, PRESET, tmp_path / f"{cell.text}.pickle")
    environment, given = seen["int8wo_separate-pools_4"]
    assert "PYTORCH_CUDA_ALLOC_CONF" not in environment and not given["inductor"]
    environment, given = seen["int8wo_separate-pools_4_expandable"]
    assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert seen["bf16_separate-pools_4_workspace"][0]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:2:16:8"
    assert seen["int8wo_separate-pools_2_fewer-sizes"][1]["sizes"] == list(SIZES[::2])
    assert seen["int8wo_compiled_4_freezing"][1]["inductor"] == {"freezing": True}


def test_every_predicted_figure_is_one_that_a_gpu_run_gives() -> None:
    """A prediction about a cell that nobody records could never be scored."""
    problem = load_problem("cuda_graph_memory")
    names = {cell.text for cell in cells(problem.presets["cpu"].settings)}
    predicted = [p.quantity.arguments[1] for one in problem.predictions for p in one.predictions]
    for figure in set(predicted) - {"model_exact_percent"}:
        assert any(figure.startswith(f"{name}_") for name in names), figure
    assert all(any(f"_{knob}_" in figure for figure in predicted) for knob in KNOBS)


def test_the_three_memories_come_from_file_and_driver(results: tuple[Any, Path]) -> None:
    figures = results[0].figures
    truth = run_cell(program(), "separate-pools", SIZES).end.private_reserved_bytes / MIB
    name = "int8wo_separate-pools_4"
    assert figures[f"{name}_private"]["value"] == pytest.approx(truth)
    assert figures[f"{name}_default_end"]["value"] == pytest.approx(1000)
    assert figures[f"{name}_default_peak"]["value"] == pytest.approx(1003)
    # The context was there after loading: only what came later is the graphs'.
    assert figures[f"{name}_non_torch"]["value"] == pytest.approx(7)
    assert figures[f"{name}_1_steps_per_s"]["value"] == 100
    assert {found["origin"] for found in figures.values()} == {"measured-gpu"}


def test_growth_after_the_first_capture_is_the_models(results: tuple[Any, Path]) -> None:
    for mode in CAPTURING:
        grown = run_cell(program(), mode, SIZES).growth_bytes
        expected = sum(size for _, size in grown[1:]) / MIB
        found = results[0].figures[f"int8wo_{mode}_4_growth_after_first"]["value"]
        assert found == pytest.approx(expected)


def test_the_model_is_checked_against_every_recording(results: tuple[Any, Path]) -> None:
    table = results[0].tables["model"]
    assert len(table.rows) == len(KINDS) * len(MODES) + len(KNOBS) - 1
    assert results[0].figures["model_exact_percent"]["value"] == pytest.approx(100)


def test_a_cell_that_fails_is_named_and_leaves_no_figures(results: tuple[Any, Path]) -> None:
    rows = [row for row in results[0].tables["phases"].rows if row[0] == "float8wo_eager_4"]
    assert [row[1] for row in rows] == ["failed: float8wo_eager_4: out of memory"]
    assert not any(name.startswith("float8wo_eager") for name in results[0].figures)


def test_small_recordings_are_kept(results: tuple[Any, Path]) -> None:
    files = sorted(path.name for path in results[1].glob("*.pickle.gz"))
    knobs = sum(knob.kind == "int8wo" and knob.mode in CAPTURING for knob in KNOBS.values())
    assert len(files) == len(CAPTURING) + knobs and all(
        name.startswith("int8wo_") for name in files
    )
    assert all(path.stat().st_size < 1 << 20 for path in results[1].iterdir())


def test_nsys_records_memory_usage_and_nodes() -> None:
    line = nsys_of_cell(CellName("int8wo", "separate-pools", SIZES), ("python", "x"), Path("out"))
    text = " ".join(line)
    assert "--cuda-memory-usage" in text and "true" in text
    assert "--cuda-graph-trace" in text and "node" in text
    assert line[-2:] == ("python", "x")


def test_without_a_gpu_the_cell_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real child process, as far as it gets where no GPU is seen."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(CellFailed, match="int8wo_eager_1: .*CUDA"):
        run_in_process(CellName("int8wo", "eager", (1,)), PRESET, tmp_path / "a.pickle")
