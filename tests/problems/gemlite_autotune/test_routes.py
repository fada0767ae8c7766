"""The route map: its rules, its holes, and GemLite's own forward asked about the same layers."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import UsageError
from problems.gemlite_autotune.coverage import coverage
from problems.gemlite_autotune.devices import describe
from problems.gemlite_autotune.layers import Layer, bucket, check_layer
from problems.gemlite_autotune.pruning import candidates
from problems.gemlite_autotune.routes import reaches, route, route_map
from problems.gemlite_autotune.shipped_tables import Config, Key, Row, shipped_tables
from problems.gemlite_autotune.spaces import raw_space

W4 = Layer(4096, 4096, "a16w4", 128)
RTX_4090, H200 = describe("rtx-4090"), describe("h200-sxm")


@pytest.mark.slow
@pytest.mark.parametrize("gpu", ["rtx_4090", "h200"])
def test_the_map_is_what_gemlites_forward_would_launch(
    request: pytest.FixtureRequest, gpu: str
) -> None:
    """The full number: python -m problems.gemlite_autotune.compare_routes --layers 10000."""
    found = request.getfixturevalue(gpu)["routes"]
    assert found["disagreements"] == []
    assert len(found["formats"]) == 16
    assert len(found["families"]) == 4
    assert (found["table_hits"] > 200) == (gpu == "rtx_4090")


@pytest.mark.slow
def test_a_wrong_rule_is_noticed(rtx_4090: dict[str, Any]) -> None:
    noticed = rtx_4090["wrong_rule"]["disagreements"]
    assert noticed and all("M=64" in text for text in noticed)


def test_buckets_of_m() -> None:
    expected = {1: 1, 2: 2, 3: 4, 5: 8, 9: 16, 17: 24, 25: 32, 33: 48, 49: 64, 64: 64, 65: 96,
                97: 128, 129: 192, 3000: 3072, 3073: 4096, 4096: 4096, 9000: 4096}  # fmt: skip
    assert {m: bucket(m) for m in expected} == expected


def test_the_holes_of_the_4090s_table_at_w4() -> None:
    tables = shipped_tables()
    missing = [m for m in range(1, 200) if not route(W4, m, RTX_4090, tables).hit]
    assert missing == [2, 3, 4, 64]
    assert all(not route(W4, m, H200, tables).hit for m in range(1, 200))


def test_after_reset_config_everything_is_tuned() -> None:
    found = route(W4, 8, RTX_4090, None)
    assert (found.family, found.hit, len(found.candidates)) == ("GEMM_SPLITK", False, 17)


def test_stretches_cover_every_batch_once() -> None:
    found = route_map(W4, range(1, 300), RTX_4090, shipped_tables())
    assert [m for s in found for m in range(s.first, s.last + 1)] == list(range(1, 300))


def test_one_bucket_may_have_two_lists() -> None:
    """Triton's key knows 25 to 32 as one; whichever comes first decides what is tuned."""
    below, at = (candidates("GEMM_SPLITK", W4, m, RTX_4090, "max") for m in (31, 32))
    assert W4.key(31) == W4.key(32)
    assert {config.split_k for config in below} - {config.split_k for config in at} == {16}


@pytest.mark.parametrize(
    ("family", "m", "fast", "most"),
    [("GEMV_REVSPLITK", 1, 17, 120), ("GEMM_SPLITK", 8, 17, 920), ("GEMM_SPLITK", 32, 19, 1424),
     ("GEMM_SPLITK", 63, 17, 1328), ("GEMM", 64, 12, 272), ("GEMM", 128, 13, 240),
     ("GEMM", 4096, 13, 324)],
)  # fmt: skip
def test_sizes_of_the_pruned_lists(family: str, m: int, fast: int, most: int) -> None:
    assert len(candidates(family, W4, m, RTX_4090)) == fast
    assert len(candidates(family, W4, m, RTX_4090, "max")) == most


def test_the_lists_are_read_from_the_installed_source() -> None:
    assert len(raw_space("GEMM_SPLITK", "max")) == 7500
    assert raw_space("GEMV_REVSPLITK", "default")[0] == Config(
        1, 32, 16, warps=1, stages=1, a_order=0, dot_mode=0
    )
    with pytest.raises(UsageError, match="choose fast, max, default"):
        raw_space("GEMM", "slow")


def test_rows_that_no_batch_reaches() -> None:
    config = Config(16, 64, 64, warps=4, stages=1)
    dead = Row("4090", "GEMM_SPLITK", Key(4, 4096, 4096, 128, 8, 104), config)
    alive = Row("4090", "GEMM_SPLITK", Key(64, 4096, 4096, 128, 8, 104), config)  # by 49 to 63
    assert not reaches(dead) and reaches(alive)


def test_how_the_4090s_table_stands_to_todays_code() -> None:
    found = {row.family: row for row in coverage(shipped_tables(), "4090", RTX_4090)}
    assert {
        name: (row.entries, row.in_fast, row.in_max, row.reachable) for name, row in found.items()
    } == {
        "GEMV_REVSPLITK": (44, 27, 37, 44),
        "GEMV_SPLITK": (21, 7, 21, 21),
        "GEMM_SPLITK": (507, 0, 448, 407),
        "GEMM": (738, 0, 699, 738),
    }


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Layer(4096, 4096, "a3w3"), "there are a16w4"),
        (Layer(4096, 4096, "a16w4"), "needs group size"),
        (Layer(4096, 4096, "a8w8-int8", 64), "takes no group size"),
        (Layer(4096, 100, "a8w8-int8"), "multiple of 32"),
        (Layer(4096, 4096, "a16w4", 96), "divide K = 4096"),
        (Layer(4096, 4096, "a16w4", 64, "fp64"), "use fp16 or bf16"),
    ],
)
def test_an_impossible_layer_is_said_in_one_line(layer: Layer, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_layer(layer)


def test_an_impossible_batch_and_an_unknown_gpu() -> None:
    with pytest.raises(UsageError, match="give 1 or more"):
        route(W4, 0, RTX_4090, None)
    with pytest.raises(UsageError, match=r"there are .*rtx-4090.*describe another one by"):
        describe("rtx-9090")


def test_one_bit_weights_in_groups_of_32_have_no_kernel_at_small_batches() -> None:
    """The pruner halves BK until two fit a group, below the 32 weights of a packed word."""
    assert route(Layer(4096, 4096, "a16w1", 32), 1, H200, None).candidates == ()
    assert route(Layer(4096, 4096, "a16w1", 64), 1, H200, None).candidates != ()
