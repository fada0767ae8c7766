"""Which model runs a point? One set of weights, shared by every side that can read it.

All backends of ours, every top-k and every routing use the same tensors; only quantised experts are
a second copy. Hugging Face's classes are made without storage and given our tensors, so that what
is compared is code, not the luck of memory pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.errors import PreconditionError, UsageError
from common.memory import memory_available_bytes
from common.workloads.moe import SimpleMoETransformer
from common.workloads.moe_checkpoint import build_moe_from_checkpoint, moe_config_from_json
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_observed import RoutingSummary
from common.workloads.moe_quantised import Format, check_experts_shrank, quantise_experts
from common.workloads.moe_weights import (
    build_random_moe,
    meta_moe,
    moe_blocks,
    moe_parameter_counts,
    named_config,
)
from problems.moe_batch_scaling.inputs import SEED
from problems.moe_batch_scaling.plan import Plan

HF_WAYS = ("eager", "grouped_mm")
RESERVE = 0.25  # of the memory, for activations, caches and quantised copies


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be taken now; None where the machine does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return memory_available_bytes()


def choose_config(plan: Plan, device: torch.device, checkpoint: Path | None = None) -> MoeConfig:
    """The model of the plan with a cache for its longest sequence."""
    if checkpoint is not None:
        return moe_config_from_json(checkpoint, plan.longest)
    config = _named(plan, device)
    config = config if plan.top_k is None else config.with_top_k(plan.top_k)
    return config.with_cache_length(max(plan.longest, 2))


def _named(plan: Plan, device: torch.device) -> MoeConfig:
    if plan.layers != "fit":
        layers = None if plan.layers is None else int(plan.layers)
        return named_config(plan.model, layers)
    return named_config(plan.model, fitting_layers(plan, free_bytes(device)))


def fitting_layers(plan: Plan, free: int | None) -> int:
    """As many layers as fit `free` bytes beside the rest; all of them where nobody says."""
    whole = named_config(plan.model)
    size = torch.finfo(getattr(torch, plan.dtype)).bits // 8
    one = moe_parameter_counts(named_config(plan.model, 1))["total"]
    two = moe_parameter_counts(named_config(plan.model, 2))["total"] if whole.layers > 1 else one
    per_layer, rest = (two - one) * size, (2 * one - two) * size
    if free is None or per_layer == 0:
        return whole.layers
    fitting = int(((1 - RESERVE) * free - rest) // per_layer)
    if fitting < 1:
        raise PreconditionError(
            f"one layer of {plan.model} needs {(per_layer + rest) / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free; free some memory or choose a smaller preset"
        )
    return min(whole.layers, fitting)


@dataclass
class Turns:
    """`whole` has the cache of the largest batch, `most` sequences; the twins have views of it."""

    whole: SimpleMoETransformer
    most: int
    twins: dict[int, SimpleMoETransformer]
    filled_to: int = 0  # positions that a prompt filled

    def windows(self, size: int) -> Iterator[tuple[SimpleMoETransformer, slice]]:
        """The whole cache as windows of so many sequences, and a model that writes into each.

        A prompt goes in window by window: at once, the largest batch's would need many times the
        memory that a decode step of it does.
        """
        kept = [layer.self_attn.cache for layer in moe_blocks(self.whole)]
        try:
            for first in range(0, self.most, size):
                part = slice(first, min(first + size, self.most))
                for layer, cache in zip(moe_blocks(self.whole), kept, strict=True):
                    assert cache is not None
                    layer.self_attn.cache = (cache[0][part], cache[1][part])
                yield self.whole, part
        finally:
            for layer, cache in zip(moe_blocks(self.whole), kept, strict=True):
                layer.self_attn.cache = cache

    def lend(self, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        for mine, all_ in zip(moe_blocks(self.twins[batch]), moe_blocks(self.whole), strict=True):
            if all_.self_attn.cache is None:
                all_.self_attn.allocate(self.most, device, dtype)
            assert all_.self_attn.cache is not None
            keys, values = all_.self_attn.cache
            mine.self_attn.cache = (keys[:batch], values[:batch])


class Models:
    """Built once; `ours` and `theirs` give a model for a point."""

    def __init__(
        self, config: MoeConfig, dtype: torch.dtype, device: torch.device, checkpoint: Path | None
    ) -> None:
        self.config, self.dtype, self.device, self.checkpoint = config, dtype, device, checkpoint
        self.base = self._build(None)
        self.made: dict[tuple[int, str], SimpleMoETransformer] = {}
        self.bytes_per_weight: dict[str, float] = {}
        self.routing_seen: dict[str, tuple[RoutingSummary, ...]] = {}  # setting -> per input
        self.turns: dict[str, Turns] = {}  # phase -> the twins of all batches
        self.most_in_turn: dict[str, int] = {}  # phase -> the largest batch that will take turns
        self.filled: tuple[int, int] | None = None  # (batch, sequence) in the cache of the base
        self.their_models: dict[tuple[str, str], Any] = {}

    def _build(self, after: Callable[[nn.Module], None] | None) -> SimpleMoETransformer:
        if self.checkpoint is not None:
            return build_moe_from_checkpoint(
                self.checkpoint, self.device, self.dtype,
                max_positions=self.config.max_positions, after_module=after,
            )  # fmt: skip
        return build_random_moe(self.config, self.device, SEED, self.dtype, after)

    def ours(self, top_k: int, weights: str) -> SimpleMoETransformer:
        """Our model with this top-k and this storage of the experts."""
        plain = weights == str(self.dtype).removeprefix("torch.")
        if top_k == self.config.top_k and plain:
            return self.base
        if (top_k, weights) not in self.made:
            self.made[top_k, weights] = (
                self._with_top_k(top_k) if plain else self._quantised(top_k, weights)
            )
        return self.made[top_k, weights]

    def _with_top_k(self, top_k: int) -> SimpleMoETransformer:
        """A model of its own (its caches, its top-k) on the tensors of the base."""
        twin = meta_moe(self.config.with_top_k(top_k))
        twin.load_state_dict(self.base.state_dict(), assign=True)
        twin.rope = self.base.rope
        return twin.eval().requires_grad_(False)

    def in_turn(self, phase: str, batch: int, most: int) -> SimpleMoETransformer:
        """A twin of the base whose cache holds `batch` sequences, the first of `most` that all
        batches of the phase share: batches take turns without a cache being made or filled anew.
        """
        if phase not in self.turns or self.turns[phase].most < most:
            self.turns[phase] = Turns(self._with_top_k(self.config.top_k), most, {})
        turns = self.turns[phase]
        if batch not in turns.twins:
            turns.twins[batch] = self._with_top_k(self.config.top_k)
            turns.lend(batch, self.device, self.dtype)
        return turns.twins[batch]

    def _quantised(self, top_k: int, weights: str) -> SimpleMoETransformer:
        if weights not in ("int8", "float8"):
            raise UsageError(f"no storage is called {weights!r}; choose int8 or float8")
        format_: Format = "int8" if weights == "int8" else "float8"
        if top_k != self.config.top_k:
            raise UsageError("quantised experts are run with the model's own top-k; leave it")
        # From the base's tensors: what both store alike is not made a second time.
        model = self._with_top_k(top_k)
        quantise_experts(model, format_)
        # Asked for one byte per weight: whoever left the stacks as they were is found here.
        self.bytes_per_weight[weights] = check_experts_shrank(model, 1.0).per_weight
        return model

    def theirs(self, family: str, way: str) -> Any:
        """Hugging Face's model with our tensors; `way` is its experts implementation."""
        if (family, way) not in self.their_models:
            self.their_models[family, way] = hugging_face(self.base, family, way)
        return self.their_models[family, way]


def hugging_face(model: SimpleMoETransformer, family: str, way: str) -> Any:
    """`MixtralForCausalLM` or `Qwen3MoeForCausalLM` of transformers, on our model's tensors."""
    try:
        import transformers
    except ImportError as error:
        raise PreconditionError(
            "transformers is not installed; pip install -r requirements-dev.txt"
        ) from error
    c = model.config
    if len(set(c.experts)) > 1 or not c.experts[0] or c.beside != "none":
        raise UsageError("transformers' models have the same experts in every layer; use such")
    common: dict[str, Any] = {
        "hidden_size": c.dim,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "vocab_size": c.vocab,
        "num_experts_per_tok": c.top_k,
        "max_position_embeddings": c.max_positions,
        "rms_norm_eps": c.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "tie_word_embeddings": False,
        "attn_implementation": "sdpa",
    }
    if family == "mixtral":
        config: Any = transformers.MixtralConfig(
            intermediate_size=c.expert_dim, num_local_experts=c.experts[0], sliding_window=None,
            **common,
        )  # fmt: skip
        made: Any = transformers.MixtralForCausalLM
    elif family == "qwen3-moe":
        config = transformers.Qwen3MoeConfig(
            moe_intermediate_size=c.expert_dim, num_experts=c.experts[0],
            norm_topk_prob=c.normalise_top_k, **common,
        )  # fmt: skip
        made = transformers.Qwen3MoeForCausalLM
    else:
        raise UsageError(f"no family is called {family!r}; choose mixtral or qwen3-moe")
    with torch.device("meta"):
        theirs = made(config)
    ours = {
        name if name.startswith("lm_head") else f"model.{name}": tensor
        for name, tensor in model.state_dict().items()
    }
    theirs.load_state_dict(ours, assign=True)
    rotary = type(theirs.model.rotary_emb)(config)  # its frequencies are no part of a state dict
    theirs.model.rotary_emb = rotary.to(model.rope.device)
    theirs.set_experts_implementation(way)
    return theirs.eval().requires_grad_(False)
