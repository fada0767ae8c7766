"""What does each variant of this problem do? One function per task: measure, then figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from common.errors import PreconditionError, UsageError
from common.floors.machine import last_level_cache_bytes
from common.floors.measured import MeasuredFloors, from_json
from common.floors.moe_shapes import MoeShape
from common.report.results import Results
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_observed import logit_effect
from problems.moe_batch_scaling.frames import SAME_CODE
from problems.moe_batch_scaling.inputs import make_inputs
from problems.moe_batch_scaling.measure import explain, measure_group
from problems.moe_batch_scaling.models import Models, choose_config
from problems.moe_batch_scaling.placement import own_machine, placement_results
from problems.moe_batch_scaling.plan import Group, Plan, base_point, side_groups, sweep_groups
from problems.moe_batch_scaling.points import Measured, PointStore
from problems.moe_batch_scaling.pr_moe import pr_moe_results
from problems.moe_batch_scaling.profiling_cost import cost_results, measure_costs
from problems.moe_batch_scaling.published import published_results
from problems.moe_batch_scaling.ranks import ranks_results
from problems.moe_batch_scaling.reading import Reading, sides_results, sweep_results
from problems.moe_batch_scaling.rows import rows_results
from problems.moe_batch_scaling.sides import HF, OUR_SIDES, SIDES, Opener, OurSide, backend_of_auto
from problems.moe_batch_scaling.stages import profile_line, profile_side

PROFILING_ROUNDS = 6  # the fewest that give an interval
# A side that takes so many times the fastest is sampled once: a factor is what is asked about, and
# is sampled like the base; a backend that loses by far has lost.
SLOW_FACTOR, SLOW_SIDE = 30.0, 3.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What a task needs: the plan, where it runs, and where it writes."""

    plan: Plan
    device: torch.device
    folder: Path
    checkpoint: Path | None
    say: Say

    @property
    def origin(self) -> str:
        return "measured-gpu" if self.device.type == "cuda" else "measured-cpu"

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.plan.dtype)
        return found

    def models(self) -> Models:
        self.say("building the model")
        config = choose_config(self.plan, self.device, self.checkpoint)
        return Models(config, self.dtype, self.device, self.checkpoint)

    def floors(self) -> MeasuredFloors | None:
        """The machine's rates that the same run measured before; None where it did not."""
        path = self.folder.parent.parent / "floors.json"
        return from_json(path.read_text(encoding="utf-8")) if path.exists() else None


def measure_all(
    groups: Sequence[Group], opener: Opener, store: PointStore, plan: Plan, say: Say, slow: float,
    sides: bool = False,
) -> None:  # fmt: skip
    """The timing pass: nothing is profiled in it.

    Half of what backends leave of their time goes to the batch after them, which takes longer a
    round; half, so that one side that does not settle does not take it all.
    """
    left_s = 0.0
    for number, group in enumerate(groups, 1):

        def say_where(text: str, number: int = number) -> None:
            say(f"{number}/{len(groups)} {text}")

        chosen = plan.turn_rounds if group.in_turn else plan.side_rounds if sides else plan.rounds
        rounds = chosen or plan.rounds
        own_s = rounds.seconds + left_s / 2
        without = same_as_auto(group, opener) if sides else {}
        spent_s = measure_group(
            group, opener, store, replace(rounds, seconds=own_s), say_where, slow, without
        )
        left_s = max(0.0, rounds.seconds + left_s - spent_s) if sides else 0.0


def same_as_auto(group: Group, opener: Opener) -> dict[str, str]:
    """The backend that `auto` runs at this batch: the same code beside itself shows nothing."""
    runs = backend_of_auto(opener.models.base, group.points[0])
    return {runs: SAME_CODE} if runs else {}


def profile_all(
    measured: Sequence[Measured], opener: Opener, store: PointStore, folder: Path, say: Say
) -> None:
    """The profiling pass: one trace per point that was measured and runs our model."""
    for each in measured:
        if each.status != "measured" or each.point.id in store.profiled:
            continue
        say(f"profiling {each.point.id}")
        try:
            side = opener(each.point)
            assert isinstance(side, OurSide)
            found = profile_side(side, folder / "points")
        except Exception as error:  # a profile that fails costs this profile alone
            say(f"no profile of {each.point.id}: {explain(error)}")
            continue
        store.add_profile(profile_line(each.point.id, found))


def sweep_task(job: Job) -> Results:
    store = PointStore(job.folder)
    models = job.models()
    groups = list(sweep_groups(job.plan, models.config))
    for group in groups:
        if group.in_turn:
            models.most_in_turn[group.phase] = max(point.batch for point in group.points)
    opener = Opener(models, job.plan.family, check=False)
    measure_all(groups, opener, store, job.plan, job.say, SLOW_FACTOR)
    points = in_order(groups, store)
    profile_all(base_of(groups, store), opener, store, job.folder, job.say)
    found = sweep_results(reading(job, models.config, points, store))
    numerics(job, models, found)
    return found


def in_order(groups: Sequence[Group], store: PointStore) -> list[Measured]:
    """The points as planned: the first of each group is its baseline."""
    return [store.kept[p.id] for group in groups for p in group.points if p.id in store.kept]


def base_of(groups: Sequence[Group], store: PointStore) -> list[Measured]:
    """The sweep's base: every batch of both phases, measured in turn."""
    return [
        store.kept[point.id]
        for group in groups
        if group.in_turn
        for point in group.points
        if point.id in store.kept
    ]


def reading(job: Job, config: MoeConfig, points: Sequence[Measured], store: PointStore) -> Reading:
    cache = last_level_cache_bytes() if job.device.type == "cpu" else None
    if job.device.type == "cuda":
        cache = torch.cuda.get_device_properties(0).L2_cache_size
    size = torch.finfo(job.dtype).bits // 8
    return Reading(
        job.plan, config, tuple(points), dict(store.profiled), job.floors(), job.origin, size, cache
    )


def numerics(job: Job, models: Models, found: Results) -> None:
    """Each format and top-k: what it does to the logits, and what the experts then weigh."""
    config = models.config
    point = base_point(job.plan, config, "prefill", min(job.plan.batches))
    tokens = make_inputs(point, config, job.device).passes[0]
    settings = [(config.top_k, f) for f in job.plan.formats]
    settings += [(k, job.plan.dtype) for k in job.plan.top_ks if k != config.top_k]
    from problems.moe_batch_scaling.reading import numerics_table

    rows = []
    for top_k, weights in settings:
        changed = models.ours(top_k, weights)
        for model in (models.base, changed):  # as built, not as the last side left it
            model.backend, model.override = "auto", None
        effect = logit_effect(models.base, changed, tokens)
        stored = models.bytes_per_weight.get(weights)
        rows.append((top_k, weights, effect, stored))
        name = f"k{top_k}" if weights == job.plan.dtype else weights
        found.figure(f"logit_error_{name}", effect.relative_error, "", job.origin)
        if stored is not None:
            found.figure(f"bytes_per_weight_{weights}", stored, "bytes", "counted")
    found.tables["numerics"] = numerics_table(rows)


def backends_task(job: Job) -> Results:
    store = PointStore(job.folder)
    models = job.models()
    if job.plan.family == "qwen3-moe":
        sides: tuple[str, ...] = ("auto", "sorted", "grouped_mm", *SIDES[len(OUR_SIDES) :])
    else:
        sides = SIDES
    groups = list(side_groups(job.plan, models.config, sides))
    opener = Opener(models, job.plan.family)
    measure_all(groups, opener, store, job.plan, job.say, SLOW_SIDE, sides=True)
    found = sides_results(reading(job, models.config, in_order(groups, store), store))
    if job.device.type == "cpu":
        job.say("products with a few rows")
        rows_results(models.base, found, job.origin)
    worst = max(opener.errors.values(), default=0.0)
    found.figure("worst_relative_error", worst, "", job.origin)
    missing = [
        m for m in store.kept.values() if m.point.side.startswith(HF) and m.status != "measured"
    ]
    found.figure("hugging_face_points_missing", len(missing), "", job.origin)
    return found


def profiling_task(job: Job) -> Results:
    opener = Opener(job.models(), check=False)
    costs = measure_costs(opener, job.plan, PROFILING_ROUNDS, job.say)
    return cost_results(costs, job.plan.sequence, job.origin)


def placement_task(job: Job) -> Results:
    if job.device.type != "cuda":
        raise PreconditionError("the placement test needs a GPU; run it on a machine with one")
    c = choose_config(job.plan, job.device, job.checkpoint)
    shape = MoeShape(
        job.plan.model, c.layers, c.dim, c.expert_dim, c.heads, c.kv_heads, c.head_dim,
        max(c.experts), c.top_k, "this run",
    )  # fmt: skip
    job.say("measuring both memories, both rates and the link")
    machine = own_machine(job.device)
    return placement_results(
        shape, machine, job.device, job.dtype, job.plan.placement_tokens, job.origin, job.say
    )


TASKS: dict[str, Callable[[Job], Results]] = {
    "sweep": sweep_task,
    "backends": backends_task,
    "profiling-cost": profiling_task,
    "pr-moe": lambda job: pr_moe_results(job.plan, job.device, job.origin, job.say),
    "expert-parallel": lambda job: ranks_results(job.plan, job.folder, job.say),
    "published": lambda job: published_results(),
    "placement": placement_task,
}


def run_task(name: str, job: Job) -> Results:
    if name not in TASKS:
        raise UsageError(f"no task is called {name!r}; choose from {', '.join(TASKS)}")
    return TASKS[name](job)


def facts_of(config: MoeConfig, plan: Plan) -> dict[str, Any]:
    """What a manifest says of the model that was run."""
    return {
        "model": plan.model, "layers": config.layers, "experts": list(config.experts),
        "top_k": config.top_k, "dtype": plan.dtype, "left_out": list(config.left_out),
        "torch": torch.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip
