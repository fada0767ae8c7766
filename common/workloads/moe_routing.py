"""Which tokens go to which experts? The router, and overrides that make routing repeatable.

The router works in float32 whatever the model's dtype is: rounded scores would move tokens to other
experts. An override replaces the choice of experts, not the router's work: the scores of the forced
experts are still the weights, so a timed run does all that an ordinary one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UsageError
from common.workloads.moe_config import MoeConfig


@dataclass(frozen=True)
class Picks:
    """The choice of one layer: `experts` (tokens, k) int64, `weights` (tokens, k) float32."""

    experts: Tensor
    weights: Tensor

    @property
    def top_k(self) -> int:
        return self.experts.shape[1]


class RoutingOverride(Protocol):
    def picks(self, layer: int, tokens: int, experts: int, top_k: int) -> Tensor:
        """Experts (tokens, k) int64 on the CPU; k different ones in each row."""


class Router(nn.Module):
    """Scores in float32, top k of them, renormalised if the model does so."""

    def __init__(self, config: MoeConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.experts = config.experts[layer]
        self.weight = nn.Parameter(torch.empty(self.experts, config.dim))

    def forward(self, x: Tensor, override: RoutingOverride | None = None) -> Picks:
        c = self.config
        logits = F.linear(x.float(), self.weight.float())
        scores = logits.sigmoid() if c.scoring == "sigmoid" else logits.softmax(-1)
        if override is None:
            weights, experts = scores.topk(c.top_k, dim=-1)
        else:
            experts = override.picks(self.layer, x.shape[0], self.experts, c.top_k).to(x.device)
            weights = scores.gather(1, experts)
        if c.normalise_top_k:
            weights = weights / weights.sum(-1, keepdim=True)
        return Picks(experts, weights * c.routed_scale)


@dataclass(frozen=True)
class SkewedRouting:
    """Experts drawn with Zipf weights 1 / rank^skew, without replacement; 0 is uniform.

    The same seed, layer and number of tokens give the same experts, in every process. Which
    expert is the popular one differs from layer to layer.
    """

    skew: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.skew < 10:
            raise UsageError(f"skew is {self.skew!r}; choose a number from 0 (uniform) to below 10")

    def picks(self, layer: int, tokens: int, experts: int, top_k: int) -> Tensor:
        generator = np.random.default_rng([self.seed, layer, tokens])
        popularity = -self.skew * np.log(generator.permutation(experts) + 1.0)
        # Top k of log-weights plus Gumbel noise is a draw without replacement.
        noisy = popularity + generator.gumbel(size=(tokens, experts))
        chosen = np.argpartition(-noisy, top_k - 1, axis=1)[:, :top_k]
        return torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.int64))


@dataclass(frozen=True)
class RecordedRouting:
    """The experts that an earlier run chose: one array (tokens, k) per layer."""

    name: str
    layers: tuple[np.ndarray[tuple[int, int], np.dtype[np.int64]] | None, ...]

    def picks(self, layer: int, tokens: int, experts: int, top_k: int) -> Tensor:
        recorded = self.layers[layer] if layer < len(self.layers) else None
        if recorded is None:
            raise UsageError(
                f"{self.name} has no routing of layer {layer}; record it with this model"
            )
        if recorded.shape != (tokens, top_k):
            raise UsageError(
                f"{self.name}: layer {layer} was recorded for {recorded.shape[0]} tokens and "
                f"top-{recorded.shape[1]}, this run has {tokens} and top-{top_k}; "
                "record it with this batch and model"
            )
        if recorded.min() < 0 or recorded.max() >= experts:
            raise UsageError(
                f"{self.name}: layer {layer} names expert {recorded.max()}, this model has "
                f"{experts}; record it with this model"
            )
        return torch.from_numpy(recorded)


def save_routing(path: Path, layers: list[Tensor | None]) -> None:
    """Write the experts of each layer (None: a layer without experts) to an .npz file."""
    arrays = {
        f"layer{index}": picks.cpu().numpy().astype(np.int64)
        for index, picks in enumerate(layers)
        if picks is not None
    }
    np.savez(path, layers=np.array(len(layers)), **arrays)  # type: ignore[arg-type]


def load_routing(path: Path) -> RecordedRouting:
    """Read what `save_routing` wrote. UsageError for any other file; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            count = int(file["layers"])
            found = {name: file[name] for name in file.files if name != "layers"}
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror or 'no such file'}; name a file") from error
    except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise UsageError(f"{path.name} is no routing file; write one with save_routing") from error
    layers = []
    for index in range(count if 0 <= count <= 10_000 else 0):
        array = found.pop(f"layer{index}", None)
        if array is not None:
            _check(path.name, index, array)
        layers.append(array)
    if found or not layers:
        raise UsageError(f"{path.name} is no routing file; write one with save_routing")
    return RecordedRouting(path.name, tuple(layers))


def _check(name: str, layer: int, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    if array.ndim != 2 or not array.size or array.dtype != np.int64:
        raise UsageError(
            f"{name}: layer {layer} is {array.dtype} of shape {array.shape}, not int64 of (tokens, "
            "k); write it with save_routing"
        )
    ordered = np.sort(array, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise UsageError(f"{name}: layer {layer} picks an expert twice for a token; record again")
