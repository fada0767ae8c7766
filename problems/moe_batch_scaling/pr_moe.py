"""What does PR-MoE's residual expert cost in latency, beside standard experts?

PR-MoE replaces top-2 of E experts by top-1 and one fixed MLP that every token uses, and gives early
layers half as many experts. As much is computed per token as with top-2; what is read differs: the
fixed MLP is read once for all tokens. Three models of one width take turns on the same tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from common.report.results import Results
from common.report.tables import Table, significant
from common.timing.sampling import StopRule, comparisons, interleave
from common.timing.statistics import summarise
from common.workloads.moe import SimpleMoETransformer
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_weights import build_random_moe, moe_parameter_counts, named_config
from problems.moe_batch_scaling.inputs import SEED
from problems.moe_batch_scaling.models import Models
from problems.moe_batch_scaling.plan import Plan
from problems.moe_batch_scaling.points import Point
from problems.moe_batch_scaling.sides import OurSide

LAYERS = 2
STANDARD, STANDARD_TWO, PR_MOE = "standard top-1", "standard top-2", "PR-MoE"
BATCHES = (1, 4, 16)


def three_models(plan: Plan) -> dict[str, MoeConfig]:
    """Standard (E, E) with top-1 and top-2, and PR-MoE (E/2, E) with top-1 and the residual MLP."""
    base = named_config(plan.model, LAYERS).with_cache_length(plan.longest)
    experts = plan.pr_moe_experts
    standard = dataclasses.replace(base, experts=(experts,) * LAYERS, top_k=1)
    pyramid = (*(experts // 2 for _ in range(LAYERS // 2)), *(experts for _ in range(LAYERS // 2)))
    residual = dataclasses.replace(
        standard, experts=pyramid, beside="residual", beside_dim=standard.expert_dim
    )
    return {STANDARD: standard, STANDARD_TWO: standard.with_top_k(2), PR_MOE: residual}


class _Shared(Models):
    """A model that is made already, as the sides want it."""

    def __init__(self, model: SimpleMoETransformer, dtype: torch.dtype, device: torch.device):
        self.config, self.dtype, self.device, self.checkpoint = model.config, dtype, device, None
        self.base, self.made, self.bytes_per_weight = model, {}, {}
        self.routing_seen, self.turns, self.most_in_turn = {}, {}, {}
        self.filled, self.their_models = None, {}


def pr_moe_results(
    plan: Plan, device: torch.device, origin: str, say: Callable[[str], None]
) -> Results:
    found = Results()
    dtype: torch.dtype = getattr(torch, plan.dtype)
    configs = three_models(plan)
    standard = _Shared(build_random_moe(configs[STANDARD], device, SEED, dtype), dtype, device)
    made = {
        STANDARD: standard,
        STANDARD_TWO: _Shared(standard.ours(2, plan.dtype), dtype, device),  # the same weights
        PR_MOE: _Shared(build_random_moe(configs[PR_MOE], device, SEED, dtype), dtype, device),
    }
    sizes = [
        (
            name, " + ".join(map(str, config.experts)), str(config.top_k),
            f"{moe_parameter_counts(config)['total'] / 1e6:.1f}",
            f"{moe_parameter_counts(config)['per_token'] / 1e6:.1f}",
        )
        for name, config in configs.items()
    ]  # fmt: skip
    found.tables["pr-moe-sizes"] = Table(
        ("model", "experts per layer", "top-k", "10^6 parameters", "read by one token, 10^6"),
        tuple(sizes), ("top-k", "10^6 parameters", "read by one token, 10^6"),
    )  # fmt: skip
    rows = []
    rule = StopRule(plan.rounds.least, plan.rounds.most, plan.rounds.seconds, plan.rounds.precision)
    for phase in ("prefill", "decode"):
        for batch in BATCHES:
            say(f"{phase}, batch {batch}")
            sides = {
                name: OurSide(
                    models, Point(phase, batch, plan.sequence, models.config.top_k, plan.dtype)
                )
                for name, models in made.items()
            }
            for side in sides.values():
                side.sample()
            taken = interleave(
                {name: _phased(side, phase) for name, side in sides.items()},
                STANDARD_TWO,
                rule,
                leave_when_known=True,
            )
            ratios = comparisons(taken)
            for name in configs:
                own = [s.duration_ns for s in taken.samples if s.variant == name]
                ratio = ratios.get((name, phase))
                words = "1"
                if ratio is not None:
                    ends = ratio.interval
                    words = f"{ratio.ratio:.3f}"
                    if ends is not None:
                        words += f" ({ends.low:.3f} … {ends.high:.3f})"
                    short = "pr_moe" if name == PR_MOE else "standard_top1"
                    found.figure(
                        f"{short}_{phase}_b{batch}", ratio.ratio, "", origin,
                        (ends.low, ends.high) if ends else None,
                    )  # fmt: skip
                rows.append(
                    (phase, str(batch), name, significant(summarise(own).median / 1e6), words)
                )
    columns = ("phase", "batch", "model", "latency ms", "÷ standard top-2")
    found.tables["pr-moe"] = Table(columns, tuple(rows), columns[3:])
    return found


def _phased(side: OurSide, phase: str) -> Callable[[], dict[str, int]]:
    return lambda: {phase: side.sample()}
