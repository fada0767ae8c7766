"""Can this folder be run? Fills the Llama from a local checkpoint in the Hugging Face layout.

Reads `config.json` and `model.safetensors`, or `model.safetensors.index.json` with its shards, and
nothing else: no pickles, no downloads, no file that the index places elsewhere. Names and shapes of
all tensors are compared before anything is allocated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from common.errors import UsageError
from common.workloads.checkpoint_config import (
    config_error,
    config_from_checkpoint,
    names,
    read_json,
    short,
)
from common.workloads.llama import Llama
from common.workloads.safetensors_file import StoredTensor, read_header, read_tensor
from common.workloads.weights import AfterModule, build_filled, meta_model

__all__ = ["build_from_checkpoint", "config_from_checkpoint"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")


def build_from_checkpoint(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    *,
    max_positions: int,
    after_module: AfterModule | None = None,
) -> Llama:
    """The model in `folder`, filled and handed to `after_module` layer by layer, as in `weights`.

    UsageError naming the file or tensor if anything is missing, unexpected or of another shape.
    """
    config = config_from_checkpoint(folder, max_positions)
    stored = stored_tensors(folder)
    if config.layers > len(stored):  # before a model of a nonsensical number of layers is made
        raise config_error(
            f"num_hidden_layers is {config.layers}, but there are only {len(stored)} tensors",
            "compare it with the original file",
        )
    # A tied head is the same parameter as the embedding, and is named once, as the embedding.
    parameters = meta_model(config).named_parameters()
    expected = {_stored_name(name): tuple(p.shape) for name, p in parameters}
    check_stored(expected, stored, config.tied_embeddings)

    def fill(name: str, module: nn.Module) -> None:
        for key, parameter in module.named_parameters(prefix=name):
            parameter.copy_(read_tensor(stored[_stored_name(key)]))

    return build_filled(config, device, dtype, fill, after_module)


def _stored_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def check_stored(
    expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor], tied: bool
) -> None:
    """Refuse a checkpoint whose tensors are not exactly those expected, by name and shape."""
    if missing := expected.keys() - stored.keys():
        raise UsageError(f"tensor {names(missing)} missing in the checkpoint: copy it again whole")
    if unexpected := stored.keys() - expected.keys():
        hint = "copy config.json and the weights from the same checkpoint"
        if unexpected == {"lm_head.weight"} and tied:
            hint = "set tie_word_embeddings to false in config.json to use it"
        raise UsageError(f"tensor {names(unexpected)} has no place in this model: {hint}")
    for name, shape in expected.items():
        if stored[name].shape != shape:
            raise UsageError(
                f"tensor {names([name])} has shape {stored[name].shape}, config.json says {shape}: "
                "copy both from the same checkpoint"
            )


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    single, index = folder / SINGLE, folder / INDEX
    found = [path for path in (single, index) if path.exists()]
    if len(found) == 2:
        raise UsageError(f"both {SINGLE} and {INDEX} are in {folder}: remove the one not meant")
    if not found:
        raise UsageError(
            f"neither {SINGLE} nor {INDEX} is in {folder}: copy the safetensors files "
            "(pickled .bin or .pth weights are never read)"
        )
    if found == [single]:
        stored = read_header(single)
    else:
        stored = _sharded_tensors(folder, read_json(index).get("weight_map"))
    # Llama 2 era files store this table; it follows from rope_theta and is recomputed.
    return {k: v for k, v in stored.items() if not k.endswith(".self_attn.rotary_emb.inv_freq")}


def _sharded_tensors(folder: Path, weight_map: object) -> dict[str, StoredTensor]:
    if not isinstance(weight_map, dict) or not weight_map:
        raise UsageError(f"{INDEX} has no weight_map: copy it again")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard) or ".." in shard:
            raise UsageError(
                f"{INDEX} places tensor {names([name])} in {short(shard)}, which is not a plain "
                "*.safetensors file name: do not use this checkpoint, or copy it from its source"
            )
    shards = {shard: read_header(folder / shard) for shard in sorted(set(weight_map.values()))}
    for shard, tensors in shards.items():
        listed = {name for name, place in weight_map.items() if place == shard}
        if differing := listed ^ tensors.keys():
            raise UsageError(
                f"tensor {names(differing)} is not both in {shard} and in {INDEX} as its content: "
                "copy the shards and the index from the same checkpoint"
            )
    return {name: shards[shard][name] for name, shard in weight_map.items()}
