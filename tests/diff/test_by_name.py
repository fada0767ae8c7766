"""Do the rows of one name add up, and do none get lost?"""

from __future__ import annotations

import json
from fractions import Fraction

from helpers.differences import difference, large, row

from common.diff.by_name import GROUPS_KEPT, aggregate, document
from common.diff.difference import SCHEMA, Difference, Row, Status, Tier

KEYS = {
    "schema", "source", "quantity", "a", "b", "delta", "rows", "remainders", "residual", "gaps",
    "verdict", "confidence", "reasons", "warnings", "by_name",
}  # fmt: skip


def test_groups_of_one_name_become_one_row_with_exact_sums() -> None:
    rows = [
        row("gemm", 100, 90, 2, 1, path="a", tier=Tier.POSITION),
        row("gemm", 10, 60, 1, 4, path="b", tier=Tier.NORMALISED),
        row("add", 5, 6),
    ]
    gemm, add = aggregate(rows)
    assert (gemm.name, gemm.a, gemm.b, gemm.delta) == ("gemm", 110, 150, 40)
    assert (gemm.count_a, gemm.count_b) == (3, 5)
    assert gemm.tier is Tier.NORMALISED  # the better of the two
    assert gemm.path is None
    assert [child.delta for child in gemm.children] == [50, -10]
    assert add is rows[2]


def test_the_effects_of_a_name_add_up_to_its_delta() -> None:
    for summed in aggregate(large(500, 40).rows):
        assert summed.count_effect + summed.duration_effect == summed.delta


def test_a_path_that_all_groups_share_is_kept() -> None:
    (only,) = aggregate([row("k", 1, 2, path="decode"), row("k", 3, 4, path="decode")])
    assert only.path == "decode"


def test_names_are_told_apart_by_what_they_became() -> None:
    rows = [row("k", 1, 2), row("k", 1, 2, name_b="other"), row("k", 1, 2, name_b="k")]
    found = {(summed.name, summed.name_b): summed for summed in aggregate(rows)}
    assert set(found) == {("k", None), ("k", "other")}
    assert found["k", None].count_a == 2


def test_a_group_that_only_one_side_has_joins_those_of_its_name() -> None:
    (k,) = aggregate([row("k", 5, 0, 1, 0), row("k", 5, 5), row("k", 0, 7, 0, 1)])
    assert (k.status, k.count_a, k.count_b, k.delta) == (Status.BOTH, 2, 2, 2)
    (gone,) = aggregate([row("k", 5, 0, 1, 0), row("k", 6, 0, 1, 0)])
    assert (gone.status, gone.delta) == (Status.REMOVED, -11)


def test_sums_hold_all_groups_also_where_children_are_capped() -> None:
    rows = [row("k", n, 3 * n, path=str(n)) for n in range(1, 2 * GROUPS_KEPT)]
    (k,) = aggregate(rows)
    assert k.delta == sum(r.delta for r in rows)
    assert len(k.children) == GROUPS_KEPT
    assert k.children[0].delta == max(r.delta for r in rows)


def test_nothing_is_lost_in_many_rows() -> None:
    whole = large(5000, 700)
    found = aggregate(whole.rows)
    for figure in ("a", "b", "delta", "count_a", "count_b"):
        assert sum(getattr(r, figure) for r in found) == sum(getattr(r, figure) for r in whole.rows)
    sizes = [abs(r.delta) for r in found]
    assert sizes == sorted(sizes, reverse=True)
    assert whole.residual == 0


def test_the_order_does_not_depend_on_that_of_the_rows() -> None:
    rows = large(300, 30).rows
    there, back = aggregate(rows), aggregate(rows[::-1])
    assert [(r.name, r.name_b, r.delta) for r in there] == [
        (r.name, r.name_b, r.delta) for r in back
    ]


def check_document(found: Difference) -> None:
    read = json.loads(json.dumps(document(found)))
    assert read.keys() >= KEYS and read["schema"] == SCHEMA
    assert {"a_ns", "b_ns", "delta_ns", "causes"} <= read["gaps"].keys()
    for key in ("rows", "by_name"):
        sums = sum(r["delta"] for r in read[key]) + sum(r["delta"] for r in read["remainders"])
        assert sums == read["delta"]
    assert read["residual"] == 0
    assert all("children" not in r for r in read["by_name"])
    row_keys = {"name", "tier", "status", "a", "b", "delta", "count_a", "count_b"}
    for found_row in (*read["rows"], *read["by_name"]):
        assert row_keys | {"count_effect", "duration_effect"} <= found_row.keys()


def test_the_document_has_all_keys_whatever_differs() -> None:
    check_document(large(400, 50))
    check_document(difference())
    check_document(difference([row("k", 7, 7)], quantity="peak_allocated_bytes"))


def test_no_rows_give_no_names() -> None:
    empty: tuple[Row, ...] = ()
    assert aggregate(empty) == ()


def test_the_count_effect_is_rounded_as_an_exact_fraction_to_even() -> None:
    for count_a in range(1, 8):
        for count_b in range(1, 8):
            for a in range(0, 40):
                exact = Fraction((count_b - count_a) * a, count_a)
                assert row("k", a, 5, count_a, count_b).count_effect == round(exact)
