"""Which batch, which placement: what does the hierarchical roofline advise for a model too large?

A policy is (N, μ, A_g, F_g, r_w, r_c): N sequences decoded together, computed μ at a time;
attention and experts on the GPU or on the CPU; the shares of expert weights and of the KV cache
that stay on the GPU. All six are searched, within the memory of both sides. For equal throughput
attention on the CPU and experts on the GPU are preferred, the setting of the paper.

Time and memory formulas: MoE-Lightning (arXiv 2411.11217, equations 12-14) and its code (which
counts in 2^30). What the code leaves out is left out here too: prefill time, attention projections,
launches; so the result ranks policies, and promises two to three times the measured throughput.
For attention on the GPU the paper gives the transfers; the memory (the resident share of the
cache, and two buffers of one micro-batch and layer for the rest) is stated here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import UsageError
from common.floors.hierarchical_roofline import LayerTime, Machine
from common.floors.moe_shapes import Count, MoeShape, attention_work, ffn_work, touched_bytes

Numbers = npt.NDArray[np.float64]

# Of the code: 14 % of the GPU's and 20 % of the host's memory stay free, activations of prefill
# need 2.4 times their size.
GPU_SHARE, HOST_SHARE, ACTIVATION_FACTOR = 0.86, 0.8, 2.4
# (attention on the GPU, experts on the GPU), the preferred first.
PLACEMENTS = ((False, True), (True, True), (False, False), (True, False))
CACHE_SHARES = tuple(step / 10 for step in range(11))
# Once the GPU sets the time, throughput is flat in N; rounding must not end the search there.
SAME = 1 - 1e-9


@dataclass(frozen=True)
class Task:
    """What is generated: `prompt` tokens in, `generated` tokens out, per sequence."""

    shape: MoeShape
    prompt: int
    generated: int
    count: Count = "moe-lightning"
    kv_bytes: float = 2
    tensor_parallel: int = 1

    def __post_init__(self) -> None:
        if self.prompt < 1 or self.generated < 2 or self.tensor_parallel < 1:
            raise UsageError(
                f"prompt {self.prompt}, generated {self.generated}: the model needs a prompt of at "
                "least 1 and 2 tokens generated; choose those"
            )


@dataclass(frozen=True)
class Policy:
    """`batch` N and `micro_batch` μ in sequences; `layer` is the time of one decode layer.

    Once the GPU sets the time, every N from `smallest_batch` up to `batch` is as fast: then the
    model does not determine N, and `batch` is only what fits.
    """

    batch: int
    micro_batch: int
    attention_on_gpu: bool
    experts_on_gpu: bool
    weight_share_on_gpu: float
    cache_share_on_gpu: float
    layer: LayerTime
    tokens_per_s: float
    gpu_bytes: float
    host_bytes: float
    smallest_batch: int

    @property
    def micro_batches(self) -> int:
        return self.batch // self.micro_batch


def micro_batches(largest: int = 4096) -> Iterator[int]:
    """The grid of the published search: 1, 2, 3, 4, then in steps of 32."""
    yield from (1, 2, 3)
    yield from range(4, largest, 32)


def best_policy(
    machine: Machine,
    task: Task,
    placements: Sequence[tuple[bool, bool]] = PLACEMENTS,
) -> Policy:
    """The policy with the highest modelled throughput. UsageError if no policy fits in memory."""
    if machine.cpu.memory_bytes is None or machine.gpu.memory_bytes is None:
        raise UsageError(f"{machine.id}: the search needs the memory of both sides; give them")
    best: Policy | None = None
    for attention, experts in placements:
        # Where attention is computed on the CPU, no part of the cache belongs on the GPU.
        for share in CACHE_SHARES if attention else (0.0,):
            found = _Search(machine, task, attention, experts, share).best()
            if found and (best is None or found.tokens_per_s * SAME > best.tokens_per_s):
                best = found
    if best is None:
        raise UsageError(
            f"{task.shape.id} fits {machine.id} at no batch: not one sequence of "
            f"{task.prompt + task.generated} tokens; give it more memory or shorten the sequence"
        )
    return best


class _Search:
    """One placement: what does not depend on μ and N is computed once."""

    def __init__(
        self, machine: Machine, task: Task, attention: bool, experts: bool, cache_share: float
    ) -> None:
        shape = task.shape
        self.machine, self.task = machine, task
        self.attention, self.experts, self.cache_share = attention, experts, cache_share
        self.layer_experts = shape.layer_expert_bytes()
        self.other = shape.other_bytes()
        # Keys and values of one token in one layer.
        self.kv_per_token = 2 * shape.kv_heads * shape.head_dim * task.kv_bytes
        self.tokens = task.prompt + task.generated
        assert machine.cpu.memory_bytes and machine.gpu.memory_bytes  # checked by the caller
        self.gpu_limit = GPU_SHARE * machine.gpu.memory_bytes
        self.host_limit = HOST_SHARE * machine.cpu.memory_bytes
        self.one = attention_work(shape, 1, self.tokens, task.kv_bytes, task.count)

    def best(self) -> Policy | None:
        best: Policy | None = None
        for micro in micro_batches():
            found = self._best_batch(micro)
            if found is None:
                break  # a larger micro-batch needs more memory still
            if best is None or found.tokens_per_s >= best.tokens_per_s * SAME:
                best = found
        return best

    def _best_batch(self, micro: int) -> Policy | None:
        """All N for this μ at once, up to the first that is slower than the one before it."""
        shape, task = self.task.shape, self.task
        per_sequence = 2 * shape.hidden * task.prompt  # hidden states of the prompt, on both sides
        most = min(self.gpu_limit, self.host_limit) / (per_sequence * micro)
        passes = np.arange(1, max(2, int(most) + 2), dtype=np.float64)
        batch = passes * micro
        share = self._weight_share(micro, batch)
        host = self._host_bytes(batch, share)
        fits = (share >= 0) & (host <= self.host_limit)
        if not fits[0]:
            return None
        link_s, cpu_s, gpu_s = self._times(batch, passes, share, micro)
        slowest = np.maximum(np.maximum(link_s, cpu_s), gpu_s)
        rate = batch * task.generated / (slowest * (task.generated - 1) * shape.layers)
        worse = ~fits[1:] | (rate[1:] < rate[:-1] * SAME)
        end = int(np.argmax(worse)) + 1 if worse.any() else len(rate)
        at = end - 1  # rates up to there do not fall, so the last is the best, or as good
        first = int(np.argmax(rate[:end] >= rate[at] * SAME))
        layer = LayerTime(float(link_s[at]), float(cpu_s[at]), float(gpu_s[at]))
        gpu = self._gpu_bytes(micro, batch, share)
        placed = (self.attention, self.experts, float(share[at]), self.cache_share)
        sizes = (float(gpu[at]), float(host[at]), micro * (first + 1))
        return Policy(micro * end, micro, *placed, layer, float(rate[at]), *sizes)

    def _times(
        self, batch: Numbers, passes: Numbers, share: Numbers, micro: int
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Seconds of one decode layer on the link, the CPU and the GPU, for every N."""
        machine, task = self.machine, self.task
        link, cpu, gpu = (np.zeros_like(batch) for _ in range(3))
        if self.attention:
            # The cache grows while tokens are generated: half of them are there on average.
            context = task.prompt + task.generated / 2
            link += self.kv_per_token * context * batch * (1 - self.cache_share)
            gpu += batch * machine.gpu.time_s(self.one)
        else:
            cpu += batch * machine.cpu.time_s(self.one)
        if self.experts:
            link += self.layer_experts * (1 - share)
            gpu += passes * machine.gpu.time_s(ffn_work(task.shape, micro, task.count))
        else:  # weights are read once for the whole batch: the CPU has room for its activations
            cpu += self._experts_on_cpu_s(batch)
        return link / (machine.link_gb_per_s * 1e9), cpu, gpu

    def _experts_on_cpu_s(self, batch: Numbers) -> Numbers:
        shape, task, cpu = self.task.shape, self.task, self.machine.cpu
        one = ffn_work(shape, 1, task.count)
        activations = one.bytes_moved - touched_bytes(shape, 1, task.count)
        touched = np.full_like(batch, shape.layer_expert_bytes())
        if task.count == "counted":
            touched *= 1 - (1 - shape.top_k / shape.experts) ** batch
        moving = (touched + batch * activations) / (cpu.bandwidth_gb_per_s * 1e9)
        return np.maximum(moving, batch * one.flops / (cpu.peak_tflop_per_s * 1e12))

    def _weight_share(self, micro: int, batch: Numbers) -> Numbers:
        """r_w that just fits the GPU, at most 1; below 0 where not even 0 does."""
        none = self._gpu_bytes(micro, batch, np.zeros_like(batch))
        if not self.experts:
            return np.where(none <= self.gpu_limit, 0.0, -1.0)
        each = self.layer_experts * (self.task.shape.layers - 2)  # bytes are linear in the share
        if each <= 0:  # so few layers that the two buffers alone hold all of them
            return np.where(none <= self.gpu_limit, 1.0, -1.0)
        return np.minimum(1.0, (self.gpu_limit - none) / each)

    def _gpu_bytes(self, micro: int, batch: Numbers, share: Numbers) -> Numbers:
        shape, task = self.task.shape, self.task
        hidden, prompt = shape.hidden, task.prompt
        weights = self.other + np.zeros_like(batch)
        if self.experts:
            weights += self.layer_experts * (shape.layers * share + 2 * (1 - share))
        kept = self.kv_per_token * self.tokens
        if self.attention:
            weights += self.cache_share * kept * batch * shape.layers
            weights += 2 * (1 - self.cache_share) * kept * micro
        prefill = task.tensor_parallel * hidden * prompt * (4 * micro + 2 * batch)
        prefill += 8 * prompt * shape.kv_heads * shape.head_dim * micro
        routed = micro * shape.top_k * prompt * (hidden + 3 * shape.expert_width)
        activations = np.maximum(prefill, 4 * hidden * batch)
        return weights + activations + ACTIVATION_FACTOR * routed

    def _host_bytes(self, batch: Numbers, share: Numbers) -> Numbers:
        shape, task = self.task.shape, self.task
        kept = self.kv_per_token * self.tokens * batch * shape.layers
        if self.attention:
            kept *= 1 - self.cache_share
        staging = 2 * self.layer_experts * (1 - share) if self.experts else 0.0
        weights = self.layer_experts * shape.layers * (1 - share)
        return weights + kept + 2 * shape.hidden * task.prompt * batch + staging
