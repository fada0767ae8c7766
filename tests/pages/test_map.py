"""Is the map of bottlenecks a reference? Its rows, and every name in it against real files."""

from __future__ import annotations

import gzip
import re
import sqlite3
from pathlib import Path

import pytest

from common.traces.formats import open_any, open_trace

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "problems" / "README.md").read_text(encoding="utf-8")
LEVELS = (
    "Serving and batching", "Several GPUs", "One GPU, coarse: it waits", "One GPU, fine: memory",
    "Cluster of blocks (several SMs)", "Block (one SM)", "Warp scheduler", "Warp",
    "Thread: which unit does the work",
)  # fmt: skip
COLUMNS = ("bottleneck", "torch.profiler", "Nsight Systems", "Nsight Compute", "here")
NAME = re.compile(r"`([^`]+)`(†?)")
METRIC = re.compile(r"[a-z0-9_]+__[a-z0-9_.]+|[a-z]+__[a-z_]+:[a-z_.]+")
# The smaller traces; together they hold every name that the map takes from traces.
TRACES = (
    "switch_4batch", "b200_eager", "leimao_without_make_graphed", "qwen_h100", "hta_alexnet",
    "particle_fwd_bs16", "owlv2_h100",
)  # fmt: skip
KINDS = ("measured-gpu", "measured-cpu", "compiled", "modelled", "published")


def rows() -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for level in LEVELS:
        body = PAGE.split(f"\n### {level}\n")[1].split("\n#")[0]
        lines = [line for line in body.splitlines() if line.startswith("| ")]
        table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert tuple(table[0]) == COLUMNS, level
        found[level] = table[1:]
    return found


def names(column: str, *levels: str) -> list[tuple[str, bool]]:
    """(name in backticks, whether it has a †) of one column."""
    at = COLUMNS.index(column)
    cells = [row[at] for level in levels or LEVELS for row in rows()[level]]
    return [(match[1], bool(match[2])) for cell in cells for match in NAME.finditer(cell)]


def test_it_goes_from_top_to_bottom_and_leaves_no_cell_empty() -> None:
    places = [PAGE.index(f"\n### {level}\n") for level in LEVELS]
    assert places == sorted(places)
    table = rows()
    assert sum(map(len, table.values())) >= 45 and all(len(r) >= 3 for r in table.values())
    for level, found in table.items():
        for row in found:
            assert len(row) == len(COLUMNS) and all(row), (level, row)
            # Somewhere it can be seen, and where it is shown here, the kind of numbers is said.
            assert any("`" in cell or "visible" not in cell for cell in row[1:4]), row
            if "](" in row[4]:
                assert row[4].startswith(KINDS) or "worklog diff" in row[4], row
            else:
                assert re.match(r"not demonstrated|a real report|as above|`worklog", row[4]), row


def test_every_metric_is_one_of_nsight_computes(real_data: Path) -> None:
    known: set[str] = set()
    for path in sorted((real_data / "ncu").iterdir()):
        for launch in open_any(path)[1].launches:
            known.update(launch.metrics)
    metrics = [(n, mark) for n, mark in names("Nsight Compute") if METRIC.fullmatch(n)]
    assert len({name for name, _ in metrics}) >= 45
    wrong = [name for name, mark in metrics if (name in known) == mark]
    assert wrong == []


def test_every_table_and_column_is_one_of_nsight_systems(real_data: Path, tmp_path: Path) -> None:
    known: set[str] = set()
    for name in ("lm_2_7B_clean", "h100_2gpu_1s", "mfu_2gpu_before", "small_opt", "saxpy_mpi_2022"):
        path = tmp_path / f"{name}.sqlite"
        path.write_bytes(gzip.decompress((real_data / "nsys" / f"{name}.sqlite.gz").read_bytes()))
        with sqlite3.connect(path) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'"):
                known.add(table)
                known.update(row[1] for row in database.execute(f'PRAGMA table_info("{table}")'))
    asked = [
        (name, mark)
        for name, mark in names("Nsight Systems")
        if re.fullmatch(r"(CUPTI|CUDA|NVTX|OSRT)_[A-Z_]+|[a-z]+[A-Z]\w+", name)
    ]
    assert len(asked) >= 10
    assert [name for name, mark in asked if (name in known) == mark] == []


def test_every_name_of_a_trace_is_in_one(real_data: Path) -> None:
    known: set[str] = set()
    for name in TRACES:
        known.update(open_trace(real_data / "torch" / f"{name}.json.gz").names)
    recorded = CHECKOUT / "problems" / "float8_weight_only" / "recorded"
    for path in recorded.glob("*/*/traces/float8wo-0.13.0/trace.json.gz"):
        known.update(open_trace(path).names)
    asked = [
        (name, mark)
        for name, mark in names("torch.profiler")
        if re.match(r"\w+::\w|cuda[A-Z]|Memcpy|TorchDynamo", name)
    ]
    assert len(asked) >= 12
    absent = [n for n, mark in asked if any(k.startswith(n) for k in known) == mark]
    assert absent == []


@pytest.mark.parametrize("command", ["detect", "show", "diff", "new", "run", "check"])
def test_its_commands_exist(command: str) -> None:
    from common.cli import build_parser

    assert f".venv/bin/worklog {command} " in PAGE
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
