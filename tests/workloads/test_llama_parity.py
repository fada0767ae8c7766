"""Is this the Llama that everyone else runs? Compared with logits that transformers computed.

The reference is made by `tests/data/make_llama_tiny.py`; nothing here needs transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from common.workloads.checkpoint import build_from_checkpoint
from common.workloads.llama import CONFIGS, Llama, rope_frequencies
from common.workloads.weights import build_random

DATA = Path(__file__).parents[1] / "data"
CPU = torch.device("cpu")
# float32, sums in another order: 2e-5 was seen on logits up to 7. The wrong models below differ
# by more than 0.1.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Reference:
    """`logits` (5, vocab): after the prompt, and after each of the decoded tokens."""

    folder: Path
    prompt: list[int]
    decoded: list[int]
    logits: Tensor

    def model(self, max_positions: int = 32) -> Llama:
        return build_from_checkpoint(self.folder, CPU, torch.float32, max_positions=max_positions)


@pytest.fixture(params=["llama_tiny_plain", "llama_tiny_scaled"])
def reference(request: pytest.FixtureRequest) -> Reference:
    return load(request.param)


def load(name: str) -> Reference:
    expected = json.loads((DATA / name / "expected.json").read_text(encoding="utf-8"))
    logits = torch.tensor(expected["logits"])
    return Reference(DATA / name, expected["prompt"], expected["decoded"], logits)


def in_steps(model: Llama, steps: list[list[int]]) -> list[Tensor]:
    """The logits after each step, where a step is the tokens that are given at once."""
    logits, start = [], 0
    for tokens in steps:
        positions = torch.arange(start, start + len(tokens))
        logits.append(model(torch.tensor(tokens), positions))
        start += len(tokens)
    return logits


def largest_difference(got: Tensor, expected: Tensor) -> float:
    return (got - expected).abs().max().item()


def test_prefill_at_once_and_decoding_give_the_reference_logits(reference: Reference) -> None:
    steps = [reference.prompt, *([token] for token in reference.decoded)]
    got = torch.stack(in_steps(reference.model(), steps))
    assert got.shape == reference.logits.shape
    assert largest_difference(got, reference.logits) < TOLERANCE
    assert got.argmax(-1).tolist()[:-1] == reference.decoded


def test_token_by_token_through_the_cache_gives_the_reference_logits(reference: Reference) -> None:
    steps = [[token] for token in reference.prompt + reference.decoded]
    got = torch.stack(in_steps(reference.model(), steps))[len(reference.prompt) - 1 :]
    assert largest_difference(got, reference.logits) < TOLERANCE


def test_the_prompt_may_be_split_anywhere(reference: Reference) -> None:
    steps = [reference.prompt[:7], reference.prompt[7:]]
    got = in_steps(reference.model(), steps)[-1]
    assert largest_difference(got, reference.logits[0]) < TOLERANCE


def test_a_longer_cache_and_what_is_left_in_it_change_nothing(reference: Reference) -> None:
    model = reference.model(max_positions=100)
    in_steps(model, [[1] * 100])
    got = in_steps(model, [reference.prompt])[0]
    assert largest_difference(got, reference.logits[0]) < TOLERANCE


def test_the_cache_may_be_filled_to_its_last_position_but_not_beyond(reference: Reference) -> None:
    model = reference.model(max_positions=len(reference.prompt))
    got = in_steps(model, [reference.prompt])[0]
    assert largest_difference(got, reference.logits[0]) < TOLERANCE
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.tensor([1]), torch.tensor([len(reference.prompt)]))


def test_the_reference_tells_scaled_from_unscaled_frequencies() -> None:
    reference = load("llama_tiny_scaled")
    model = reference.model()
    model.rope = rope_frequencies(replace(model.config, rope_scaling=None))
    got = in_steps(model, [reference.prompt])[0]
    assert largest_difference(got, reference.logits[0]) > 0.1


def test_the_reference_tells_a_model_that_ignores_the_order_of_its_tokens() -> None:
    reference = load("llama_tiny_plain")
    model = reference.model()
    model.rope = torch.zeros_like(model.rope)
    got = in_steps(model, [reference.prompt])[0]
    assert largest_difference(got, reference.logits[0]) > 0.1


def test_bfloat16_is_close_to_the_reference_but_not_equal(reference: Reference) -> None:
    model = build_from_checkpoint(reference.folder, CPU, max_positions=32)
    got = in_steps(model, [reference.prompt])[0]
    assert got.dtype is torch.bfloat16
    relative = (got.float() - reference.logits[0]).norm() / reference.logits[0].norm()
    assert 1e-4 < relative.item() < 0.1


def test_llama3_frequencies_are_kept_blended_and_divided_by_wavelength() -> None:
    config = CONFIGS["llama-3.1-8b"]
    scaled = rope_frequencies(config)
    plain = rope_frequencies(replace(config, rope_scaling=None))
    wavelength = 2 * torch.pi / plain
    assert torch.equal(scaled[wavelength < 8192 / 4], plain[wavelength < 8192 / 4])
    assert torch.allclose(scaled[wavelength > 8192], plain[wavelength > 8192] / 8, rtol=1e-6)
    between = (wavelength > 8192 / 4) & (wavelength < 8192)
    assert between.any()
    assert (scaled[between] < plain[between]).all()
    assert (scaled[between] > plain[between] / 8).all()


def test_casting_a_built_model_is_refused_because_it_would_round_the_positions() -> None:
    model = build_random(CONFIGS["tiny"], CPU, dtype=torch.float32).to(torch.bfloat16)
    with pytest.raises(AssertionError, match="build_random"):
        model(torch.tensor([1]), torch.tensor([0]))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_step_is_one_graph_and_decodes_like_eager(dtype: torch.dtype) -> None:
    def model() -> Llama:
        return build_random(CONFIGS["tiny"], CPU, dtype=dtype)

    torch._dynamo.reset()
    counters.clear()
    eager, other = model(), model()
    step = torch.compile(other, fullgraph=True)
    prompt = torch.arange(8)
    eager(prompt, prompt)
    other(prompt, prompt)
    # Summation order differs; bf16 has 8 bits, and logits are of order one.
    bound = 1e-4 if dtype is torch.float32 else 0.1
    token = torch.tensor([5])
    for position in range(8, 14):
        at = torch.tensor([position])
        expected, got = eager(token, at), step(token, at)
        assert largest_difference(got.float(), expected.float()) < bound
        token = expected.argmax()[None]
    cache = other.get_buffer("layers.0.self_attn.k_cache")
    assert cache[0, 0, 13].abs().max() > 0, "the compiled step wrote its keys into the cache"
    assert cache[0, 0, 14:].abs().max() == 0
    assert counters["stats"]["unique_graphs"] == 1, (
        "the position is data, not a shape: nothing compiles again"
    )
