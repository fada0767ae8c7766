"""Are the weights those that are said, in number and value, and what does building them cost?"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from common.workloads.llama import CONFIGS, Llama, LlamaConfig
from common.workloads.weights import build_random, parameter_counts

CPU = torch.device("cpu")
# Six equal layers that weigh more than embedding and head, so that one layer is a clear step.
SIX_LAYERS = LlamaConfig(6, 256, 8, 2, 1024, 512, 16, 32)


def quantise(module: nn.Module) -> None:
    """One byte per weight instead of two, below `module` and, as in torchao, of `module` itself."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            smaller = (child.weight * 40).to(torch.int8)
            child.weight = nn.Parameter(smaller, requires_grad=False)


def bytes_of(module: nn.Module) -> int:
    """Bytes of parameters and buffers, a shared one counted once."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def live_and_peak_bytes(build: Callable[[], Llama], trace: Path) -> tuple[Llama, int, int]:
    """Balance and peak of all allocations during `build`, from the profiler's memory events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model = build()
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    live = peak = 0
    for event in sorted(memory, key=lambda event: float(event["ts"])):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return model, live, peak


def digest(model: Llama) -> str:
    parts = hashlib.sha256()
    for name, parameter in model.named_parameters():
        parts.update(name.encode())
        parts.update(parameter.contiguous().view(torch.uint8).numpy().tobytes())
    return parts.hexdigest()


def test_the_8b_model_has_the_published_number_of_parameters() -> None:
    counts = parameter_counts(CONFIGS["llama-3.1-8b"])
    embedding, norms = 128_256 * 4096, (2 * 32 + 1) * 4096
    assert counts["total"] == 8_030_261_248
    assert counts["linear"] == 7_504_658_432 == counts["total"] - embedding - norms
    assert counts["largest_linear"] == embedding


def test_the_3b_model_has_the_published_number_of_parameters_with_its_tied_embedding_once() -> None:
    counts = parameter_counts(CONFIGS["llama-3.2-3b"])
    norms = (2 * 28 + 1) * 3072
    assert counts["total"] == 3_212_749_824
    # The tied embedding is read as the head, so it is among the linear weights.
    assert counts["linear"] == 3_212_574_720 == counts["total"] - norms
    assert counts["largest_linear"] == 128_256 * 3072


def test_the_tiny_head_has_2_to_the_20_elements_and_the_cpu_model_130_million() -> None:
    assert parameter_counts(CONFIGS["tiny"])["largest_linear"] == 2**20
    assert parameter_counts(CONFIGS["cpu"])["linear"] == 130_023_424


def test_the_same_seed_gives_equal_bits_in_another_process() -> None:
    here = Path(__file__)
    code = (
        "import torch, test_weights as t;"
        "print(t.digest(t.build_random(t.CONFIGS['tiny'], t.CPU, seed=7)))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{here.parent}:{here.parents[2]}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert digest(build_random(CONFIGS["tiny"], CPU, seed=7)) == other
    assert digest(build_random(CONFIGS["tiny"], CPU, seed=8)) != other


@pytest.mark.parametrize("tied", [False, True])
def test_random_weights_give_logits_of_order_one(tied: bool) -> None:
    model = build_random(replace(CONFIGS["tiny"], tied_embeddings=tied), CPU, dtype=torch.float32)
    logits = model(torch.arange(20), torch.arange(20))
    assert 0.3 < logits.std().item() < 3.0


def test_everything_is_on_the_device_in_the_dtype_except_the_frequencies() -> None:
    model = build_random(CONFIGS["tiny"], CPU, dtype=torch.bfloat16)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    rope = tensors.pop("rope")
    assert rope.dtype is torch.float32
    assert {(t.device.type, t.dtype) for t in tensors.values()} == {("cpu", torch.bfloat16)}
    assert not any(t.requires_grad for t in tensors.values())
    assert all(b.abs().max() == 0 for n, b in tensors.items() if n.endswith("_cache"))


def test_a_model_made_without_a_builder_has_its_frequencies_too() -> None:
    built = build_random(CONFIGS["tiny"], CPU)
    assert torch.equal(Llama(CONFIGS["tiny"]).rope, built.rope)


def test_the_callback_gets_each_filled_layer_then_the_norm_and_the_head() -> None:
    seen: list[nn.Module] = []

    def after_module(module: nn.Module) -> None:
        assert not any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()])
        seen.append(module)

    model = build_random(SIX_LAYERS, CPU, after_module=after_module)
    assert seen == [*model.layers, model.norm, model.lm_head]


def test_the_peak_while_building_is_the_quantised_model_and_one_layer(tmp_path: Path) -> None:
    model, live, peak = live_and_peak_bytes(
        lambda: build_random(SIX_LAYERS, CPU, after_module=quantise), tmp_path / "trace.json"
    )
    layer_bf16 = 2 * sum(p.numel() for p in model.layers[0].parameters())
    small = 4096  # generator, frequencies and their intermediates
    assert 0 <= live - bytes_of(model) < small
    # `quantise` itself holds one scaled bf16 weight at a time: the largest is a quarter of a layer.
    assert peak < bytes_of(model) + 1.3 * layer_bf16
    assert peak < 0.75 * 2 * parameter_counts(SIX_LAYERS)["total"]


def test_the_measured_peak_tells_a_build_that_quantises_only_at_the_end(tmp_path: Path) -> None:
    def at_the_end() -> Llama:
        model = build_random(SIX_LAYERS, CPU)
        quantise(model)
        return model

    _, _, peak = live_and_peak_bytes(at_the_end, tmp_path / "trace.json")
    assert peak > 2 * parameter_counts(SIX_LAYERS)["total"]


def test_an_unquantised_tied_head_is_the_embedding_itself() -> None:
    tied = replace(CONFIGS["tiny"], tied_embeddings=True)
    model = build_random(tied, CPU)
    assert model.lm_head.weight is model.embed_tokens.weight
    assert sum(p.numel() for p in model.parameters()) == parameter_counts(tied)["total"]


def test_quantising_a_tied_head_leaves_the_embedding_alone() -> None:
    tied = replace(CONFIGS["tiny"], tied_embeddings=True)
    model = build_random(tied, CPU, after_module=quantise)
    assert model.lm_head.weight.dtype is torch.int8
    assert torch.equal(model.embed_tokens.weight, build_random(tied, CPU).embed_tokens.weight)
