"""Do several ranks compute what one process computes, and does a lost rank end the run clearly?

Real processes under torchrun with gloo on the loopback interface. One launch serves all cases of a
number of ranks: importing torch in each rank is most of the time.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.diff.attribution import time_in_range
from common.diff.operator_rows import cpu_operator_rows
from common.errors import UsageError
from common.traces.formats import summarise
from common.traces.torch_trace import read_torch_trace
from common.workloads.expert_launch import ParallelResult, RankFailure, run_ranks
from common.workloads.expert_rank import Request, forward_steps
from common.workloads.moe_weights import build_random_moe, moe_parameter_counts

pytestmark = pytest.mark.slow

# Batches of 5: no number of ranks here divides it. The model `tiny` has experts of width 96.
SIX, TWELVE = (6, 6), (12, 12)


def case(model: str = "tiny", batch: int = 5, **more: Any) -> Request:
    return Request(model, batch, 7, 2, **more)


CASES: dict[int, list[Request]] = {
    2: [
        case(experts=SIX, trace=True),
        case(experts=TWELVE),
        case(experts=SIX, ep_size=1),  # every expert in two slices
        case(experts=TWELVE, mp_size=2, batch=1),
        case("tiny-pyramid"),
        case("tiny-shared", mp_size=2),
    ],
    3: [
        case(experts=SIX),
        case(experts=TWELVE),
        case(experts=TWELVE, ep_size=1),
        case(experts=(2, 12), ep_size=1, beyond="replicate"),
        case(experts=SIX, per_node=1),
    ],
    4: [
        case(experts=SIX),  # 2, 2, 1 and 1 experts
        case(experts=TWELVE),
        case(experts=TWELVE, per_node=2),  # hierarchical
        case(experts=SIX, ep_size=2),  # two slices of three experts
        case(experts=TWELVE, ep_size=2, mp_size=2, per_node=2),
        case("tiny-pyramid", experts=(2, 8)),  # sliced in the first layer only
        case(experts=TWELVE, mp_size=2),
    ],
}


def single_process(request: Request) -> np.ndarray[Any, np.dtype[np.float32]]:
    model = build_random_moe(request.config(), torch.device("cpu"), request.seed)
    model.backend = "loop"
    with torch.no_grad():
        return forward_steps(model, request.tokens(), request.prompt).numpy()


def relative_error(result: ParallelResult, request: Request) -> float:
    expected = single_process(request)
    assert result.logits.shape == expected.shape
    return float(np.abs(result.logits - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("ranks", CASES)
def test_all_ranks_together_compute_the_single_process_model(ranks: int, tmp_path: Path) -> None:
    results = run_ranks(CASES[ranks], ranks, tmp_path)
    errors = [relative_error(*pair) for pair in zip(results, CASES[ranks], strict=True)]
    assert max(errors) <= 1e-6, errors
    for request, result in zip(CASES[ranks], results, strict=True):
        whole = moe_parameter_counts(request.config())["experts"]
        copies = 3 if request.beyond == "replicate" else 1
        # Each rank holds its share and nothing of the others'.
        assert sum(report.expert_weights for report in result.ranks) == copies * whole
        for report in result.ranks:
            (spent,) = report.spent_ns
            parts = {name: ns for name, ns in spent.items() if name != "total"}
            assert {"dispatch_comm", "experts", "combine_comm"} <= parts.keys()
            assert sum(parts.values()) <= spent["total"]
    for request, result in zip(CASES[ranks], results, strict=True):
        assert len(result.traces) == (ranks if request.trace else 0)
        for other in result.traces[1:]:
            check_diff(result.traces[0], other)
    tensor_sliced = [r for q, r in zip(CASES[ranks], results, strict=True) if q.mp_size > 1]
    assert all("attention_comm" in r.ranks[0].spent_ns[0] for r in tensor_sliced)


def check_diff(first: Path, other: Path) -> None:
    """Traces of two ranks can be diffed: every nanosecond is in a row, the stages are named."""
    rows, remainders = cpu_operator_rows(read_torch_trace(first), read_torch_trace(other))
    totals = [summarise(path)[1]["cpu_time_ns"] for path in (first, other)]
    assert sum(r.delta for r in (*rows, *remainders)) == totals[1] - totals[0]
    assert any("alltoall" in row.name for row in rows)
    for path in (first, other):
        spent = time_in_range(read_torch_trace(path), "layer1/experts")
        assert spent is not None


def lose_a_rank(tmp_path: Path, how: signal.Signals) -> tuple[RankFailure, float, list[int]]:
    """Send `how` to rank 1 in the second request's passes: the error, its seconds, all pids."""
    sent_at: list[float] = []
    pids: set[int] = set()

    def on_state(states: list[dict[str, Any]]) -> None:
        pids.update(state["pid"] for state in states)
        if not sent_at and len(states) == 2 and all("2: pass" in s["stage"] for s in states):
            os.kill(states[1]["pid"], how)
            sent_at.append(time.monotonic())

    endless = case(experts=SIX, repeats=100_000, timeout_s=8.0)
    with pytest.raises(RankFailure) as raised:
        run_ranks([case(experts=SIX), endless], 2, tmp_path, on_state)
    return raised.value, time.monotonic() - sent_at[0], sorted(pids)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (signal.SIGKILL, "rank 1 was killed (at: request 2: pass"),
        (signal.SIGSTOP, "rank 1 is stopped: the others waited 8 s"),
    ],
    ids=["killed", "hanging"],
)
def test_a_lost_rank_ends_the_run_within_a_minute_and_is_named(
    tmp_path: Path, how: signal.Signals, says: str
) -> None:
    error, seconds, pids = lose_a_rank(tmp_path, how)
    message = str(error)
    assert message.startswith(says)
    assert "\n" not in message
    assert seconds < 60
    assert len(pids) == 2
    (kept,) = error.finished  # what was finished before is not lost
    assert relative_error(kept, case(experts=SIX)) <= 1e-6
    deadline = time.monotonic() + 5
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(lives, pids)), "no process is left behind"


def lives(pid: int) -> bool:
    """Not when it is dead and only its new parent, which is not ours, has not yet asked for it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (case(batch=1), "batch of at least 2"),
        (case(batch=0), "batch is 0"),
        (Request("tiny", 2, 0, 1), "prompt is 0"),
        (case(experts=(1, 1)), "choose top_k"),
        (case(mp_size=3), "mp_size 3 must divide"),
        (case(ep_size=9), "choose from 1 to 2"),
    ],
)
def test_what_cannot_run_is_refused_before_any_process_starts(
    request_: Request, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=says):
        run_ranks([request_], 2, tmp_path)
    assert not list(tmp_path.iterdir())
