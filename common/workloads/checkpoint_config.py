"""Which Llama does a checkpoint's config.json describe? One that is computed exactly, or none.

What the model here cannot compute (other architectures, biases, other rotary scalings, a key that
is not known) is refused rather than ignored: a wrong model would still produce a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.workloads.llama import LlamaConfig, RopeScaling
from common.workloads.safetensors_file import require_plain_file

# Larger than any published model; keeps a nonsensical config.json from overflowing a size.
LARGEST_COUNT = 2**20

# Keys that say what is computed, read in config_from_checkpoint.
READ_KEYS = {
    *("architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "intermediate_size", "vocab_size", "max_position_embeddings"),
    *("tie_word_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters"),
}
# Keys that would change the computation; absent means the value given here.
FIXED_KEYS = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
# Keys of training, generation and book-keeping. `pretraining_tp` splits a product, not its result;
# the dtype is the caller's choice.
IGNORED_KEYS = {
    *("_attn_implementation_autoset", "_name_or_path", "transformers_version"),
    *("torch_dtype", "dtype", "use_cache", "initializer_range", "attention_dropout"),
    *("pretraining_tp", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"),
    *("return_dict", "output_attentions", "output_hidden_states", "chunk_size_feed_forward"),
    *("id2label", "label2id", "problem_type", "is_encoder_decoder", "max_length"),
}
LLAMA3_KEYS = {
    *("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
}


def config_from_checkpoint(folder: Path, max_positions: int) -> LlamaConfig:
    """The shapes of the checkpoint in `folder`, with a cache of `max_positions` positions.

    UsageError for anything but a plain LlamaForCausalLM whose every key is understood.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: pass the folder that holds config.json")
    raw = read_json(folder / "config.json")
    if raw.get("architectures") != ["LlamaForCausalLM"]:
        raise config_error(
            f"architectures is {short(raw.get('architectures'))}",
            'only ["LlamaForCausalLM"] can be loaded, choose such a checkpoint',
        )
    for key, value in FIXED_KEYS.items():
        if raw.get(key, value) != value:
            raise config_error(
                f"{key} is {short(raw[key])}",
                f"only {json.dumps(value)} is supported, choose another checkpoint",
            )
    refuse_unknown(raw, READ_KEYS | FIXED_KEYS.keys() | IGNORED_KEYS)
    dim, heads = read_count(raw, "hidden_size"), read_count(raw, "num_attention_heads")
    kv_heads = read_count(raw, "num_key_value_heads", heads)
    head_dim = read_count(raw, "head_dim", dim // heads)
    if heads % kv_heads or head_dim % 2:
        raise config_error(
            f"{heads} heads, {kv_heads} key/value heads and head_dim {head_dim} do not fit",
            "compare it with the original file",
        )
    trained = read_count(raw, "max_position_embeddings", limit=2**40)
    if not 1 <= max_positions <= min(trained, LARGEST_COUNT):
        raise UsageError(
            f"a cache of {max_positions} positions does not fit this checkpoint: "
            f"choose between 1 and {min(trained, LARGEST_COUNT)}"
        )
    tied = raw.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise config_error(f"tie_word_embeddings is {short(tied)}", "make it true or false")
    theta, scaling = read_rope(raw)
    return LlamaConfig(
        layers=read_count(raw, "num_hidden_layers"),
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        mlp_dim=read_count(raw, "intermediate_size"),
        vocab=read_count(raw, "vocab_size"),
        max_positions=max_positions,
        head_dim=head_dim,
        tied_embeddings=tied,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=read_positive(raw, "rms_norm_eps"),
    )


def read_rope(raw: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling; transformers 5 writes `rope_parameters`, earlier versions two keys."""
    given = [key for key in ("rope_parameters", "rope_scaling") if raw.get(key) is not None]
    if len(given) == 2:
        raise config_error("rope_parameters and rope_scaling are both set", "remove one")
    rope = raw[given[0]] if given else {}
    if not isinstance(rope, dict):
        raise config_error(f"{given[0]} is {short(rope)}", "compare it with the original file")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise config_error(
            f"the rotary scaling is {short(kind)}",
            'only "default" and "llama3" are supported, choose another checkpoint',
        )
    allowed = LLAMA3_KEYS if kind == "llama3" else set()
    refuse_unknown(rope, allowed | {"rope_type", "type", "rope_theta"})
    # Absent: the value that transformers takes for a Llama.
    base = read_positive(
        rope if "rope_theta" in rope else {"rope_theta": 10_000.0} | raw, "rope_theta"
    )
    if kind == "default":
        return base, None
    factor, low, high = (
        read_positive(rope, key) for key in ("factor", "low_freq_factor", "high_freq_factor")
    )
    if factor < 1 or low >= high:
        raise config_error(
            "the rotary scaling needs factor >= 1 and low_freq_factor < high_freq_factor",
            "compare it with the original file",
        )
    original = read_count(rope, "original_max_position_embeddings", limit=2**40)
    return base, RopeScaling(factor, low, high, original)


def read_json(path: Path) -> dict[str, Any]:
    require_plain_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror}: make it readable") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is not valid JSON: copy it again") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path.name} is not a JSON object: copy it again")
    return content


def read_count(raw: dict[str, Any], key: str, default: int | None = None, limit: int = 0) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if (
        not isinstance(value, int)
        or isinstance(value, bool)
        or not 1 <= value <= (limit or LARGEST_COUNT)
    ):
        raise config_error(
            f"{key} is {short(value)}, not a count", "compare it with the original file"
        )
    return value


def read_positive(raw: dict[str, Any], key: str) -> float:
    value = raw.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e18:
        raise config_error(
            f"{key} is {short(value)}, not a positive number", "compare it with the original file"
        )
    return float(value)


def refuse_unknown(raw: dict[str, Any], known: Iterable[str]) -> None:
    if unknown := raw.keys() - set(known):
        raise config_error(
            f"unknown key {names(unknown)}",
            "it may change the model; remove it from a copy of the file if it does not",
        )


def config_error(what: str, action: str) -> UsageError:
    return UsageError(f"config.json: {what}: {action}")


def short(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def names(several: Iterable[str]) -> str:
    """The first two names, quoted (they come from a file), and how many more there are."""
    first = sorted(several)
    rest = f" (and {len(first) - 2} more)" if len(first) > 2 else ""
    return ", ".join(short(name) for name in first[:2]) + rest
