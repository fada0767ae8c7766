"""Is a bad checkpoint refused in one line that says what to do, before anything is allocated?"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from common.errors import UsageError
from common.workloads.checkpoint import build_from_checkpoint, config_from_checkpoint
from common.workloads.llama import CONFIGS, RopeScaling
from common.workloads.safetensors_file import read_header, read_tensor

DATA = Path(__file__).parents[1] / "data"
CPU = torch.device("cpu")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST_SHARD = "model-00001-of-00003.safetensors"

Header = dict[str, Any]


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A copy of the checkpoint in one file (tied embeddings, scaled positions)."""
    return shutil.copytree(DATA / "llama_tiny_scaled", tmp_path / "single")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A copy of the checkpoint in three shards."""
    return shutil.copytree(DATA / "llama_tiny_plain", tmp_path / "sharded")


def refusal(folder: Path, max_positions: int = 32) -> str:
    """The message that building from `folder` ends in; one line, with an action after a colon."""
    called: list[nn.Module] = []
    with pytest.raises(UsageError) as caught:
        build_from_checkpoint(folder, CPU, max_positions=max_positions, after_module=called.append)
    message = str(caught.value)
    assert not called, "refused before a layer was built"
    assert "\n" not in message
    assert len(message) < 400
    assert len(message.rsplit(":", 1)[1]) > 10, "says what to do"
    return message


def edit_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_header(path: Path, edit: Callable[[Header], None]) -> None:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def rename(old: str, new: str) -> Callable[[Header], None]:
    return lambda header: header.update({new: header.pop(old)})


def test_the_config_is_read_in_full() -> None:
    config = config_from_checkpoint(DATA / "llama_tiny_scaled", 48)
    assert (config.layers, config.dim, config.heads, config.kv_heads) == (2, 64, 4, 2)
    assert (config.mlp_dim, config.vocab, config.head_dim, config.max_positions) == (
        72,
        128,
        16,
        48,
    )
    assert config.tied_embeddings
    assert config.rope_theta == 500.0
    assert config.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 32)
    assert config.norm_eps == 1e-5


def test_the_published_config_of_the_8b_model_gives_the_built_in_shapes(tmp_path: Path) -> None:
    # The keys and values of meta-llama/Llama-3.1-8B, as transformers 4 wrote them.
    published = {
        "architectures": ["LlamaForCausalLM"],
        **{"attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False},
        **{"bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu"},
        **{"hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336},
        **{"max_position_embeddings": 131072, "model_type": "llama"},
        **{"num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8},
        **{"pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0},
        "rope_scaling": {
            **{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            **{"original_max_position_embeddings": 8192, "rope_type": "llama3"},
        },
        **{"tie_word_embeddings": False, "torch_dtype": "bfloat16"},
        **{"transformers_version": "4.43.0.dev0", "use_cache": True, "vocab_size": 128256},
    }
    (tmp_path / "config.json").write_text(json.dumps(published), encoding="utf-8")
    assert config_from_checkpoint(tmp_path, 512) == CONFIGS["llama-3.1-8b"]


def test_one_file_and_shards_hold_what_their_headers_say() -> None:
    (path,) = (DATA / "llama_tiny_scaled").glob("*.safetensors")
    stored = read_header(path)
    assert len(stored) == 2 * 9 + 2
    values = read_tensor(stored["model.norm.weight"])
    assert values.shape == (64,)
    assert 0.5 <= values.min() < values.max() <= 1.5


def test_layers_are_handed_over_one_by_one(sharded: Path) -> None:
    seen: list[nn.Module] = []
    model = build_from_checkpoint(sharded, CPU, max_positions=8, after_module=seen.append)
    assert seen == [*model.layers, model.norm, model.lm_head]


def test_what_is_no_folder_is_refused(single: Path) -> None:
    assert "is not a folder" in refusal(single / WEIGHTS)
    assert "is not a folder" in refusal(single / "nothing")


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file_is_named(single: Path, name: str) -> None:
    (single / name).unlink()
    assert name in refusal(single)


def test_pickled_weights_are_never_read(single: Path) -> None:
    (single / WEIGHTS).rename(single / "pytorch_model.bin")
    assert "never read" in refusal(single)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / FIRST_SHARD).unlink()
    assert f"{FIRST_SHARD} is missing" in refusal(sharded)


def test_weights_that_are_there_twice_are_refused(sharded: Path) -> None:
    shutil.copy(sharded / FIRST_SHARD, sharded / WEIGHTS)
    assert "both" in refusal(sharded)


def test_a_folder_of_links_as_in_a_hub_cache_is_read(sharded: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in sharded.iterdir():
        (snapshot / path.name).symlink_to(path)
    model = build_from_checkpoint(snapshot, CPU, torch.float32, max_positions=8)
    original = build_from_checkpoint(sharded, CPU, torch.float32, max_positions=8)
    assert torch.equal(model.lm_head.weight, original.lm_head.weight)


@pytest.mark.parametrize(
    "shard",
    [
        *("../outside.safetensors", "/etc/outside.safetensors", "deeper/inside.safetensors"),
        *("a\\b.safetensors", "..safetensors", "a..b.safetensors", ".hidden.safetensors"),
        *("model.bin", "", "new\nline.safetensors", "end.safetensors\n", 7, None),
    ],
)
def test_a_shard_name_that_is_no_plain_file_name_is_refused(sharded: Path, shard: object) -> None:
    outside = sharded.parent / "outside.safetensors"
    shutil.copy(sharded / FIRST_SHARD, outside)
    weight_map = json.loads((sharded / INDEX).read_text(encoding="utf-8"))["weight_map"]
    weight_map["model.norm.weight"] = shard
    edit_json(sharded / INDEX, weight_map=weight_map)
    message = refusal(sharded)
    assert "plain" in message
    assert "model.norm.weight" in message


@pytest.mark.parametrize("weight_map", [None, {}, [], "x"])
def test_an_index_without_a_map_is_refused(sharded: Path, weight_map: object) -> None:
    edit_json(sharded / INDEX, weight_map=weight_map)
    assert "weight_map" in refusal(sharded)


def test_an_index_that_names_the_wrong_shard_is_refused(sharded: Path) -> None:
    weight_map = json.loads((sharded / INDEX).read_text(encoding="utf-8"))["weight_map"]
    (other,) = set(weight_map.values()) - {FIRST_SHARD, weight_map["model.norm.weight"]}
    weight_map["model.norm.weight"] = other
    edit_json(sharded / INDEX, weight_map=weight_map)
    assert "model.norm.weight" in refusal(sharded)


@pytest.mark.parametrize("kept_bytes", [0, 4, 8, 500, 5_000, -1])
def test_a_truncated_file_is_refused(single: Path, kept_bytes: int) -> None:
    raw = (single / WEIGHTS).read_bytes()
    (single / WEIGHTS).write_bytes(raw[:kept_bytes])
    assert "cut short" in refusal(single)


@pytest.mark.parametrize(
    "start",
    [
        *(struct.pack("<Q", 2**63), struct.pack("<Q", 100_000_001), struct.pack("<Q", 0)),
        *(struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"\xff\xfe{}", b"PK\x03\x04" * 4),
    ],
)
def test_what_is_no_safetensors_file_is_refused(single: Path, start: bytes) -> None:
    (single / WEIGHTS).write_bytes(start + bytes(1000))
    assert "no safetensors" in refusal(single)


@pytest.mark.parametrize(
    "offsets", [[0, 255], [4, 260], [-4, 252], [0, 256, 512], "x", [0.0, 256.0], [0, 2**70]]
)
def test_a_tensor_whose_place_in_the_file_is_wrong_is_refused(single: Path, offsets: Any) -> None:
    edit_header(single / WEIGHTS, lambda h: h["model.norm.weight"].update(data_offsets=offsets))
    assert "cut short" in refusal(single)


def test_two_tensors_in_the_same_place_are_refused(single: Path) -> None:
    def edit(header: Header) -> None:
        same = header["model.layers.0.input_layernorm.weight"]["data_offsets"]
        header["model.norm.weight"]["data_offsets"] = same

    edit_header(single / WEIGHTS, edit)
    assert "cut short" in refusal(single)


def test_a_missing_tensor_is_named(single: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edit_header(single / WEIGHTS, rename(name, "model.rotary_emb.something"))
    message = refusal(single)
    assert name in message
    assert "missing" in message


def test_an_unexpected_tensor_is_named(sharded: Path) -> None:
    edit_json(sharded / "config.json", num_hidden_layers=1)
    message = refusal(sharded)
    assert "model.layers.1." in message
    assert "no place" in message


def test_a_head_beside_tied_embeddings_is_refused_with_the_way_out(sharded: Path) -> None:
    edit_json(sharded / "config.json", tie_word_embeddings=True)
    message = refusal(sharded)
    assert "lm_head.weight" in message
    assert "tie_word_embeddings" in message


def test_a_tensor_of_another_shape_is_named_even_where_its_size_is_right(single: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    edit_header(single / WEIGHTS, lambda h: h[name].update(shape=[72, 64]))
    message = refusal(single)
    assert name in message
    assert "(72, 64)" in message
    assert "(64, 72)" in message


def test_a_quantised_tensor_is_refused(single: Path) -> None:
    tensors = load_file(single / WEIGHTS)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, single / WEIGHTS)
    message = refusal(single)
    assert "model.norm.weight" in message
    assert "quantised" in message


def test_the_table_of_frequencies_in_old_files_is_not_needed(single: Path) -> None:
    path = single / WEIGHTS
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    data_bytes = sum(stored.size_bytes for stored in read_header(path).values())
    entry = {"dtype": "F32", "shape": [8], "data_offsets": [data_bytes, data_bytes + 32]}
    edit_header(path, lambda header: header.update({name: entry}))
    path.write_bytes(path.read_bytes() + bytes(32))
    model = build_from_checkpoint(single, CPU, torch.float32, max_positions=8)
    original = build_from_checkpoint(
        DATA / "llama_tiny_scaled", CPU, torch.float32, max_positions=8
    )
    token, position = torch.tensor([3]), torch.tensor([0])
    assert torch.equal(model(token, position), original(token, position))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "architectures"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
        ({"architectures": None}, "architectures"),
        ({"model_type": "mistral"}, "model_type"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"sliding_window": 4096}, "sliding_window"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ({"rope_parameters": {"rope_type": "default", "beta_fast": 1}}, "beta_fast"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": -1}}, "rope_theta"),
        ({"rope_parameters": [1]}, "rope_parameters"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2}}, "linear"),
        ({"num_attention_heads": 3}, "3 heads"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"hidden_size": 64.0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"head_dim": 15}, "head_dim"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"esc\x1b[31m\nape": 1}, "unknown key"),
    ],
)
def test_a_config_that_is_not_exactly_understood_is_refused(
    single: Path, changes: dict[str, object], named: str
) -> None:
    edit_json(single / "config.json", **changes)
    message = refusal(single)
    assert message.startswith("config.json: ")
    assert named in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "wrong", [{"factor": 0.5}, {"low_freq_factor": 4.0}, {"high_freq_factor": 0.5}, {"factor": 0}]
)
def test_a_scaling_that_divides_by_nothing_is_refused(
    single: Path, wrong: dict[str, float]
) -> None:
    content = json.loads((single / "config.json").read_text(encoding="utf-8"))
    edit_json(single / "config.json", rope_parameters=content["rope_parameters"] | wrong)
    assert "factor" in refusal(single)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", "[" * 100_000, '{"a": 1} {'])
def test_a_config_that_is_not_json_is_refused(single: Path, text: str) -> None:
    (single / "config.json").write_text(text, encoding="utf-8")
    assert "config.json is not" in refusal(single)


@pytest.mark.parametrize("max_positions", [0, -1, 129])
def test_a_cache_longer_than_the_trained_context_is_refused(
    single: Path, max_positions: int
) -> None:
    assert "between 1 and 128" in refusal(single, max_positions)
