"""What is timed? One pass of one side over the next of its inputs, everything else before it.

A pass of a prefill is the whole model over (batch, sequence) up to the logits of the last token; a
pass of a decode step is one token per sequence on a cache of `sequence` positions. Inputs, caches
and forced routing are made beforehand. Before a side counts, its logits are compared with those of
the reference (`loop`): a side that computes something else is a failed point.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from common.errors import CheckFailed
from common.floors.batch_scaling import gathered_weight_bytes
from common.timing.clocks import CpuClock, CudaClock
from common.workloads.moe import MoeBlock, SimpleMoETransformer
from common.workloads.moe_experts import BACKENDS, choose_backend
from common.workloads.moe_observed import RoutingSummary, observe_routing
from common.workloads.moe_weights import moe_blocks
from problems.moe_batch_scaling.inputs import Inputs, make_inputs
from problems.moe_batch_scaling.models import HF_WAYS, Models, free_bytes
from problems.moe_batch_scaling.points import Measured, Point

HF = "hf-"
OUR_SIDES = tuple(BACKENDS)
SIDES = (*OUR_SIDES, *(HF + way for way in HF_WAYS))
# Relative, in the Euclidean norm: rounding of other orders of addition, by layers. In 16 bits a
# rounded score now and then moves a token to another expert; something wrong gives 0.5 and more.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.3, torch.float16: 0.3}
REFERENCE = "loop"
PROMPTS_AT_ONCE = 16


class OurSide:
    """One backend of ours. `backend`, routing and cache are set before the clock starts."""

    def __init__(self, models: Models, point: Point) -> None:
        self.point, self.models = point, models
        if point.in_turn:
            most = max(models.most_in_turn.get(point.phase, 1), point.batch)
            self.model: SimpleMoETransformer = models.in_turn(point.phase, point.batch, most)
        else:
            self.model = models.ours(point.top_k, point.weights)
        self.inputs: Inputs = make_inputs(point, self.model.config, models.device)
        self.clock = CudaClock() if models.device.type == "cuda" else CpuClock()
        self.turn = 0
        self._refuse_what_cannot_fit()
        self._fill_cache()

    def _refuse_what_cannot_fit(self) -> None:
        """On a CPU the kernel would end the program: batched_mm says before what it needs."""
        c = self.model.config
        free = free_bytes(self.models.device)
        if self.point.side != "batched_mm" or free is None:
            return
        size = self.model.embed_tokens.weight.element_size()
        needs = gathered_weight_bytes(self.point.tokens, c.top_k, c.dim, c.expert_dim, size)
        if needs > 0.8 * free:
            raise MemoryError(
                f"batched_mm copies {needs / 1e9:.1f} GB of weights for {self.point.tokens} "
                f"tokens, {free / 1e9:.1f} GB are free"
            )

    @torch.no_grad()
    def _fill_cache(self) -> None:
        """Positions before a decode step. All storages and top-ks go on from the same cache: that
        of the model as it is, which is filled once for all sides of a batch and sequence.
        """
        prompt, models = self.inputs.prompt, self.models
        if prompt is None:
            return
        if self.point.in_turn:
            turns = models.turns["decode"]
            if turns.filled_to < self.inputs.start:
                prompts = turn_prompt(self.point, models, turns.most)
                for model, part in turns.windows(PROMPTS_AT_ONCE):
                    run_prompt(model, prompts[part])
                turns.filled_to = self.inputs.start
            return
        if models.filled != (self.point.batch, self.point.sequence) or (
            cached_batch(models.base) != self.point.batch
        ):
            run_prompt(models.base, prompt)
            models.filled = (self.point.batch, self.point.sequence)
        if self.model is not models.base:
            lend_cache(models.base, self.model)

    def select(self, index: int) -> Tensor:
        """Make the model ready for the input of this index; returns its tokens."""
        self.model.backend = self.point.side  # type: ignore[assignment]
        self.model.override = self.inputs.routing[index]
        if self.inputs.prompt is None:
            self.models.filled = None  # a prefill of the base leaves its own positions there
        elif cached_batch(self.model) != self.point.batch:
            self._fill_cache()
        return self.inputs.passes[index]

    @torch.no_grad()
    def run(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens, self.inputs.start, last_only=True)
        return logits

    def sample(self) -> int:
        tokens = self.select(self.turn % len(self.inputs))
        self.turn += 1
        return self.clock.measure(lambda: self.run(tokens))

    def _observed(self, index: int) -> RoutingSummary:
        tokens = self.select(index)
        self.model.backend = "auto"  # picks what every side picks, and a slow side takes longer
        return observe_routing(self.model, tokens, self.inputs.start)

    def describe_touched(self) -> float:
        """Distinct experts per layer of the first input."""
        summary = self._observed(0)
        return summary.touched / len(summary.layers)

    def describe(self, measured: Measured) -> Measured:
        """Routing over every input: distinct experts, their bytes, imbalance, entropy."""
        seen = self.models.routing_seen
        if self.point.setting not in seen:  # the same for every side of a setting
            seen[self.point.setting] = tuple(
                self._observed(index) for index in range(len(self.inputs))
            )
        per_input = seen[self.point.setting]
        runs = backend_of_auto(self.model, self.point) if self.point.side == "auto" else ""
        n = len(per_input)
        layers = list(zip(*(summary.layers for summary in per_input), strict=True))
        return replace(
            measured,
            runs=runs,
            touched=tuple(sum(each.active for each in layer) / n for layer in layers),
            touched_bytes=sum(summary.touched_bytes for summary in per_input) / n,
            imbalance=sum(summary.worst_imbalance for summary in per_input) / n,
            entropy_bits=sum(each.entropy_bits for layer in layers for each in layer)
            / (n * len(layers)),
        )


class TheirSide:
    """Transformers' model on our tensors. Its cache is cut back to the prompt after each step."""

    def __init__(self, models: Models, point: Point, family: str) -> None:
        self.point, self.family = point, family
        self.ours = OurSide(models, replace(point, side=REFERENCE))
        self.model: Any = models.theirs(family, point.side.removeprefix(HF))
        self.inputs, self.clock = self.ours.inputs, self.ours.clock
        self.cache: Any = None
        self.turn = 0
        if self.inputs.prompt is not None:
            with torch.no_grad():
                self.cache = self.model(
                    self.inputs.prompt, use_cache=True, logits_to_keep=1
                ).past_key_values

    @torch.no_grad()
    def run(self, tokens: Tensor) -> Tensor:
        out = self.model(tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = out.logits
        return logits

    def select(self, index: int) -> Tensor:
        if self.cache is not None:
            # A negative number: so many positions are taken away.
            self.cache.crop(self.inputs.start - self.cache.get_seq_length())
        return self.inputs.passes[index]

    def sample(self) -> int:
        tokens = self.select(self.turn % len(self.inputs))
        self.turn += 1
        return self.clock.measure(lambda: self.run(tokens))

    def describe(self, measured: Measured) -> Measured:
        """It picks the experts that our router picks: the same weights, the same tokens."""
        return self.ours.describe(measured)


def run_prompt(model: SimpleMoETransformer, prompt: Tensor) -> None:
    model.backend, model.override = "auto", None
    model(prompt, last_only=True)


def turn_prompt(point: Point, models: Models, most: int) -> Tensor:
    """The prompts of the largest batch: smaller ones go on from the first of them."""
    prompt = make_inputs(replace(point, batch=most), models.config, models.device).prompt
    assert prompt is not None
    return prompt


def lend_cache(owner: SimpleMoETransformer, model: SimpleMoETransformer) -> None:
    for mine, theirs in zip(moe_blocks(model), moe_blocks(owner), strict=True):
        mine.self_attn.cache = theirs.self_attn.cache


def backend_of_auto(model: SimpleMoETransformer, point: Point) -> str:
    """What `auto` runs at this point in the first layer that has experts."""
    blocks = (layer.mlp for layer in moe_blocks(model) if isinstance(layer.mlp, MoeBlock))
    block = next(blocks, None)
    if block is None:
        return ""
    weight = model.embed_tokens.weight
    return choose_backend(
        block.experts, point.tokens, point.top_k, weight.dtype, weight.device.type
    )


def cached_batch(model: SimpleMoETransformer) -> int:
    """For how many sequences the model holds a cache; 0 where it has none."""
    cache = model.layers[0].self_attn.cache  # type: ignore[union-attr]
    return int(cache[0].shape[0]) if isinstance(cache, tuple) else 0


class Opener:
    """Opens sides, warm: each is compared with the reference's logits of the same setting."""

    def __init__(self, models: Models, family: str = "mixtral", check: bool = True) -> None:
        self.models, self.family, self.check = models, family, check
        self.expected: tuple[str, Tensor] | None = None
        self.errors: dict[str, float] = {}

    def __call__(self, point: Point) -> OurSide | TheirSide:
        if self.models.device.type == "cuda":
            torch.cuda.empty_cache()  # what a side before left, or ran out of
        theirs = point.side.startswith(HF)
        side = TheirSide(self.models, point, self.family) if theirs else OurSide(self.models, point)
        if self.check:
            self._compare(point, side)
        else:
            side.sample()
        return side

    def _compare(self, point: Point, side: OurSide | TheirSide) -> None:
        if self.expected is None or self.expected[0] != point.setting:
            reference = OurSide(self.models, replace(point, side=REFERENCE))
            self.expected = (point.setting, reference.run(reference.select(0)).float())
        expected = self.expected[1]
        got = side.run(side.select(0)).float()
        error = ((got - expected).norm() / expected.norm()).item()
        self.errors[point.id] = error
        if not error <= TOLERANCE[self.models.dtype]:
            raise CheckFailed(
                f"its logits are {error:.2g} from the reference's; it computes something else"
            )
