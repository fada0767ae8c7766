"""What did a pass's routing do, and how far apart are the logits of two models?

The first gives each measured point its own floor: the experts that it touched, not those that a
formula expects. The second states the numeric effect of a format or of another top-k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UsageError
from common.floors.active_experts import Routing, routing_of
from common.workloads.moe import SimpleMoETransformer
from common.workloads.moe_quantised import expert_bytes
from common.workloads.moe_routing import Picks


@dataclass(frozen=True)
class RoutingSummary:
    """Over the layers that have experts: touched ones, loads, and the bytes that were read."""

    layers: tuple[Routing, ...]
    touched_bytes: float

    @property
    def touched(self) -> int:
        return sum(layer.active for layer in self.layers)

    @property
    def worst_imbalance(self) -> float:
        return max(layer.imbalance for layer in self.layers)


@torch.no_grad()
def observe_routing(
    model: SimpleMoETransformer, tokens: Tensor, start: int = 0, weight_bytes: float | None = None
) -> RoutingSummary:
    """One pass over `tokens`, observed. `weight_bytes` per expert weight: as stored if None.

    The model's own observer is put back afterwards. Not for timed passes: counting waits for the
    device.
    """
    seen: list[tuple[int, Tensor]] = []

    def keep(layer: int, picks: Picks) -> None:
        seen.append((layer, picks.experts.cpu()))

    before, model.observe = model.observe, keep
    try:
        model(tokens, start, last_only=True)
    finally:
        model.observe = before
    if not seen:
        raise UsageError("this model has no layer with experts; choose one that has")
    counts = model.config.experts
    layers = tuple(routing_of(picks.numpy(), counts[layer]) for layer, picks in seen)
    per_weight = expert_bytes(model).per_weight if weight_bytes is None else weight_bytes
    each = model.config.expert_weights() * per_weight
    return RoutingSummary(layers, sum(layer.active for layer in layers) * each)


@dataclass(frozen=True)
class LogitEffect:
    """How the logits of a changed model differ from a reference's, over the same tokens."""

    relative_error: float
    same_first_choice: float
    divergence_nats: float


@torch.no_grad()
def logit_effect(
    reference: SimpleMoETransformer, changed: SimpleMoETransformer, tokens: Tensor
) -> LogitEffect:
    """Relative error (norms), share of positions with the same most likely token, and the mean
    Kullback-Leibler divergence of the reference from the changed model, at every position."""
    expected, got = reference(tokens).float(), changed(tokens).float()
    if expected.shape != got.shape:
        raise UsageError("the two models have different vocabularies; compare like with like")
    error = (got - expected).norm() / expected.norm()
    same = (got.argmax(-1) == expected.argmax(-1)).float().mean()
    log_p, log_q = expected.log_softmax(-1), got.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return LogitEffect(error.item(), same.item(), max(0.0, divergence.item()))
