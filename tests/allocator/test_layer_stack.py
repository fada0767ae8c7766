"""The figures for a stack of quantised layers under CUDA graphs, with their arithmetic."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import pytest
from helpers.allocator_checks import check

from common.allocator.driver import SimulatedDriver
from common.allocator.layer_stack import (
    Knobs,
    NonTorch,
    Stack,
    capture_all,
    forward,
    knob_table,
    measure,
)
from common.allocator.model import CachingAllocator
from common.allocator.settings import MIB
from common.allocator.steps import Step, release, run, with_workspace
from common.errors import UsageError

SEVEN = (64, 32, 16, 8, 4, 2, 1)
TEN = tuple(1 << i for i in range(10))
STACK = Stack()


def private_mib(**knobs: object) -> float:
    return measure(STACK, Knobs(**knobs)).private_reserved_bytes / MIB  # type: ignore[arg-type]


def _growth(**knobs: object) -> list[int]:
    found = measure(STACK, Knobs(**knobs))  # type: ignore[arg-type]
    return [growth // MIB for growth in found.growth_bytes]


@pytest.mark.parametrize(
    ("dequantise", "shared", "expected"),
    [
        ("streamed", False, 462),
        ("streamed", True, 66),
        ("hoisted", False, 2030),
        ("hoisted", True, 290),
    ],
)
def test_seven_sizes(dequantise: str, shared: bool, expected: int) -> None:
    """One weight of 4096 x 4096 in bf16 is 32 MiB, and so is the workspace; each is a segment of
    its own (from 10 MiB on, rounded to 2 MiB). Activations of at most 64 rows are 0.5 MiB: input
    and the two outputs that live together fit into one small segment of 2 MiB.

    streamed: the weight of each layer goes where the one before was.
        One graph: 32 (workspace) + 32 (weight) + 2 (activations)           =   66 MiB
        Seven pools: 7 x 66                                                 =  462 MiB
        One pool: the next size finds all of it free but its kept outputs   =   66 MiB
    hoisted: the eight weights live together.
        One graph: 32 + 8 x 32 + 2                                          =  290 MiB
        Seven pools: 7 x 290                                                = 2030 MiB
        One pool                                                            =  290 MiB
    """
    assert private_mib(sizes=SEVEN, dequantise=dequantise, share_pool=shared) == expected


@pytest.mark.parametrize(
    ("dequantise", "separate", "small_first", "large_first"),
    [("streamed", 698, 102, 88), ("fused", 378, 58, 56)],
)
def test_ten_sizes_and_the_order_of_captures(
    dequantise: str, separate: int, small_first: int, large_first: int
) -> None:
    """Rows up to 128 are small (1 MiB at most), 256 and 512 (2 and 4 MiB) take segments of 20.

    streamed, a pool each: 1..64: 7 x 66; 128: 32 + 32 + 2 x 2 (three blocks of 1 MiB) = 68;
        256 and 512: 32 + 32 + 20 = 84 each. 462 + 68 + 2 x 84                      = 698 MiB
    fused, a pool each: the same without the weights: 698 - 10 x 32                 = 378 MiB
    One pool, largest first: 32 + 32 + 20 for 512; at 128 two small segments more   =  88 MiB
        fused: the same without a weight, 32 + 20 + 4                               =  56 MiB
    One pool, smallest first: 66 up to 32; at 64 and 128 a small segment each, for outputs
        that are kept; at 256 the input of 2 MiB, asked for before the first weight, goes into the
        free 32 MiB of the weight, which then needs a segment of its own: 66 + 4 + 32 = 102 MiB
        fused: 34 + 4, and at 256 a segment of 20                                   =  58 MiB
    """
    assert private_mib(sizes=TEN, dequantise=dequantise) == separate
    assert private_mib(sizes=TEN, dequantise=dequantise, share_pool=True) == small_first
    assert private_mib(sizes=TEN[::-1], dequantise=dequantise, share_pool=True) == large_first


def test_growth_per_capture_adds_up_to_what_is_reserved() -> None:
    for shared in (False, True):
        for sizes in (SEVEN, TEN, TEN[::-1]):
            found = measure(STACK, Knobs(sizes=sizes, share_pool=shared))
            assert sum(found.growth_bytes) == found.private_reserved_bytes
            assert len(found.growth_bytes) == len(sizes)
    assert _growth(share_pool=True) == [66, 0, 0, 0, 0, 0, 0]
    assert _growth(share_pool=True, sizes=TEN) == [66, 0, 0, 0, 0, 0, 2, 2, 32, 0]
    assert _growth(share_pool=True, sizes=TEN[::-1]) == [84, 0, 4, 0, 0, 0, 0, 0, 0, 0]


def test_sharing_the_pool_without_the_stream_saves_nothing() -> None:
    assert private_mib(share_pool=True, share_stream=False) == private_mib(share_pool=False) == 462


def test_a_fused_kernel_leaves_workspace_and_activations() -> None:
    """No weight in the pool: 32 + 2 MiB per graph."""
    assert private_mib(dequantise="fused") == 7 * 34
    assert private_mib(dequantise="fused", share_pool=True) == 34


def test_a_smaller_workspace_saves_less_than_its_size() -> None:
    """8 MiB are under 10: a segment of 20 MiB. 20 + 32 + 2, seven times."""
    found = measure(replace(STACK, workspace_bytes=8 * MIB), Knobs())
    assert found.private_reserved_bytes == 7 * 54 * MIB


def test_growing_segments_cost_granules_of_20_mib_here() -> None:
    """32 + 32 MiB in granules of 20: 80 MiB, and 2 for what is small."""
    assert private_mib(expandable=True, share_pool=True) == 82


def test_what_graphs_pin_is_nearly_all_of_it() -> None:
    """Retained: reserved without the blocks that somebody holds (inputs and outputs)."""
    found = measure(STACK, Knobs())
    held = 2 * sum(STACK.activation_bytes(batch) for batch in SEVEN)
    assert found.private_retained_bytes == 462 * MIB - held


def test_the_default_pool_has_the_weights_and_at_its_peak_the_prefill() -> None:
    """Eight int8 weights of 16 MiB. A prefill of 2048 rows: 32 (workspace) + 32 (weight) + 3 x 16
    (input and two outputs). The next capture empties the cache.
    """
    found = measure(STACK, Knobs(prefill_tokens=2048))
    assert found.default_reserved_bytes == 8 * 16 * MIB
    assert found.default_peak_reserved_bytes == (8 * 16 + 32 + 32 + 3 * 16) * MIB


def test_freezing_undoes_the_saving() -> None:
    """Constant folding keeps the int8 weights and makes bf16 ones: 8 x (16 + 32) MiB."""
    frozen = measure(STACK, Knobs(dequantise="frozen"))
    assert frozen.default_reserved_bytes == 8 * 48 * MIB
    assert frozen.default_reserved_bytes > 8 * STACK.weight_bytes  # more than never quantising
    assert frozen.private_reserved_bytes == 7 * 34 * MIB


def test_warm_up_in_the_pool_does_not_add_to_the_recording() -> None:
    """Warm-up frees all that it took before the recording asks for the same again."""
    assert private_mib(warm_up="graph pool") == private_mib(warm_up="none") == 462


def test_memory_outside_torch_is_a_stated_parameter() -> None:
    """Seven graphs of 8 x (dequantise + product) nodes of 10 kB, and a context as given."""
    found = measure(STACK, Knobs(), NonTorch(bytes_per_node=10_000, context_bytes=500_000_000))
    assert found.non_torch_bytes == 7 * 16 * 10_000 + 500_000_000
    fused = measure(STACK, Knobs(dequantise="fused"), NonTorch())
    assert fused.non_torch_bytes == 7 * 8 * 10_000


def test_the_table_turns_one_knob_at_a_time() -> None:
    rows = knob_table()
    assert rows[0].saved_bytes == 0 and len({row.knob for row in rows}) == len(rows)
    by_name = {row.knob: row for row in rows}
    assert by_name["one pool for all graphs"].saved_bytes == 396 * MIB
    assert by_name["one pool, a stream per graph"].saved_bytes == 0
    assert by_name["dequantised all at first"].saved_bytes == (462 - 2030) * MIB
    assert by_name["freezing (constant folding)"].saved_bytes < 0
    for row in rows:
        assert row.memories.source == "modelled"
        total = row.memories.total_bytes
        assert rows[0].memories.total_bytes - total == row.saved_bytes
        cells = row.as_dict()
        assert cells["source"] == "modelled" and cells["knob"] == row.knob
        three = ("private_reserved_bytes", "default_reserved_bytes", "non_torch_bytes")
        assert sum(cells[name] for name in three) == total  # type: ignore[misc]


def test_a_forward_frees_all_but_input_and_last_output() -> None:
    for dequantise in ("streamed", "hoisted", "fused", "frozen"):
        live: dict[Hashable, int] = {}
        for step in forward(STACK, 4, dequantise):  # type: ignore[arg-type]
            if step.size is None:
                live.pop(step.name)
            else:
                assert step.name not in live
                live[step.name] = step.size
        assert set(live) == {"input", "output 7"}


def test_the_stack_leaves_a_sound_allocator() -> None:
    for knobs in (Knobs(), Knobs(share_pool=True, expandable=True, warm_up="graph pool")):
        allocator, _ = capture_all(STACK, knobs)
        check(allocator)


def test_steps_that_cannot_be_are_refused() -> None:
    allocator = CachingAllocator(SimulatedDriver(1 << 30))
    held = run([Step("a", 512), Step("b", 512, phase="decode")], allocator)
    assert [entry[7] for entry in allocator.history if entry[0] == "alloc"] == ["", "decode"]
    with pytest.raises(UsageError, match="not held"):
        run([Step("c", None)], allocator, held=held)
    with pytest.raises(UsageError, match="held already"):
        run([Step("a", 512)], allocator, held=held)
    run([Step("a", None)], allocator, held=held)
    release(held, allocator)
    assert held == {} and allocator.counters.allocated == 0


def test_the_workspace_is_taken_once_at_the_first_product() -> None:
    steps = [Step("x", 512, operator="aten.empty"), Step("y", 512, "decode", "aten.mm.default")]
    steps += [Step("z", 512, "decode", "aten.mm.default")]
    found = list(with_workspace(steps, 32 * MIB))
    assert [step.name for step in found] == ["x", "y", "workspace", "z"]
    assert (found[2].size, found[2].phase) == (32 * MIB, "decode")
    assert [step.name for step in with_workspace(steps[:1], MIB)] == ["x"]
