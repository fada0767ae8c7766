"""Which mixture of experts does a config.json describe?

Mixtral, Qwen3-MoE and OLMoE are computed exactly, so a key that is not understood is refused, as
for the Llama. DeepSeek's files are read for their shapes only: its latent attention is replaced by
grouped-query attention of the same heads, which the result names under `left_out`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.workloads.checkpoint_config import (
    IGNORED_KEYS,
    LARGEST_COUNT,
    config_error,
    read_count,
    read_json,
    read_positive,
    read_rope,
    refuse_unknown,
    short,
)
from common.workloads.moe_config import MoeConfig

LOADABLE = ("MixtralForCausalLM", "Qwen3MoeForCausalLM", "OlmoeForCausalLM")
SHAPES_ONLY = ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM")
COMMON_KEYS = {
    *("architectures", "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "intermediate_size", "vocab_size", "hidden_act"),
    *("max_position_embeddings", "tie_word_embeddings", "rms_norm_eps", "rope_theta"),
    *("rope_scaling", "rope_parameters", "num_experts_per_tok", "num_experts"),
    *("num_local_experts", "norm_topk_prob", "moe_intermediate_size", "mlp_only_layers"),
}
# Of training, or without effect on one forward pass.
MORE_IGNORED = {
    *("router_aux_loss_coef", "router_jitter_noise", "output_router_logits"),
    *("max_window_layers",),  # only read where use_sliding_window is true
}
# Keys that would change the computation; absent means the value given here.
FIXED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "sliding_window": None,
    "use_sliding_window": False,
    "clip_qkv": None,
    "decoder_sparse_step": 1,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}


def moe_config_from_json(folder: Path, max_positions: int) -> MoeConfig:
    """The shapes that `folder`/config.json describes, with a cache of `max_positions`."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: pass the folder that holds config.json")
    raw = read_json(folder / "config.json")
    named = raw.get("architectures")
    family = named[0] if isinstance(named, list) and len(named) == 1 else None
    if family in SHAPES_ONLY:
        config = _deepseek(raw, max_positions)
    elif family in LOADABLE:
        config = _exact(raw, str(family), max_positions)
    else:
        raise config_error(
            f"architectures is {short(named)}",
            f"only one of {', '.join(LOADABLE + SHAPES_ONLY)} is supported, choose such a model",
        )
    trained = read_count(raw, "max_position_embeddings", limit=2**40)
    if not 1 <= max_positions <= min(trained, LARGEST_COUNT):
        raise UsageError(
            f"a cache of {max_positions} positions does not fit this model: "
            f"choose between 1 and {min(trained, LARGEST_COUNT)}"
        )
    return config


def _exact(raw: dict[str, Any], family: str, max_positions: int) -> MoeConfig:
    for key, value in FIXED.items():
        # A window that is switched off may still have a width.
        off = key == "sliding_window" and raw.get("use_sliding_window") is False
        if raw.get(key, value) != value and not off:
            raise config_error(
                f"{key} is {short(raw[key])}", f"only {short(value)} is supported, choose another"
            )
    refuse_unknown(raw, COMMON_KEYS | FIXED.keys() | IGNORED_KEYS | MORE_IGNORED)
    base = _base(raw, max_positions)
    layers = read_count(raw, "num_hidden_layers")
    experts = read_count(
        raw, "num_local_experts" if raw.get("num_experts") is None else "num_experts"
    )
    width = read_count(raw, "intermediate_size")
    if family == "MixtralForCausalLM":
        return dataclasses.replace(base, experts=(experts,) * layers, expert_dim=width)
    normalise = _flag(raw, "norm_topk_prob")
    if family == "OlmoeForCausalLM":
        return dataclasses.replace(
            base,
            experts=(experts,) * layers,
            expert_dim=width,
            normalise_top_k=normalise,
            qk_norm="projection",
        )
    plain = raw.get("mlp_only_layers") or []
    if not isinstance(plain, list) or not all(isinstance(i, int) for i in plain):
        raise config_error(f"mlp_only_layers is {short(plain)}", "make it a list of layers")
    return dataclasses.replace(
        base,
        experts=tuple(0 if layer in plain else experts for layer in range(layers)),
        expert_dim=read_count(raw, "moe_intermediate_size"),
        dense_dim=width,
        normalise_top_k=normalise,
        qk_norm="head",
    )


def _base(raw: dict[str, Any], max_positions: int) -> MoeConfig:
    """What all exactly computed families share; experts are put in by the caller."""
    dim, heads = read_count(raw, "hidden_size"), read_count(raw, "num_attention_heads")
    theta, scaling = read_rope(raw)
    return MoeConfig(
        dim=dim,
        heads=heads,
        kv_heads=read_count(raw, "num_key_value_heads", heads),
        head_dim=read_count(raw, "head_dim", dim // heads),
        expert_dim=1,
        experts=(LARGEST_COUNT,),  # replaced by the caller, which checks top_k against it
        top_k=read_count(raw, "num_experts_per_tok"),
        vocab=read_count(raw, "vocab_size"),
        max_positions=max(1, max_positions),
        tied_embeddings=_flag(raw, "tie_word_embeddings"),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=read_positive(raw, "rms_norm_eps"),
    )


def _deepseek(raw: dict[str, Any], max_positions: int) -> MoeConfig:
    """Shapes of DeepSeek-V2 and -V3: experts, shared experts, leading plain layers, scoring."""
    layers, experts = read_count(raw, "num_hidden_layers"), read_count(raw, "n_routed_experts")
    width = read_count(raw, "moe_intermediate_size")
    plain = min(layers, raw.get("first_k_dense_replace") or 0)
    shared = raw.get("n_shared_experts") or 0
    left_out = ["multi-head latent attention: grouped-query attention of the same heads instead"]
    if raw.get("topk_method") not in (None, "greedy"):
        left_out.append(f"routing by {short(raw['topk_method'])}: plain top-k instead")
    if raw.get("rope_scaling"):
        left_out.append("scaled rotary positions")
    return MoeConfig(
        dim=read_count(raw, "hidden_size"),
        heads=read_count(raw, "num_attention_heads"),
        kv_heads=read_count(raw, "num_key_value_heads"),
        head_dim=read_count(raw, "v_head_dim"),
        expert_dim=width,
        experts=(0,) * plain + (experts,) * (layers - plain),
        top_k=read_count(raw, "num_experts_per_tok"),
        vocab=read_count(raw, "vocab_size"),
        max_positions=max(1, max_positions),
        normalise_top_k=_flag(raw, "norm_topk_prob"),
        scoring="sigmoid" if raw.get("scoring_func") == "sigmoid" else "softmax",
        routed_scale=read_positive({"routed_scaling_factor": 1.0} | raw, "routed_scaling_factor"),
        beside="shared" if shared else "none",
        beside_dim=shared * width,
        dense_dim=read_count(raw, "intermediate_size"),
        tied_embeddings=_flag(raw, "tie_word_embeddings"),
        norm_eps=read_positive(raw, "rms_norm_eps"),
        rope_theta=read_positive({"rope_theta": 10_000.0} | raw, "rope_theta"),
        left_out=tuple(left_out),
    )


def _flag(raw: dict[str, Any], key: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise config_error(f"{key} is {short(value)}", "make it true or false")
    return value
