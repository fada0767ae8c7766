"""Is the analysis of every worklog made again from its recordings, without torch and in time?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest
from helpers.command import assert_one_line_error, worklog

from common.contract.predictions import PredictionSet
from common.contract.problem import load_problem, problem_names
from common.pages.blocks import blocks_of
from common.pages.calibration import (
    HIT,
    MISS,
    OPEN,
    Outcome,
    ScoredSet,
    by_kind_table,
    by_set_table,
    scored_sets,
    wilson,
)
from common.recording.run_folder import read_json

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 30.0
# As on a laptop without them: importing torch fails, and no GPU tool is called.
WITHOUT_TORCH = """
import sys
for name in ("torch", "triton", "torchao", "gemlite", "matplotlib"):
    sys.modules[name] = None
from common.cli import main
code = main(sys.argv[1:])
assert not any(name.split(".")[0] == "pandas" for name in sys.modules)
sys.exit(code)
"""


def replay(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_TORCH, "replay", *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "WORKLOG_ROOT": str(root),
             "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("name", problem_names())
def test_a_worklog_is_replayed_without_torch(name: str) -> None:
    before = getrusage(RUSAGE_CHILDREN)
    done = replay(CHECKOUT, name)
    after = getrusage(RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert after.ru_utime - before.ru_utime < LIMIT_SECONDS
    page = (CHECKOUT / "problems" / name / "WORKLOG.md").read_text(encoding="utf-8")
    bodies = [match["body"].strip() for match in blocks_of(page)]
    assert bodies and all(body in done.stdout for body in bodies)
    lines = done.stdout.splitlines()
    assert "## Judged anew" in lines
    problem = load_problem(name)
    summaries = [read_json(problem.folder / e / "summary.json") for e in problem.evidence.values()]
    judged = [claim["reproduced"] for summary in summaries for claim in summary["claims"]]
    says_no = judged.count(False)  # a run of an older claim may have said no: it is shown as it was
    assert any(line.startswith("claims: ") and f" {says_no} not," in line for line in lines)


def test_a_changed_recording_gives_findings_and_exit_code_1(tmp_path: Path) -> None:
    name = "float8_weight_only"
    shutil.copytree(CHECKOUT / "problems" / name, tmp_path / "problems" / name)
    samples = tmp_path / "problems" / name / load_problem(name).evidence["cpu"] / "samples.jsonl"
    lines = samples.read_text().splitlines()
    changed = json.loads(lines[5])
    changed["duration_ns"] *= 50
    samples.write_text("\n".join([*lines[:5], json.dumps(changed), *lines[6:]]) + "\n")
    done = replay(tmp_path, name)
    assert done.returncode == 1
    assert "summary.json is not what its data give" in done.stderr


def test_one_json_document() -> None:
    done = replay(CHECKOUT, "float8_weight_only", "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == "worklog.replay/1"
    assert set(document["evidence"]) >= {"cpu"}
    assert any(part["head"].startswith("verdicts") for part in document["parts"])
    scored = {found["set"]: found["results"] for found in document["predictions"]}
    assert set(scored["cpu-2026-11"].values()) <= {"hit", "miss", "undecided", "open"}


def test_what_cannot_be_replayed_is_said_in_one_line(tmp_path: Path) -> None:
    assert "no problem 'nothing'" in assert_one_line_error(
        worklog(CHECKOUT, "replay", "nothing"), 2
    )


def outcome(result: str, low: float = 1.0, high: float = 2.0) -> Outcome:
    from common.contract.claims import Call
    from common.contract.predictions import Prediction

    call = Call("ratio", ("a", "b", "c"))
    return Outcome("p", Prediction(f"P-{result}", call, low, high, ""), result)


def test_calibration_counts_what_was_sealed_and_shows_the_rest() -> None:
    sets = PredictionSet("s", ("cpu-",), "cpu", "2026-01-01", "", (), "0")
    results = [outcome(HIT), outcome(HIT), outcome(MISS, 1, 8), outcome(OPEN)]
    sealed = ScoredSet("p", sets, "sealed", tuple(results))
    late = ScoredSet("p", sets, "retrospective", tuple([outcome(HIT)] * 5))
    rows = by_set_table((sealed, late)).rows
    assert rows[0][3:] == ("sealed", "4", "2", "1", "0", "1", "66.7 % (21 … 94 %)", "× 2")
    assert rows[1][3] == "retrospective"
    assert rows[-1][4:8] == ("4", "2", "1", "0")  # the retrospective ones do not count
    kinds = by_kind_table((sealed, late))
    assert kinds.rows[0][:3] == ("`ratio`", "4", "2")
    assert "p P-miss" in kinds.note


def test_wilsons_interval() -> None:
    # Brown, Cai and DasGupta 2001: 10 of 10 is no certainty; symmetric at one half.
    assert wilson(0, 0) is None
    low, high = wilson(10, 10) or (0.0, 0.0)
    assert high == 1.0 and abs(low - 0.7225) < 1e-4
    low, high = wilson(5, 10) or (0.0, 0.0)
    assert abs(low + high - 1) < 1e-12 and abs(low - 0.2366) < 1e-4


def test_the_real_predictions_are_scored() -> None:
    found = {(s.problem, s.sets.name): s for s in scored_sets()}
    cpu = found["float8_weight_only", "cpu-2026-11"]
    assert cpu.state == "sealed" and cpu.count(OPEN) == 0 and cpu.count(HIT) >= 10
    assert found["float8_weight_only", "h200-8b-2026-11"].state == "open"
