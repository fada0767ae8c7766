"""What the compiled kernels show, each statement on recorded evidence; defects read in the source.

Statements about the `max` list rest on the recorded off-line run, the others on the ordinary one.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest

from common.contract.problem import load_problem
from common.traces.compiled_kernel import CompiledKernel, read_compiled

GPUS = ("rtx-4090", "h200-sxm", "rtx-5090")


def kernels(evidence: str, gpu: str, start: str = "") -> dict[str, CompiledKernel]:
    problem = load_problem("gemlite_autotune")
    folder = problem.folder / problem.evidence[evidence] / "traces" / gpu / "kernels"
    found = {path.name: read_compiled(path) for path in sorted(folder.glob(f"{start}*.json.gz"))}
    assert found
    return found


def config(kernel: CompiledKernel) -> str:
    return str(kernel.facts["config"])


def stages(kernel: CompiledKernel) -> int:
    return int(config(kernel).split(" s")[1])


def without(text: str, prefix: str) -> str:
    return " ".join(part for part in text.split() if not part.startswith(prefix))


def test_stages_change_nothing_where_there_is_no_loop() -> None:
    pairs = same = 0
    found = kernels("max", "rtx-4090", "m1-gemv_revsplitk")
    for one, other in combinations(found.values(), 2):
        if without(config(one), "s") == without(config(other), "s"):
            pairs += 1
            same += one.facts["program_sha256"] == other.facts["program_sha256"]
    assert (len(found), pairs, same) == (120, 60, 60)


def is_narrow(kernel: CompiledKernel) -> bool:
    """Fewer than two fp16 outputs for each lane of the block."""
    block_n = int(config(kernel).split()[0].split("x")[1])
    return bool(block_n < 2 * kernel.resources["threads"])


@pytest.mark.parametrize(("evidence", "gpu"), [("max", "rtx-4090"), *(("cpu", g) for g in GPUS)])
def test_narrow_fp16_outputs_are_added_by_compare_and_swap_and_only_they(
    evidence: str, gpu: str
) -> None:
    found = kernels(evidence, gpu, "m1-gemv_revsplitk")
    for kernel in found.values():
        expected = "compare-and-swap" if is_narrow(kernel) else "red"
        assert kernel.metrics["atomics"] == expected, config(kernel)
    narrow = sum(map(is_narrow, found.values()))
    assert narrow == (48 if evidence == "max" else 2)


def test_fourteen_of_the_max_list_have_a_stack() -> None:
    found = kernels("max", "rtx-4090", "m1-gemv_revsplitk").values()
    stacks = [kernel.resources["stack_bytes"] for kernel in found]
    assert sum(size > 0 for size in stacks) == 14
    assert max(stacks) > 8000
    for kernel in found:  # what has spill instructions has a stack
        spills = kernel.by_class().get("local (spill)", 0)
        assert (spills > 0) <= (kernel.resources["stack_bytes"] > 0), config(kernel)


@pytest.mark.parametrize("gpu", GPUS)
def test_a_pipeline_is_there_exactly_from_two_stages_on(gpu: str) -> None:
    found = [*kernels("cpu", gpu, "m8-gemm").values(), *kernels("cpu", gpu, "m128-gemm").values()]
    assert len(found) > 25
    for kernel in found:
        assert (kernel.count("LDGSTS") > 0) == (stages(kernel) > 1), config(kernel)


def test_the_winners_short_loop_is_unrolled_on_sm_89_and_on_no_other() -> None:
    """Noted as unrolled; that holds for the architecture it was seen on."""
    name = "m8-gemm_splitk-16x128x64-sk16"
    loops = {gpu: next(iter(kernels("cpu", gpu, name).values())) for gpu in GPUS}
    assert loops["rtx-4090"].loop_instructions == 0
    assert loops["rtx-4090"].count("HMMA") == 32
    for gpu in ("h200-sxm", "rtx-5090"):
        assert loops[gpu].loop_instructions > 100 and loops[gpu].count("HMMA") == 8


@pytest.mark.parametrize("gpu", GPUS)
def test_the_order_of_loads_always_changes_the_program(gpu: str) -> None:
    pairs = 0
    for start in ("m8-gemm", "m128-gemm"):
        for one, other in combinations(kernels("cpu", gpu, start).values(), 2):
            if without(config(one), "A") == without(config(other), "A"):
                pairs += 1
                assert one.facts["program_sha256"] != other.facts["program_sha256"]
    assert pairs >= 3


def test_the_pruner_keeps_what_does_not_fit() -> None:
    refused = {
        gpu: [config(k) for k in kernels("cpu", gpu).values() if not k.metrics["can_launch"]]
        for gpu in GPUS
    }
    assert {gpu: len(found) for gpu, found in refused.items()} == {
        "rtx-4090": 0,
        "h200-sxm": 6,
        "rtx-5090": 1,
    }


@pytest.mark.slow
def test_the_flag_of_contiguous_data_is_lost_on_the_way(h200: dict[str, Any]) -> None:
    """`forward_functional` reads index 1 of its arguments, which is the number of bits."""
    assert h200["contiguous"] == [False, True]


@pytest.mark.slow
def test_tuning_one_row_clones_the_weights_inside_each_timed_call(h200: dict[str, Any]) -> None:
    assert h200["restore"]["GEMV_REVSPLITK"] == [["a_ptr", "b_ptr", "c_ptr"]]
    assert h200["restore"]["GEMM"] == [[], []]


@pytest.mark.slow
def test_the_default_mode_of_one_row_does_not_even_look_into_the_table(
    h200: dict[str, Any],
) -> None:
    """With one configuration in the list Triton asks no pruner, where the table is looked up."""
    assert h200["default_list"] == [1]


# The whole max lists of GEMM, compiled off line for sm_89.


@pytest.fixture(scope="module")
def splitk() -> dict[str, CompiledKernel]:
    found = kernels("max-splitk", "rtx-4090", "m8-gemm_splitk-")
    assert len(found) == 920
    return found


def split_of(kernel: CompiledKernel) -> int:
    return int(config(kernel).split("SK")[1].split()[0])


def test_every_512x128_tile_of_the_max_list_asks_for_more_than_a_block_may_have(
    splitk: dict[str, CompiledKernel],
) -> None:
    found = [k for k in splitk.values() if "512x128" in config(k)]
    assert len(found) == 20 == sum(not k.metrics["can_launch"] for k in splitk.values())
    assert {k.resources["shared_bytes"] for k in found} == {135_168}
    assert all(stages(k) == 1 and not k.metrics["can_launch"] for k in found)


@pytest.mark.parametrize(
    ("trips", "one_stage", "more_stages"),
    [(2, 0, 0), (4, 40, 100), (8, 30, 53), (16, 13, 23), (32, 3, 3), (64, 0, 0), (128, 0, 0)],
)
def test_short_loops_are_unrolled_whole(
    splitk: dict[str, CompiledKernel], trips: int, one_stage: int, more_stages: int
) -> None:
    """Share without a loop, in percent. Noted: 4 trips 50 and 100, 8: 30 and 55, 16: 10 and 15."""
    shares = {}
    for many in (False, True):
        unrolled = [
            kernel.loop_instructions == 0
            for kernel in splitk.values()
            if (stages(kernel) > 1) == many
            and 4096 // (split_of(kernel) * int(config(kernel).split()[0].split("x")[2])) == trips
        ]
        shares[many] = round(100 * sum(unrolled) / len(unrolled))
    assert shares == {False: one_stage, True: more_stages}


@pytest.mark.parametrize(
    ("order", "rank", "ties"),
    [
        ("occupancy", 78, 53),
        ("least shared memory", 145, 11),
        ("fewest registers", 190, 99),
        ("waves nearest to 1", 1, 58),
    ],
)
def test_against_the_long_list_the_winner_is_in_the_middle(
    splitk: dict[str, CompiledKernel], order: str, rank: int, ties: int
) -> None:
    """As noted for the 552 of them with a split of 1, 4 or 16 (which sees only those three)."""
    score = {
        "occupancy": lambda k: -k.metrics["occupancy"],
        "least shared memory": lambda k: k.resources["shared_bytes"],
        "fewest registers": lambda k: k.resources["registers"],
        "waves nearest to 1": lambda k: abs(math.log(k.metrics.get("waves") or 1e9)),
    }[order]
    pool = [kernel for kernel in splitk.values() if split_of(kernel) in (1, 4, 16)]
    own = next(score(k) for k in pool if config(k) == "16x128x64 SK16 A2 w8 s1")
    others = [score(k) for k in pool if config(k) != "16x128x64 SK16 A2 w8 s1"]
    assert len(pool) == 552
    assert 1 + sum(o < own for o in others) == rank
    assert sum(o == own for o in others) == ties


@pytest.fixture(scope="module")
def gemm() -> dict[str, CompiledKernel]:
    return kernels("max-gemm", "rtx-4090", "m128-gemm-")


def test_the_order_of_loads_changes_registers_seldom_and_the_program_always(
    gemm: dict[str, CompiledKernel],
) -> None:
    """Noted: no pair is one program, registers differ by 0 in the median, 8 at p90, 52 at most."""
    groups: dict[str, list[CompiledKernel]] = {}
    for kernel in gemm.values():
        groups.setdefault(without(config(kernel), "A"), []).append(kernel)
    pairs = [found for found in groups.values() if len(found) == 2]
    assert len(gemm) == 240 and len(pairs) == 120
    assert all(a.facts["program_sha256"] != b.facts["program_sha256"] for a, b in pairs)
    differ = sorted(abs(a.resources["registers"] - b.resources["registers"]) for a, b in pairs)
    assert (differ[60], differ[-1]) == (0, 52)


def test_a_pipeline_from_two_stages_on_holds_for_the_whole_max_list(
    gemm: dict[str, CompiledKernel],
) -> None:
    for kernel in gemm.values():
        assert (kernel.count("LDGSTS") > 0) == (stages(kernel) > 1), config(kernel)
    assert sum(stages(kernel) == 1 for kernel in gemm.values()) == 120


def test_eight_of_the_max_list_of_gemm_do_not_fit_either(
    gemm: dict[str, CompiledKernel],
) -> None:
    """Not noted before: the pruner's hole is in GEMM too."""
    refused = [config(k) for k in gemm.values() if not k.metrics["can_launch"]]
    assert len(refused) == 8
