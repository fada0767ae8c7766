"""Does the grammar of claims take what is written in it, refuse all else, and judge intervals?"""

from __future__ import annotations

import ast
import inspect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contract import claims
from common.contract.claims import (
    COMPARISONS,
    QUANTITIES,
    Call,
    Claim,
    Measured,
    check_call,
    judge,
    measure,
    parse_claim,
    parse_quantity,
)
from common.errors import UsageError
from common.report.evidence import Evidence

INFINITY = math.inf


@pytest.mark.parametrize(
    ("text", "low", "high", "strict"),
    [
        ('ratio("a-1.0", "b", "decode") >= 5', 5, INFINITY, False),
        ('ratio("a","b","decode")<=5.5', -INFINITY, 5.5, False),
        ('ratio("a", "b", "c") > 5', 5, INFINITY, True),
        ('ratio("a", "b", "c") < 1e-3', -INFINITY, 1e-3, True),
        ('ratio("a", "b", "c") == 0', 0, 0, False),
        ('x("a") within 1% of 14', 13.86, 14.14, False),
        (' x ( "a" )  within  2.5 %  of  100 ', 97.5, 102.5, False),
    ],
)
def test_every_form_of_the_grammar(text: str, low: float, high: float, strict: bool) -> None:
    claim = parse_claim(text)
    assert (claim.low, claim.high, claim.strict) == (
        pytest.approx(low),
        pytest.approx(high),
        strict,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected name, found the end"),
        ("ratio", "expected (, found the end"),
        ("ratio()", "expected string, found )"),
        ('ratio("a"', "expected ), found the end"),
        ('ratio("a",)', "expected string, found )"),
        ('ratio("a", b)', "expected string, found b"),
        ('ratio("a")', "expected >=, <=, >, <, == or within, found the end"),
        ('ratio("a") = 5', "unexpected '= 5'"),
        ('ratio("a") != 5', "unexpected '!= 5'"),
        ('ratio("a") , 5', "expected >=, <=, >, <, == or within, found ,"),
        ('ratio("a") about 5', "expected >=, <=, >, <, == or within, found about"),
        ('ratio("a") >=', "expected number, found the end"),
        ('ratio("a") >= "5"', "expected number, found 5"),
        ('ratio("a") >= -5', "unexpected '-5'"),
        ('ratio("a") >= 5 x', "nothing may follow, found x"),
        ('ratio("a") >= 5; 1', "unexpected '; 1'"),
        ('ratio("a") >= 1e999', "expected a finite number, found 1e999"),
        ('ratio("a") within 5 of 3', "expected %, found of"),
        ('ratio("a") within 5%', "expected of, found the end"),
        ('ratio("a") within 5% of', "expected number, found the end"),
        ('ratio("unclosed) >= 5', "unexpected"),
        ("__import__('os').system('true') >= 0", "unexpected"),
        ('ratio("a").x >= 0', "unexpected"),
    ],
)
def test_every_error_is_one_line_that_says_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_claim(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("or quantity(…) within P% of NUMBER")


def test_a_quantity_is_followed_by_nothing() -> None:
    assert parse_quantity('milliseconds("a", "b")') == Call("milliseconds", ("a", "b"))
    with pytest.raises(UsageError, match="nothing may follow, found >="):
        parse_quantity('milliseconds("a", "b") >= 5')


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
strings = st.text(st.characters(exclude_characters='"', exclude_categories=("Cs",)), max_size=15)
calls = st.builds(Call, names, st.lists(strings, min_size=1, max_size=4).map(tuple))
numbers = st.floats(0, 1e12, allow_nan=False)


@given(calls)
def test_a_call_survives_being_written_and_read(call: Call) -> None:
    assert parse_quantity(str(call)) == call


@given(calls, st.sampled_from(COMPARISONS), numbers, st.floats(0, 1e12))
def test_a_written_comparison_accepts_what_python_would(
    call: Call, symbol: str, bound: float, value: float
) -> None:
    claim = parse_claim(f"{call} {symbol} {bound!r}")
    assert claim.quantity == call
    compared = {
        ">=": value >= bound, "<=": value <= bound, ">": value > bound, "<": value < bound,
        "==": value == bound,
    }  # fmt: skip
    assert claim.accepts(value) == compared[symbol]
    assert parse_claim(claim.text) == claim


@given(st.text(max_size=40))
def test_no_text_raises_anything_but_a_usage_error(text: str) -> None:
    try:
        parse_claim(text)
    except UsageError as error:
        assert "\n" not in str(error)


def test_nothing_is_ever_evaluated() -> None:
    called = {
        node.func.id
        for node in ast.walk(ast.parse(inspect.getsource(claims)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__", "getattr"}


def judged(text: str, value: float | None, interval: tuple[float, float] | None = None) -> dict:  # type: ignore[type-arg]
    return judge(
        parse_claim(f"x({chr(34)}a{chr(34)}) {text}"), {"x": lambda a: Measured(value, interval)}
    )


@pytest.mark.parametrize(
    ("text", "interval", "reproduced"),
    [
        (">= 5", (5, 9), True),
        (">= 5", (4.9, 9), None),
        (">= 5", (1, 4.9), False),
        (">= 5", (1, 5), None),
        ("> 5", (5, 9), None),
        ("> 5", (5.1, 9), True),
        ("> 5", (1, 5), False),  # 5 itself is not above 5
        ("< 5", (5, 9), False),
        ("<= 5", (1, 5), True),
        ("within 10% of 10", (9, 11), True),
        ("within 10% of 10", (8, 12), None),  # wider than what is accepted: no end is inside
        ("within 10% of 10", (11.5, 12), False),
        ("== 0", (0, 0), True),
        ("== 0", (0, 1), None),
    ],
)
def test_the_whole_interval_decides(
    text: str, interval: tuple[float, float], reproduced: bool
) -> None:
    record = judged(text, sum(interval) / 2, interval)
    assert record["reproduced"] is reproduced
    assert record["interval"] == list(interval)
    assert ("reason" in record) == (reproduced is None)


def test_a_value_without_an_interval_is_judged_by_itself() -> None:
    assert judged(">= 5", 5)["reproduced"] is True
    assert judged(">= 5", 4.999)["reproduced"] is False


def test_what_is_unknown_is_not_decided_and_says_why() -> None:
    assert judged(">= 5", None) == {
        "claim": 'x("a") >= 5', "value": None, "reproduced": None, "reason": "not measured",
    }  # fmt: skip
    record = judge(
        parse_claim('x("a") < 1'), {"x": lambda a: Measured(None, reason="needs profile")}
    )
    assert record["reason"] == "needs profile"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_not_decided(value: float) -> None:
    record = judged(">= 5", value, (1, value))
    assert record["value"] is None and record["reproduced"] is None and "interval" not in record


def test_unknown_quantities_and_wrong_numbers_of_arguments_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="unknown quantity y; known are x"):
        measure(Call("y", ("a",)), {"x": lambda a: Measured(1)})
    with pytest.raises(UsageError, match="wrong number of arguments"):
        measure(Call("x", ("a", "b")), {"x": lambda a: Measured(1)})


def test_an_error_inside_a_quantity_is_not_mistaken_for_a_wrong_call() -> None:
    def broken(a: str) -> Measured:
        raise TypeError("a bug of ours")

    with pytest.raises(TypeError, match="a bug of ours"):
        measure(Call("x", ("a",)), {"x": broken})


def test_the_table_of_quantities_is_what_a_run_can_answer() -> None:
    answered = {
        name: len(inspect.signature(getattr(Evidence, name)).parameters) - 1 for name in QUANTITIES
    }
    assert answered == {name: len(kinds) for name, kinds in QUANTITIES.items()}
    from common.recording.run_folder import Run

    evidence = Evidence(Run(None, {}))  # type: ignore[arg-type]
    assert evidence.quantities().keys() == QUANTITIES.keys()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('ratoi("a", "b", "run")', "unknown quantity ratoi"),
        ('ratio("a", "b")', "takes 3 arguments"),
        ('ratio("a", "c", "run")', "'c', which is no variant; use one of a, b"),
        ('ratio("a", "run", "run")', "'run', which is no variant"),
        ('ratio("a", "b", "a")', "'a', which is no phase"),
    ],
)
def test_a_call_that_no_run_can_answer_is_found_beforehand(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_call(parse_quantity(text), ["a", "b"], ["run"])
    check_call(parse_quantity('operator_share("a", "run", "aten::mm")'), ["a", "b"], ["run"])


def test_a_claim_is_data() -> None:
    assert parse_claim('x("a") >= 1') == Claim('x("a") >= 1', Call("x", ("a",)), 1, INFINITY)
