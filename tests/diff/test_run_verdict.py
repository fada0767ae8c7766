"""Is the verdict on two variants of runs that of their samples, and withheld where it must be?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import MACHINE, change_json, write_run
from helpers.trace_files import document, event

from common.diff.difference import Confidence, Judgement
from common.diff.sides import open_side
from common.diff.verdict import judge_traces

RECORDED = Path(__file__).parents[2] / "problems/float8_weight_only/recorded"


def run(
    parent: Path, durations: Mapping[str, Mapping[str, Sequence[int]]], **manifest: Any
) -> Path:
    """A run whose variants' traces tell the opposite of the samples: they must not decide."""
    folder = write_run(parent, durations, **manifest)
    for number, name in enumerate(durations):
        path = folder / "traces" / name / "trace.json.gz"
        path.parent.mkdir(parents=True)
        path.write_text(document(event("cpu_op", "aten::mm", "0", f"{1000 / (number + 1)}")))
    return folder


def judged(a: str, b: str) -> Judgement:
    found = judge_traces(open_side(a), open_side(b))
    json.dumps(found.to_json(), allow_nan=False)
    return found


def said(found: Judgement, *words: str) -> bool:
    return any(all(word in reason for word in words) for reason in found.reasons)


def drifting(factor: float, rounds: int = 15) -> list[int]:
    """What doubles over the run, on both sides alike."""
    return [int(1_000_000 * factor * (1 + i / rounds)) for i in range(rounds)]


def test_interleaved_samples_are_paired_by_round(tmp_path: Path) -> None:
    sides = {"plain": {"step": drifting(1)}, "slow": {"step": drifting(1.1)}}
    folder = run(tmp_path, sides)
    found = judged(f"{folder}#plain", f"{folder}#slow")
    assert (found.verdict, found.confidence) == ("SLOWER", Confidence.INTERVAL)
    assert found.ratio == pytest.approx(1.1, rel=1e-4) and found.interval is not None
    assert found.interval[1] - found.interval[0] < 0.001
    assert found.judged_on == "step: interleaved samples of one run"
    assert found.evidence["phases"]["step"]["paired"] is True
    assert found.evidence["span_ns"]["ratio"] == pytest.approx(0.5)  # of the traces
    assert not said(found, "under a profiler")


def test_samples_of_two_runs_or_taken_in_turn_are_not_paired(tmp_path: Path) -> None:
    sides = {"plain": {"step": drifting(1)}, "slow": {"step": drifting(1.1)}}
    one, two = run(tmp_path / "1", sides), run(tmp_path / "2", sides)
    apart = run(tmp_path / "3", sides, sampling={"interleaved": False})
    for a, b, words in (
        (f"{one}#plain", f"{two}#slow", "measured in two runs"),
        (f"{apart}#plain", f"{apart}#slow", "one after the other"),
    ):
        found = judged(a, b)
        assert found.verdict == "AMBIGUOUS" and said(found, words)
        assert found.evidence["phases"]["step"]["paired"] is False
    assert judged(f"{one}#plain", f"{two}#plain").verdict == "SAME"  # equal traces, too


def test_fewer_than_ten_rounds_need_a_large_difference(tmp_path: Path) -> None:
    for factor, verdict in ((1.2, "AMBIGUOUS"), (3.0, "SLOWER")):
        sides = {"plain": {"step": drifting(1, 5)}, "slow": {"step": drifting(factor, 5)}}
        folder = run(tmp_path / str(factor), sides)
        found = judged(f"{folder}#plain", f"{folder}#slow")
        assert (found.verdict, found.confidence) == (verdict, Confidence.SINGLE)
        assert said(found, "5 rounds measured, a verdict needs 10")


def test_the_phase_of_units_decides_and_one_that_disagrees_is_said(tmp_path: Path) -> None:
    sides = {
        "plain": {"fill": drifting(1), "step": drifting(1)},
        "other": {"fill": drifting(2), "step": drifting(0.8)},
    }
    folder = run(tmp_path, sides)
    found = judged(f"{folder}#plain", f"{folder}#other")
    assert found.verdict == "FASTER" and found.evidence["phase"] == "step"
    assert said(found, "fill points the other way", "2×", "0.8×")
    assert found.evidence["phases"]["fill"]["verdict"] == "SLOWER"
    assert found.evidence["phases"]["step"]["median_a_ns"] == pytest.approx(
        float(np.median(drifting(1))) / 4
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"problem": "other"}, "not the same problem: spin in A, other in B"),
        ({"machine": {**MACHINE, "cpu": "Another CPU"}}, "not the same machine (CPU): A CPU in A"),
        ({"machine": {**MACHINE, "usable_cpus": 8}}, "not the same machine (usable CPUs)"),
        ({"preset": {"name": "large", "settings": {"steps": 4}}}, "not the same preset: small"),
        ({"preset": {"name": "small", "settings": {"steps": 8}}}, "not the same settings"),
        ({"facts": {"plain": {"parameters": {"total": 7}}}}, None),  # unknown in the other
        ({"facts": {"plain": {"torch": "3.0"}}}, None),
        ({"revision": "another"}, None),
        ({"machine": {**MACHINE, "cpu": None}}, None),
    ],
)
def test_only_machine_problem_and_workload_make_runs_incomparable(
    tmp_path: Path, change: dict[str, Any], says: str | None
) -> None:
    sides = {"plain": {"step": drifting(1)}, "slow": {"step": drifting(16)}}
    one, two = run(tmp_path / "1", sides), run(tmp_path / "2", sides)
    change_json(two / "manifest.json", **change)
    found = judged(f"{one}#plain", f"{two}#slow")
    if says is None:
        assert found.verdict == "SLOWER"
        assert judged(f"{two}#slow", f"{one}#plain").verdict == "FASTER"
    else:
        assert found.verdict == "NOT_COMPARABLE" and found.reasons[0].startswith(says)
        assert found.evidence["if_comparable"]["verdict"] == "SLOWER"
        assert found.evidence["phases"]["step"]["ratio"] == found.ratio


def test_gpus_of_manifests_are_compared_where_a_gpu_was_measured(tmp_path: Path) -> None:
    sides = {"plain": {"step": drifting(1)}}
    for kind, verdict in (("cuda", "NOT_COMPARABLE"), ("cpu", "SAME")):
        folders = [
            run(tmp_path / kind / gpu, sides, device={"kind": kind},
                machine={**MACHINE, "gpus": [{"name": gpu}]})
            for gpu in ("NVIDIA H200", "NVIDIA A100")
        ]  # fmt: skip
        assert judged(*(str(folder) for folder in folders)).verdict == verdict


def test_a_variant_beside_a_plain_trace_is_judged_by_the_traces(tmp_path: Path) -> None:
    folder = run(tmp_path, {"plain": {"step": drifting(1)}, "slow": {"step": drifting(2)}})
    plain = folder / "traces" / "plain" / "trace.json.gz"
    found = judged(str(plain), f"{folder}#slow")
    assert (found.verdict, found.judged_on) == ("FASTER", "span")
    assert judged(str(plain), f"{folder}#plain").verdict == "SAME"


def test_the_recorded_float8_runs(tmp_path: Path) -> None:
    (source,) = RECORDED.glob("*/20261120T222401Z-*")
    slow, fixed = f"{source}#float8wo-0.13.0", f"{source}#float8wo-0.14.1"
    found = judged(slow, fixed)
    assert (found.verdict, found.confidence) == ("FASTER", Confidence.INTERVAL)
    assert found.evidence["phase"] == "decode" and found.interval is not None
    # The medians stand in the run's summary, computed by the report.
    variants = json.loads((source / "summary.json").read_text())["variants"]
    for side, name in (("a", "float8wo-0.13.0"), ("b", "float8wo-0.14.1")):
        for phase in ("prefill", "decode"):
            ours = found.evidence["phases"][phase][f"median_{side}_ns"]
            assert ours == pytest.approx(variants[name]["phases"][phase]["median_ns"], rel=1e-5)
    assert found.interval[0] < found.ratio < found.interval[1] < 0.1
    assert judged(slow, slow).verdict == "SAME"
    copy = shutil.copytree(source, tmp_path / "copy")
    assert judged(slow, f"{copy}#float8wo-0.13.0").verdict == "SAME"
    (other,) = RECORDED.glob("*/20261120T222736Z-*")
    assert judged(slow, f"{other}#float8wo-0.13.0").verdict == "AMBIGUOUS"  # a rerun
    mixed = judged(f"{source}#bf16", f"{source}#int8wo-0.18.0")
    assert mixed.verdict == "FASTER" and said(mixed, "prefill points the other way")
