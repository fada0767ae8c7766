"""The ways to run a program, on programs small enough to work out by hand. No torch."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.allocator_checks import check
from helpers.graph_cells import SIZES, program

from common.allocator.settings import MIB
from common.traces.memory_pools import growth_by_phase
from common.traces.memory_snapshot import read_memory_snapshot
from problems.cuda_graph_memory.cells import CAPTURING, MODES, Machine, Outcome, run_cell
from problems.cuda_graph_memory.tasks import matrix_results, size_sets, write_small_snapshot


def cell(mode: str, weight: int = 64, sizes: tuple[int, ...] = SIZES) -> Outcome:
    return run_cell(program(weight), mode, sizes, Machine(workspace_bytes=32 * MIB))


def mib(size: int) -> float:
    return size / MIB


def test_a_pool_per_graph_reserves_every_graphs_weight() -> None:
    """Each graph: 64 (weight) + 32 (workspace) + 20 (outputs up to 8 MiB), 16 for the largest."""
    found = cell("separate-pools")
    assert [mib(grown) for _, grown in found.growth_bytes] == [116, 116, 116, 112]
    assert mib(found.end.private_reserved_bytes) == 460


def test_one_pool_pays_once() -> None:
    found = cell("shared-large-first")
    assert found.sizes == (8, 4, 2, 1)
    # 64 + 32 + 16 for the output of 8. That of 4 (8 MiB) fits best into the 32 that the workspace
    # left, and the workspace then needs a segment of its own; those of 2 and 1 find room beside.
    assert [mib(grown) for _, grown in found.growth_bytes] == [112, 32, 0, 0]
    small = cell("shared-small-first")
    assert small.sizes == SIZES
    assert mib(small.growth_bytes[0][1]) == 116
    assert small.end.private_reserved_bytes >= found.end.private_reserved_bytes


def test_graph_trees_free_the_last_steps_outputs() -> None:
    """One pool, one stream; nothing is held between the steps, so less is reserved than by hand."""
    trees = cell("reduce-overhead")
    assert trees.end.private_reserved_bytes <= cell("shared-small-first").end.private_reserved_bytes
    # What is left active are the outputs of the last recording: 16 MiB.
    assert mib(trees.end.private_active_bytes) == 16


def test_without_a_weight_the_pools_hold_workspace_and_outputs() -> None:
    found = cell("separate-pools", weight=0)
    assert [mib(grown) for _, grown in found.growth_bytes] == [52, 52, 52, 48]


def test_no_mode_without_graphs_has_private_memory() -> None:
    for mode in ("eager", "compiled"):
        end = cell(mode).end
        assert (end.private_reserved_bytes, end.non_torch_bytes) == (0, 0)


def test_prefill_spikes_in_the_default_pool_beside_the_graphs() -> None:
    """Its 200 + 12 MiB are given back at the next capture and taken again while serving."""
    found = cell("separate-pools")
    by_phase = {phase.phase: phase for phase in found.phases}
    assert mib(by_phase["prefill"].default_peak_reserved_bytes) == 128 + 200 + 12 + 2
    assert by_phase["capture"].default_reserved_bytes < by_phase["prefill"].default_reserved_bytes
    assert (
        by_phase["serve"].default_peak_reserved_bytes > by_phase["capture"].default_reserved_bytes
    )
    assert found.total_bytes == (
        found.end.private_reserved_bytes
        + found.end.default_peak_reserved_bytes
        + found.end.non_torch_bytes
    )


def test_nodes_are_outside_torch_at_the_published_bytes_each() -> None:
    assert cell("separate-pools").end.non_torch_bytes == 4 * 2 * 10_000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("expandable", [False, True])
def test_growth_adds_up_and_the_allocator_stays_whole(mode: str, expandable: bool) -> None:
    found = run_cell(program(), mode, SIZES, Machine(expandable=expandable))
    check(found.allocator)
    assert sum(grown for _, grown in found.growth_bytes) == found.end.private_reserved_bytes
    assert len(found.growth_bytes) == (len(SIZES) if mode in CAPTURING else 0)


@pytest.mark.parametrize("mode", CAPTURING)
def test_the_analyser_finds_the_models_growth_in_the_file(tmp_path: Path, mode: str) -> None:
    """Model -> genuine snapshot file -> reader: the same bytes per capture."""
    found = cell(mode)
    path = tmp_path / "cell.pickle.gz"
    write_small_snapshot(path, found)
    grown: dict[int, int] = {}
    for row in growth_by_phase(read_memory_snapshot(path)):
        name, _, size = row.phase.rpartition(" ")
        if name in ("warm-up", "capture"):
            grown[int(size)] = grown.get(int(size), 0) + row.private_bytes
    assert tuple(grown.items()) == found.growth_bytes


def test_every_table_has_the_three_memories_apart() -> None:
    results = matrix_results(program(), SIZES, None)
    for name in ("matrix", "phases"):
        table = results.tables[name]
        for memory in ("(a) private pools", "(b) default, peak", "(b) default, end"):
            assert memory in table.columns
        assert "(c) non-torch" in table.columns
        assert "synthetic" in table.note
        assert all(row[-1] == "modelled" for row in table.rows)
    assert len(results.tables["matrix"].rows) == len(MODES) * 2  # 1 and 4 sizes
    assert results.figures["separate-pools_4_private"]["value"] == 460


def test_sets_of_sizes_are_nested() -> None:
    assert size_sets([8, 4, 2, 1]) == {1: (1,), 4: (1, 2, 4, 8)}
    assert size_sets(range(1, 9))[8] == tuple(range(1, 9))
