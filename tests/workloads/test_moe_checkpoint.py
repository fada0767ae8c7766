"""Is a local mixture of experts loaded whole, or refused in one line that names what is wrong?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UsageError
from common.workloads.moe_checkpoint import build_moe_from_checkpoint, moe_config_from_json
from common.workloads.moe_quantised import check_experts_shrank, quantise_experts

DATA = Path(__file__).parents[1] / "data"
CPU = torch.device("cpu")
INDEX = "model.safetensors.index.json"
TOKENS = torch.tensor([[3, 17, 39, 4]])


@pytest.fixture
def mixtral(tmp_path: Path) -> Path:
    """A copy of the sharded checkpoint that a test may damage."""
    folder = tmp_path / "mixtral"
    shutil.copytree(DATA / "moe_tiny_mixtral", folder)
    return folder


def logits(place: Path) -> torch.Tensor:
    model = build_moe_from_checkpoint(place, CPU, torch.float32, max_positions=8)
    result: torch.Tensor = model(TOKENS)
    return result


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        found |= load_file(shard)
        shard.unlink()
    (folder / INDEX).unlink(missing_ok=True)
    return found


def edit_json(path: Path, **changes: object) -> None:
    raw: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(raw | changes))


def test_shards_one_file_and_stacked_experts_give_the_same_model(mixtral: Path) -> None:
    expected = logits(mixtral)
    stored = tensors(mixtral)
    save_file(stored, mixtral / "model.safetensors")
    assert torch.equal(logits(mixtral), expected)
    for layer in range(2):
        block, start = f"model.layers.{layer}.mlp.", f"model.layers.{layer}.block_sparse_moe."
        taken = {
            key: [stored.pop(f"{start}experts.{e}.{key}.weight") for e in range(6)]
            for key in ("w1", "w2", "w3")
        }
        gate_up = [torch.cat(pair) for pair in zip(taken["w1"], taken["w3"], strict=True)]
        stored[f"{block}experts.gate_up_proj"] = torch.stack(gate_up)
        stored[f"{block}experts.down_proj"] = torch.stack(taken["w2"])
        stored[f"{block}gate.weight"] = stored.pop(f"{start}gate.weight")
    save_file(stored, mixtral / "model.safetensors")
    assert torch.equal(logits(mixtral), expected)


def test_a_checkpoint_json_names_the_files(mixtral: Path) -> None:
    expected = logits(mixtral)
    names = sorted(path.name for path in mixtral.glob("*.safetensors"))
    listing = mixtral / "ds_model.json"
    listing.write_text(json.dumps({"type": "ds_model", "version": 1.0, "checkpoints": names}))
    assert torch.equal(logits(listing), expected)
    for wrong, says in (
        ([], "lists no checkpoints"),
        (["../model.safetensors"], "not a plain"),
        (["model.pt"], "never read"),
        ([names[0], names[0]], "list each file once"),
        (names[1:], "missing in the checkpoint"),
        (["gone.safetensors"], "gone.safetensors is missing"),
    ):
        listing.write_text(json.dumps({"checkpoints": wrong}))
        with pytest.raises(UsageError, match=says):
            logits(listing)


def test_experts_are_quantised_layer_by_layer_while_loading(mixtral: Path) -> None:
    model = build_moe_from_checkpoint(
        mixtral,
        CPU,
        max_positions=8,
        after_module=lambda module: quantise_experts(module, "int8"),
    )
    check_experts_shrank(model, 1)
    reference = logits(mixtral)
    error = (model(TOKENS).float() - reference).norm() / reference.norm()
    assert error.item() < 0.1


def remove_shard(folder: Path) -> None:
    (folder / "model-00002-of-00005.safetensors").unlink()


def cut_shard(folder: Path) -> None:
    path = folder / "model-00003-of-00005.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def lose_an_expert(folder: Path) -> None:
    stored = tensors(folder)
    del stored["model.layers.1.block_sparse_moe.experts.4.w2.weight"]
    save_file(stored, folder / "model.safetensors")


def one_expert_too_many(folder: Path) -> None:
    stored = tensors(folder)
    stored["model.layers.1.block_sparse_moe.experts.6.w2.weight"] = torch.zeros(32, 24)
    save_file(stored, folder / "model.safetensors")


def narrower_expert(folder: Path) -> None:
    stored = tensors(folder)
    stored["model.layers.0.block_sparse_moe.experts.0.w1.weight"] = torch.zeros(23, 32)
    save_file(stored, folder / "model.safetensors")


def config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **changes)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove_shard, "model-00002-of-00005.safetensors is missing"),
        (cut_shard, "model-00003-of-00005.safetensors is cut short"),
        (lose_an_expert, "experts.4.w2.weight.*missing in the checkpoint"),
        (one_expert_too_many, "experts.6.w2.weight.*has no place"),
        (narrower_expert, r"experts.0.w1.weight.*\(23, 32\)"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (config(num_local_experts=4), "has no place in this model"),
        (config(num_experts_per_tok=7), "top_k is 7, but layer 0 has 6 experts"),
        (config(num_experts_per_tok=0), "not a count"),
        (config(num_hidden_layers=3000), "only .* tensors"),
        (config(sliding_window=16), "sliding_window is 16"),
        (config(hidden_act="gelu"), "hidden_act"),
        (config(attention_sinks=True), "unknown key"),
        (config(architectures=["LlamaForCausalLM"]), "choose such a model"),
        (config(architectures=["DeepseekV2ForCausalLM"]), "config.json"),
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    mixtral: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(mixtral)
    with pytest.raises(UsageError, match=says) as raised:
        logits(mixtral)
    assert "\n" not in str(raised.value)


def write_config(folder: Path, **raw: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def test_a_deepseek_config_gives_shapes_and_says_what_is_left_out(tmp_path: Path) -> None:
    """Keys and values of the published config.json of DeepSeek-V2-Lite."""
    folder = write_config(
        tmp_path / "v2-lite",
        architectures=["DeepseekV2ForCausalLM"],
        hidden_size=2048, num_hidden_layers=27, num_attention_heads=16, num_key_value_heads=16,
        intermediate_size=10944, moe_intermediate_size=1408, n_routed_experts=64,
        n_shared_experts=2, num_experts_per_tok=6, first_k_dense_replace=1, vocab_size=102400,
        v_head_dim=128, qk_nope_head_dim=128, qk_rope_head_dim=64, kv_lora_rank=512,
        norm_topk_prob=False, routed_scaling_factor=1.0, scoring_func="softmax",
        topk_method="greedy", max_position_embeddings=163840, rms_norm_eps=1e-6,
        rope_theta=10000, rope_scaling={"type": "yarn", "factor": 40},
        tie_word_embeddings=False, hidden_act="silu",
    )  # fmt: skip
    found = moe_config_from_json(folder, 128)
    assert found.experts == (0,) + (64,) * 26
    assert (found.top_k, found.beside, found.beside_dim) == (6, "shared", 2816)
    assert len(found.left_out) == 2
    with pytest.raises(UsageError, match="run it with random ones"):
        build_moe_from_checkpoint(folder, CPU, max_positions=8)


def test_a_cache_longer_than_the_model_was_trained_for_is_refused(mixtral: Path) -> None:
    with pytest.raises(UsageError, match="choose between 1 and 64"):
        moe_config_from_json(mixtral, 65)
    with pytest.raises(UsageError, match="choose between 1 and 64"):
        moe_config_from_json(mixtral, 0)
