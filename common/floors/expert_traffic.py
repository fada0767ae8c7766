"""What does it cost to bring tokens to experts on other devices, and to read the experts there?

The rules of DeepSpeed-MoE (Rajbhandari et al., arXiv 2201.05596, section 5): counts of messages of
an all-to-all over p devices, flat, hierarchical or coordinated with tensor slicing, and the bytes
on the critical path. Counts, not times: a device's own latency and bandwidth turn one into the
other.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import UsageError
from common.floors.active_experts import expected_active


@dataclass(frozen=True)
class Exchange:
    """Messages that one device sends one after the other, and copies of the data that move."""

    messages: int
    volume: int
    gathers: int = 0


def flat_all_to_all(devices: int) -> Exchange:
    """Every device sends to every device: p messages."""
    _positive("devices", devices)
    return Exchange(devices, 1)


def hierarchical_all_to_all(devices: int, per_node: int) -> Exchange:
    """Within the node (G messages), then between nodes (p/G); all data moves twice."""
    _divides("devices", devices, "per_node", per_node)
    return Exchange(per_node + devices // per_node, 2)


def coordinated_all_to_all(devices: int, tensor_parallel: int) -> Exchange:
    """Only devices with the same slice of attention exchange: p/L messages, then a gather over L.

    128 devices, L = 8: 128 C1 + C2 becomes 16 C1 + C2. Tensor slicing has copied the tokens to all
    L devices, so each needs to send an L-th of them.
    """
    _divides("devices", devices, "tensor_parallel", tensor_parallel)
    return Exchange(devices // tensor_parallel, 1, gathers=tensor_parallel)


def exchange_seconds(exchange: Exchange, per_message_s: float, fixed_s: float) -> float:
    """messages × C1 + C2, the paper's latency of one all-to-all."""
    return exchange.messages * per_message_s + fixed_s


def dispatch_bytes(
    tokens: int, top_k: int, hidden: int, devices: int, element_bytes: float = 2
) -> float:
    """Bytes that leave all devices in one direction, for uniform routing; combine sends as many.

    Of each token's k copies a p-th stays where it is.
    """
    _positive("devices", devices)
    return tokens * top_k * hidden * element_bytes * (1 - 1 / devices)


def critical_path_bytes(
    shared_bytes: float, expert_bytes: float, experts: int, top_k: int, tokens: int, devices: int
) -> float:
    """Bytes that one device reads for one layer: the shared part and its touched experts.

    One token on one device reads k experts (the best case); many tokens read all that the device
    holds (the worst); with one expert per device both are the same, and equal to a dense layer.
    """
    _positive("devices", devices)
    held = max(1.0, experts / devices)
    if devices > experts:
        expert_bytes *= experts / devices  # each device holds a slice of one expert
    touched = expected_active(experts, top_k, tokens) / experts * held
    # The slowest device counts, and it has touched at least one expert as soon as a token is there.
    return shared_bytes + max(touched, min(1.0, tokens)) * expert_bytes


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name} is {value}; pass 1 or more")


def _divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    _positive(divisor_name, divisor)
    if value < 1 or value % divisor:
        raise UsageError(f"{name} {value} is no multiple of {divisor_name} {divisor}; choose one")
