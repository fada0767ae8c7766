"""Can this folder be run? Fills the mixture of experts from a local checkpoint.

Reads safetensors only, as `checkpoint.py` does: one file, an index with its shards, or a checkpoint
JSON in the style of DeepSpeed's (`{"checkpoints": ["a.safetensors", …]}`, files beside it). Experts
may be stored one by one (Mixtral's `block_sparse_moe.experts.0.w1`, Qwen3's and OLMoE's
`mlp.experts.0.gate_proj`) or stacked. Names and shapes of all tensors are compared before anything
is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from common.errors import UsageError
from common.workloads.checkpoint import SHARD_NAME, check_stored, stored_tensors
from common.workloads.checkpoint_config import config_error, names, read_json, short
from common.workloads.moe import SimpleMoETransformer
from common.workloads.moe_checkpoint_config import moe_config_from_json
from common.workloads.moe_config import MoeConfig
from common.workloads.moe_weights import build_filled_moe, meta_moe
from common.workloads.safetensors_file import StoredTensor, read_header, read_tensor
from common.workloads.weights import AfterModule

__all__ = ["build_moe_from_checkpoint", "moe_config_from_json"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ExpertNames:
    """How a family calls a layer's mixture and one expert's three matrices."""

    block: str
    gate: str
    up: str
    down: str


MIXTRAL = ExpertNames("block_sparse_moe", "w1", "w3", "w2")
OTHERS = ExpertNames("mlp", "gate_proj", "up_proj", "down_proj")


def build_moe_from_checkpoint(
    place: Path,
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    *,
    max_positions: int,
    after_module: AfterModule | None = None,
) -> SimpleMoETransformer:
    """The model in the folder `place`, or of the checkpoint JSON `place`, filled layer by layer.

    UsageError naming the file or tensor if anything is missing, unexpected or of another shape.
    """
    folder = place.parent if place.suffix == ".json" else place
    config = moe_config_from_json(folder, max_positions)
    if config.left_out:
        raise config_error(
            f"{config.left_out[0]}", "such weights cannot be loaded, run it with random ones"
        )
    stored = listed_tensors(place) if place.suffix == ".json" else stored_tensors(folder)
    if config.layers > len(stored):
        raise config_error(
            f"num_hidden_layers is {config.layers}, but there are only {len(stored)} tensors",
            "compare it with the original file",
        )
    parts = _parts(config, stored)
    expected = {name: shape for part in parts.values() for name, shape in part.shapes.items()}
    check_stored(expected, stored, config.tied_embeddings)

    def fill(name: str, module: nn.Module) -> None:
        for key, parameter in module.named_parameters(prefix=name):
            for index, rows, source in parts[key].places:
                target = parameter if index is None else parameter[index]
                target[rows].copy_(read_tensor(stored[source]))

    return build_filled_moe(config, device, dtype, fill, after_module)


@dataclass(frozen=True)
class Parts:
    """Where a parameter's values come from: (expert or None, rows, stored tensor's name)."""

    places: tuple[tuple[int | None, slice, str], ...]
    shapes: Mapping[str, Shape]


def _parts(config: MoeConfig, stored: Mapping[str, StoredTensor]) -> dict[str, Parts]:
    mixtral = any(".block_sparse_moe." in name for name in stored)
    style = MIXTRAL if mixtral else OTHERS
    found = {}
    for key, parameter in meta_moe(config).named_parameters():
        shape = tuple(parameter.shape)
        source = key if key.startswith("lm_head.") else f"model.{key}"
        if ".mlp.gate.weight" in key:
            source = source.replace(".mlp.", f".{style.block}.")
        elif ".mlp.experts." in key and source not in stored:
            found[key] = _expert_parts(key, shape, style)
            continue
        found[key] = Parts(((None, slice(None), source),), {source: shape})
    return found


def _expert_parts(key: str, shape: Shape, style: ExpertNames) -> Parts:
    layer = key.split(".mlp.")[0]
    count, rows, columns = shape
    matrices = {style.down: slice(0, rows)}
    if key.endswith("gate_up_proj"):
        matrices = {style.gate: slice(0, rows // 2), style.up: slice(rows // 2, rows)}
    places: list[tuple[int | None, slice, str]] = []
    shapes: dict[str, Shape] = {}
    for expert in range(count):
        for matrix, where in matrices.items():
            source = f"model.{layer}.{style.block}.experts.{expert}.{matrix}.weight"
            places.append((expert, where, source))
            shapes[source] = (where.stop - where.start, columns)
    return Parts(tuple(places), shapes)


def listed_tensors(path: Path) -> dict[str, StoredTensor]:
    """All tensors of the safetensors files that a checkpoint JSON lists."""
    listed = read_json(path).get("checkpoints")
    if not isinstance(listed, list) or not listed:
        raise UsageError(
            f'{path.name} lists no checkpoints: write {{"checkpoints": ["a.safetensors"]}}'
        )
    stored: dict[str, StoredTensor] = {}
    for name in listed:
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name) or ".." in name:
            raise UsageError(
                f"{path.name} lists {short(name)}, which is not a plain *.safetensors file name "
                "(pickled .pt weights are never read): convert it, or copy it beside this file"
            )
        tensors = read_header(path.parent / name)
        if twice := stored.keys() & tensors.keys():
            raise UsageError(
                f"tensor {names(twice)} is in {name} and in a file before it: list each file once"
            )
        stored |= tensors
    return stored
