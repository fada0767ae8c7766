"""Is a number in the text what its evidence or its arithmetic gives? Checks inside comments.

    <!-- check: 7.35 = 14 * 525_336_576 / 1e9 -->                    arithmetic
    <!-- check: 95.9 = 100 * operator_share("v", "decode", "op") run=cpu -->   from evidence
    <!-- check: "GEMM" = cell("v", "table", "row", "column") run=cpu -->       a table's cell
    <!-- check: test tests/problems/test_x.py::test_name -->          a test that shows it

Left stands what the reader sees, which must stand in the text too; it is compared at the digits
that it has. Right stands an expression over numbers, the quantities of the claims, and a few
functions of the evidence that `run=` names. It is parsed and walked here; nothing is evaluated by
Python.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from common.contract.claims import QUANTITIES
from common.contract.problem import Problem, root
from common.errors import UsageError

CHECK = re.compile(r"<!-- check: (?P<body>.*?) -->", re.DOTALL)
TEST = re.compile(r"test (?P<file>tests/[\w/]+\.py)::(?P<name>test_\w+)$")
BODY = re.compile(
    r"(?P<shown>\"[^\"]*\"|-?[\d,_.]+(?:e-?\d+)?)(?: within (?P<percent>[\d.]+) ?%)? = "
    r"(?P<expression>.+?)(?: run=(?P<run>[\w.-]+))?$",
    re.DOTALL,
)
WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
LARGEST_EXPONENT = 64
_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min, "max": max, "round": round, "ceil": math.ceil, "floor": math.floor,
    "sqrt": math.sqrt, "log2": math.log2,
}  # fmt: skip


class WrongAnswer(UsageError):
    """The text says something else than its evidence."""


@dataclass(frozen=True)
class EvidenceFunctions:
    """What an expression can ask of one recorded run."""

    quantities: Mapping[str, Callable[..., Any]]
    summary: Mapping[str, Any]
    tables: Callable[[str], Mapping[str, Any]]

    def call(self, name: str, arguments: list[Any]) -> Any:
        if name in QUANTITIES:
            found = self.quantities[name](*arguments)
            if found.value is None:
                raise UsageError(f"{name} has no value in this run ({found.reason}); name another")
            return found.value
        if name == "summary":
            return self._summary(*arguments)
        if name == "cell":
            return self._cell(*arguments)
        if name == "rows":
            return self._rows(*arguments)
        known = ", ".join(sorted([*_FUNCTIONS, *QUANTITIES, "summary", "cell", "rows"]))
        raise UsageError(f"unknown function {name}; use one of {known}")

    def _summary(self, *keys: Any) -> Any:
        """`summary("variants", "bf16", "phases", "decode", "median_ns")`."""
        value: Any = self.summary
        for key in keys:
            value = value[key]
        return value

    def _table(self, variant: str, name: str) -> tuple[list[str], list[list[str]]]:
        tables = self.tables(variant)
        if name not in tables:
            raise UsageError(f"{variant} has no table {name!r}; use one of {', '.join(tables)}")
        return list(tables[name]["columns"]), [list(map(str, r)) for r in tables[name]["rows"]]

    def _cell(self, variant: str, name: str, row: str, column: str) -> Any:
        """The cell of the first row whose first cells, joined by a blank, begin so."""
        columns, rows = self._table(variant, name)
        found = next((r for r in rows if " ".join(r).startswith(row)), None)
        if found is None or column not in columns:
            raise UsageError(f"table {name} has no row {row!r} or no column {column!r}; see it")
        return _as_value(found[columns.index(column)])

    def _rows(self, variant: str, name: str, column: str = "", *values: Any) -> int:
        """How many rows a table has; with values, how many have one of them in `column`."""
        columns, rows = self._table(variant, name)
        if not column:
            return len(rows)
        if column not in columns:
            raise UsageError(f"table {name} has no column {column!r}; use {', '.join(columns)}")
        wanted = {str(value) for value in values}
        return sum(row[columns.index(column)] in wanted for row in rows)


def _as_value(text: str) -> float | str:
    try:
        return float(text.replace(",", "").removesuffix(" %"))
    except ValueError:
        return text


def check_answer(
    body: str, visible: str, problem: Problem, evidence: Callable[[str], EvidenceFunctions]
) -> None:
    """Raises WrongAnswer for an answer that is wrong, UsageError for one that cannot be checked.

    `visible` is the text in which the shown number has to stand.
    """
    body = " ".join(body.split())
    by_test = TEST.fullmatch(body)
    if by_test:
        _check_test(by_test["file"], by_test["name"])
        return
    match = BODY.fullmatch(body)
    if match is None:
        raise UsageError(
            f"check {body!r} cannot be read; write NUMBER = EXPRESSION run=EVIDENCE, or "
            "test tests/FILE.py::test_NAME"
        )
    functions = evidence(match["run"]) if match["run"] else None
    value = compute(match["expression"], functions)
    shown = match["shown"]
    if not _stands_in(shown, visible):
        raise WrongAnswer(f"checks {shown}, which the text beside it does not say; write it there")
    _compare(shown, value, float(match["percent"]) if match["percent"] else None)


def _compare(shown: str, value: Any, percent: float | None) -> None:
    if shown.startswith('"'):
        if str(value) != shown.strip('"'):
            raise WrongAnswer(f"the text says {shown}, the evidence says {value!r}; correct it")
        return
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongAnswer(f"the text says {shown}, the evidence {value!r}; correct it")
    try:
        written = Decimal(shown.replace(",", "").replace("_", ""))
    except InvalidOperation as error:
        raise UsageError(f"check: {shown!r} is no number; correct it") from error
    exponent = written.as_tuple().exponent
    step = 10.0 ** min(exponent, 0) if isinstance(exponent, int) else 1.0
    allowed = abs(float(written)) * percent / 100 if percent is not None else step / 2
    if abs(value - float(written)) > allowed * (1 + 1e-9) + 1e-12:
        raise WrongAnswer(f"the text says {shown}, the evidence gives {value:.6g}; correct it")


def _stands_in(shown: str, visible: str) -> bool:
    if shown.startswith('"'):
        return shown.strip('"') in visible
    if re.search(rf"(?<![\w.,]){re.escape(shown)}(?![\d]|[.,]\d)", visible):
        return True
    return (
        shown.isdigit()
        and int(shown) < len(WORDS)
        and bool(re.search(rf"\b{WORDS[int(shown)]}\b", visible, re.IGNORECASE))
    )


def _check_test(file: str, name: str) -> None:
    path = root() / file
    if not path.is_file():
        raise UsageError(f"names the test file {file}, which does not exist; correct it")
    if not re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE):
        raise UsageError(f"{file} has no test {name}; name one that it has")


def compute(expression: str, functions: EvidenceFunctions | None) -> Any:
    """The value of an expression. Raises UsageError for anything but arithmetic and known calls."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"check: {expression!r} is no expression; write arithmetic") from error
    try:
        return _walk(tree.body, functions)
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"check: {expression!r} cannot be computed ({what}); correct it") from None


def _walk(node: ast.expr, functions: EvidenceFunctions | None) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_walk(node.operand, functions))
    if isinstance(node, ast.BinOp):
        left, right = _walk(node.left, functions), _walk(node.right, functions)
        if isinstance(left, str) or isinstance(right, str):
            raise TypeError("text in arithmetic")
        if isinstance(node.op, ast.Pow):
            if abs(right) > LARGEST_EXPONENT:
                raise ValueError(f"an exponent above {LARGEST_EXPONENT}")
            return left**right
        if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        arguments = [_walk(argument, functions) for argument in node.args]
        if node.func.id in _FUNCTIONS:
            return _FUNCTIONS[node.func.id](*arguments)
        if functions is None:
            raise UsageError(f"check: {node.func.id} needs evidence; add run=KEY at its end")
        return functions.call(node.func.id, arguments)
    raise TypeError(f"{ast.unparse(node)} is not allowed")
