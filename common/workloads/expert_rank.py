"""What does one rank of an expert-parallel run do? Started by torchrun, once per rank.

    torchrun --standalone --nproc-per-node 2 -m common.workloads.expert_rank REQUESTS.json

For each request: builds its part of the model and runs prefill and decode `repeats` times over its
own sequences. Writes beside the requests: `rank<r>.json` (state, stage, times), rewritten as it
goes, and of request i `rank<r>-<i>.npz` (logits of its sequences) and `rank<r>-<i>.json` (its
times). A rank that loses the others says so in its state and ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from common.errors import UsageError, WorklogError
from common.recording.profilers import record_trace
from common.recording.ranges import named_range
from common.workloads.expert_groups import Beyond, ParallelPlan, parallel_plan
from common.workloads.expert_parallel import Breakdown, build_parallel
from common.workloads.moe import SimpleMoETransformer
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_weights import named_config


@dataclasses.dataclass(frozen=True)
class Request:
    """One expert-parallel run. `experts` replaces the model's expert counts, one per layer."""

    model: str
    batch: int
    prompt: int
    decode_steps: int
    experts: tuple[int, ...] | None = None
    layers: int | None = None
    ep_size: int | None = None
    mp_size: int = 1
    beyond: Beyond = "slice"
    per_node: int | None = None
    repeats: int = 1
    seed: int = 0
    timeout_s: float = 20.0
    # One more pass under the profiler, after the timed ones: `rank<r>-<i>.trace.json.gz`.
    trace: bool = False

    def config(self) -> MoeConfig:
        config = named_config(self.model, self.layers)
        if self.experts is not None:
            config = dataclasses.replace(config, experts=tuple(self.experts))
        return config.with_cache_length(max(1, self.prompt + self.decode_steps))

    def tokens(self) -> torch.Tensor:
        """(batch, prompt + decode_steps), the same on every rank: decoding is teacher-forced."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        shape = (self.batch, self.prompt + self.decode_steps)
        return torch.randint(self.config().vocab, shape, generator=generator)

    def check(self, ranks: int) -> None:
        """UsageError for what cannot run, before any process is started."""
        for name in ("batch", "prompt", "repeats"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; choose 1 or more")
        if self.decode_steps < 0 or not self.timeout_s > 0:
            raise UsageError("decode_steps and timeout_s must not be below zero; choose others")
        self.plan(ranks).rows(self.batch, 0)

    def plan(self, ranks: int) -> ParallelPlan:
        return parallel_plan(
            self.config(),
            ranks,
            ep_size=self.ep_size,
            mp_size=self.mp_size,
            beyond=self.beyond,
            per_node=self.per_node,
        )


def read_requests(path: Path) -> list[Request]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        if row["experts"] is not None:
            row["experts"] = tuple(row["experts"])
    return [Request(**row) for row in rows]


def forward_steps(model: SimpleMoETransformer, tokens: torch.Tensor, prompt: int) -> torch.Tensor:
    """Logits (batch, 1 + steps, vocab): after the prompt, and after each forced token."""
    logits = [model(tokens[:, :prompt], last_only=True)]
    logits += [model(tokens[:, at : at + 1], at) for at in range(prompt, tokens.shape[1])]
    return torch.cat(logits, 1)


class State:
    """`rank<r>.json`: what this rank is doing, replaced whole at each change."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.path, self.kept = folder / f"rank{rank}.json", {"rank": rank, "pid": os.getpid()}
        self.stage = "starting"

    def write(self, state: str, stage: str, **more: Any) -> None:
        self.stage = stage
        part = self.path.with_suffix(".part")
        document = {**self.kept, "state": state, "stage": stage, "at": time.time(), **more}
        part.write_text(json.dumps(document), encoding="utf-8")
        part.replace(self.path)


def run(requests: list[Request], folder: Path, rank: int, ranks: int, state: State) -> None:
    state.write("running", "meeting the other ranks")
    patience = timedelta(seconds=min(request.timeout_s for request in requests))
    dist.init_process_group("gloo", timeout=patience)
    for index, request in enumerate(requests):
        run_one(request, index, folder, rank, ranks, state)
    dist.barrier()
    dist.destroy_process_group()
    state.write("done", "finished")


def run_one(
    request: Request, index: int, folder: Path, rank: int, ranks: int, state: State
) -> None:
    """One request. Its files are written before the next begins: what is measured is kept."""
    name = f"request {index + 1}"
    state.write("running", f"{name}: building the model")
    plan, breakdown = request.plan(ranks), Breakdown()
    patience = timedelta(seconds=request.timeout_s)
    model = build_parallel(request.config(), plan, rank, breakdown, patience, request.seed)
    held = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    rows = plan.rows(request.batch, rank)
    tokens = request.tokens()[rows.start : rows.stop]
    spent = []
    logits = torch.empty(0)
    for repeat in range(request.repeats):
        state.write("running", f"{name}: pass {repeat + 1} of {request.repeats}")
        breakdown.spent_ns.clear()
        dist.barrier()
        started = time.perf_counter_ns()
        logits = forward_steps(model, tokens, request.prompt)
        spent.append({"total": time.perf_counter_ns() - started, **breakdown.spent_ns})
    if request.trace:
        state.write("running", f"{name}: profiled pass")
        model.stage = named_range
        dist.barrier()

        def work() -> None:
            forward_steps(model, tokens, request.prompt)

        record_trace(folder / f"rank{rank}-{index}.trace.json.gz", torch.device("cpu"), work)
    np.savez(folder / f"rank{rank}-{index}.npz", rows=np.array([*rows]), logits=logits.numpy())
    report = {"rank": rank, "spent_ns": spent, "expert_weights": held}
    part = folder / f"rank{rank}-{index}.part"
    part.write_text(json.dumps(report), encoding="utf-8")
    part.replace(part.with_suffix(".json"))


@torch.no_grad()
def main() -> int:
    path = Path(sys.argv[1])
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    state = State(path.parent, rank)
    try:
        run(read_requests(path), path.parent, rank, ranks, state)
    except WorklogError as error:
        state.write("failed", "checking the request", error=str(error), exit_code=error.exit_code)
        return error.exit_code
    except Exception as error:  # torch.distributed raises several when a peer is gone
        traceback.print_exc()  # into torchrun's log
        sys.stderr.flush()
        first = (str(error).splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first[:300]}"
        state.write("failed", state.stage, error=reason, exit_code=1)
        # Tear nothing down: closing the connections could wait for the lost peer again.
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
