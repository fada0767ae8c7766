"""How do latency and throughput of a mixture of experts depend on the batch?

    .venv/bin/python problems/moe_batch_scaling/repro.py --preset exercise

The exercise, done so that its figures can be used: build the model, warm up every shape, time
prefill and decode without a profiler, many times, and look at which experts the tokens picked. A
sweep with factors, backends, profiles and the rest is `worklog run moe_batch_scaling`; this file is
the part to read, and what `worklog nsys` and `worklog ncu` run. Every phase is a range of its own
name. The last line of the output is one JSON document.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # for `problems`, when run as a script

import torch

from common.errors import WorklogError
from common.recording import ranges
from common.recording.ranges import named_range
from common.report.results import Results
from common.report.tables import significant
from common.timing.statistics import summarise
from common.workloads.moe_routing import load_routing
from problems.moe_batch_scaling.models import Models, choose_config
from problems.moe_batch_scaling.plan import Plan, base_point, read_plan
from problems.moe_batch_scaling.points import PHASES
from problems.moe_batch_scaling.sides import OurSide
from problems.moe_batch_scaling.tasks import Job, facts_of, run_task

HEAD = "{:8} {:>5} {:>9} {:>19} {:>11} {:>11} {:>8}"
RANGES = dict(prefill=ranges.PREFILL, decode=ranges.DECODE)
COLUMNS = ("phase", "batch", "ms", "95 %", "samples/s", "tokens/s", "experts")


class Session:
    """One variant: its task measures, and writes points, figures, tables and charts."""

    def __init__(self, task: str, plan: Plan, device: str, checkpoint: str | None) -> None:
        self.task, self.plan, self.device = task, plan, torch.device(device)
        self.checkpoint = Path(checkpoint) if checkpoint else None
        self.progress: Callable[[str], object] = lambda text: None
        self.began = time.perf_counter()

    def needs_bytes(self) -> int:
        return 1 << 30

    def prepare(self) -> Mapping[str, Any]:
        torch.manual_seed(0)
        config = choose_config(self.plan, self.device, self.checkpoint)
        return facts_of(config, self.plan)

    def say(self, text: str) -> None:
        """To whoever waits, and into the variant's log, which also says when."""
        self.progress(text)
        elapsed_s = time.perf_counter() - self.began
        print(f"{elapsed_s:6.1f} s  {text}", file=sys.stderr, flush=True)

    def profile(self, folder: Path) -> Mapping[str, Any]:
        """Measure into `folder`; what stands in it already is kept and not measured again."""
        started = time.perf_counter()
        job = Job(self.plan, self.device, folder, self.checkpoint, self.say)
        with torch.no_grad():
            found: Results = run_task(self.task, job)
        found.write(folder)
        return {"seconds": round(time.perf_counter() - started, 1)}


def open_session(
    variant: Mapping[str, Any], preset: Mapping[str, Any], device: str, options: Mapping[str, Any]
) -> Session:
    settings = {**preset, **{k: v for k, v in variant.items() if k != "task"}}
    return Session(str(variant["task"]), read_plan(settings), device, options.get("checkpoint"))


@torch.no_grad()
def scale(
    plan: Plan, device: torch.device, checkpoint: Path | None, repetitions: int,
    routing: Path | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The exercise itself: every batch in both phases, timed, beside the experts it touched."""
    recorded = None if routing is None else load_routing(routing)
    with named_range(ranges.COMPILE):  # nothing is compiled: the model is built here
        models = Models(
            choose_config(plan, device, checkpoint), getattr(torch, plan.dtype), device, checkpoint
        )
    print(HEAD.format(*COLUMNS))
    rows = []
    for phase in PHASES:
        for batch in plan.batches:
            side = OurSide(models, base_point(plan, models.config, phase, batch))
            if recorded is not None:
                side.inputs = dataclasses.replace(
                    side.inputs, routing=(recorded,) * len(side.inputs)
                )
            with named_range(ranges.WARM_UP):
                side.sample()
            with named_range(RANGES[phase]):
                samples = [side.sample() for _ in range(repetitions)]
            found, experts = summarise(samples), side.describe_touched()
            rows.append(
                {
                    "phase": phase, "batch": batch, "latency_ms": found.median / 1e6,
                    "samples_ns": samples, "experts_touched": experts,
                    "samples_per_s": batch / found.median * 1e9,
                    "tokens_per_s": side.point.tokens / found.median * 1e9,
                }
            )  # fmt: skip
            ends = found.interval
            print_row(rows[-1], None if ends is None else (ends.low, ends.high))
    return rows


def print_row(row: Mapping[str, Any], interval: tuple[float, float] | None) -> None:
    ends = "" if interval is None else f"{interval[0] / 1e6:.3f} … {interval[1] / 1e6:.3f}"
    speeds = (significant(row["samples_per_s"]), significant(row["tokens_per_s"]))
    latency, experts = f"{row['latency_ms']:.3f}", f"{row['experts_touched']:.1f}"
    print(HEAD.format(row["phase"], row["batch"], latency, ends, *speeds, experts), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="sweep", help="a task by itself (default: the sweep)")
    parser.add_argument("--preset", help="one of problem.toml's presets (default: what fits here)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--repetitions", type=int, default=10, help="samples per point")
    parser.add_argument("--batches", help="other batches, e.g. 1,2,4")
    parser.add_argument("--sequence", type=int, help="another sequence length")
    parser.add_argument("--top-k", type=int, help="another number of experts per token")
    parser.add_argument("--layers", type=int, help="another number of layers")
    parser.add_argument("--routing", type=Path, help="a routing file to replay (save_routing)")
    parser.add_argument("--checkpoint", help="folder of a Hugging Face MoE checkpoint")
    parser.add_argument("--compile-prefill", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="run the task here; continues what is in it")
    chosen = parser.parse_args()
    if chosen.repetitions < 1:
        parser.error("--repetitions must be 1 or more")
    return chosen


def changed(settings: Mapping[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """The preset's settings with what the command line says instead."""
    from common.errors import UsageError

    values = dict(settings)
    if chosen.batches is not None:
        try:
            values["batches"] = [int(word) for word in chosen.batches.split(",")]
        except ValueError as error:
            raise UsageError(f"--batches {chosen.batches!r}: write numbers, e.g. 1,2,4") from error
    for name in ("sequence", "layers", "top_k"):
        if getattr(chosen, name) is not None:
            values[name] = getattr(chosen, name)
    return values


def main() -> None:
    from common.experiments.request import settle

    chosen = parse()
    try:
        options = {"checkpoint": chosen.checkpoint} if chosen.checkpoint else {}
        request = settle(
            "moe_batch_scaling", chosen.preset, [chosen.variant], chosen.device, None, options
        )
        variant = next(v for v in request.variants if v.name == chosen.variant)
        settings = changed(request.preset.settings, chosen)
        session = open_session(variant.settings, settings, request.device, options)
        if chosen.out is not None:
            session.profile(chosen.out)
            return
        rows = scale(
            session.plan, session.device, session.checkpoint, chosen.repetitions, chosen.routing
        )
    except WorklogError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps({"preset": request.preset.name, "device": request.device, "points": rows}))


if __name__ == "__main__":
    main()
