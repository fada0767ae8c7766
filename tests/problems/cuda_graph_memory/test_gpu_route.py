"""The route on a GPU as far as it goes without one: files as a GPU writes them, from the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.graph_cells import SIZES, program

from common.allocator.settings import MIB
from common.allocator.snapshot_file import write_snapshot
from problems.cuda_graph_memory.cells import CAPTURING, MODES, Machine, run_cell
from problems.cuda_graph_memory.gpu_route import (
    KINDS,
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
    assert len(cells(PRESET)) == len(KINDS) * len(MODES)
    assert len({cell.text for cell in cells({**PRESET, "gpu_sizes": [1, 4]})}) == 48


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
    assert len(table.rows) == len(KINDS) * len(MODES) - 1
    assert results[0].figures["model_exact_percent"]["value"] == pytest.approx(100)


def test_a_cell_that_fails_is_named_and_leaves_no_figures(results: tuple[Any, Path]) -> None:
    rows = [row for row in results[0].tables["phases"].rows if row[0] == "float8wo_eager_4"]
    assert [row[1] for row in rows] == ["failed: float8wo_eager_4: out of memory"]
    assert not any(name.startswith("float8wo_eager") for name in results[0].figures)


def test_small_recordings_are_kept(results: tuple[Any, Path]) -> None:
    files = sorted(path.name for path in results[1].glob("*.pickle.gz"))
    assert len(files) == len(CAPTURING) and all(name.startswith("int8wo_") for name in files)
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
