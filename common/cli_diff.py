"""What does `worklog diff` take, and where does what it finds go? The result to stdout or files."""

from __future__ import annotations

import argparse
import gc
import io
import json
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.quick_start import start_reading

if TYPE_CHECKING:
    from common.diff.difference import Difference

NARROW, WIDE = 80, 160
_PLAIN_ASCII = bytes(range(0x7F))
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def add_diff(commands: Any) -> None:
    """Add the command to a parser's commands."""
    says = "what makes the difference between two traces, reports, snapshots or runs"
    diff = commands.add_parser("diff", help=says, description=says)
    diff.add_argument(
        "a", metavar="A", help="before: a file, also gzipped, RUN#VARIANT, or a folder of ranks"
    )
    diff.add_argument("b", metavar="B", help="after: the same")
    diff.add_argument(
        "--by", metavar="WHAT", help="kernel, operator, module, range, gap, ...: the rows"
    )
    diff.add_argument("--json", action="store_true", help="print one JSON document")
    diff.add_argument("--markdown", type=Path, metavar="FILE", help="write it for a pull request")
    diff.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that needs no network"
    )
    diff.add_argument(
        "--fail-on", action="append", default=[], metavar="BOUND",
        help="exit with 1 beyond it: slower=5%%, gpu_time=5%%, peak=+100MB, ...; may be repeated",
    )  # fmt: skip
    diff.add_argument(
        "--strict",
        action="store_true",
        help="fail where the verdict is AMBIGUOUS or NOT_COMPARABLE",
    )
    diff.add_argument("--top", type=_rows, metavar="N", help="rows to show (default: one screen)")
    diff.set_defaults(command=run_diff)


def _rows(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def run_diff(arguments: argparse.Namespace) -> int:
    """The exit code: 1 where a bound is passed, else 0."""
    start_reading()
    gc.disable()  # columns and rows are no garbage: looking through them is 5 % of the time
    try:
        return _compare_and_print(arguments)
    finally:
        gc.enable()


def _compare_and_print(arguments: argparse.Namespace) -> int:
    if arguments.fail_on:
        from common.diff.gate import parse_bounds

        bounds = parse_bounds(arguments.fail_on)  # a wrong one must not show after minutes
    else:
        bounds = ()  # what is imported before the files are opened keeps both of them waiting
    _check_places(arguments)
    difference = compare(arguments.a, arguments.b, arguments.by)
    from common.diff.gate import evaluate

    outcome = evaluate(difference, bounds, arguments.strict)
    _write_pages(difference, arguments)
    _print(difference, arguments)
    _say("warning", outcome.warnings)
    _say("failed", outcome.failures)
    if outcome.failures:
        return 1
    return UsageError.exit_code if difference.extra.get("failed_ranks") else 0


def compare(a: str, b: str, by: str | None) -> Difference:
    from common.diff.diff import compare_files

    return compare_files(a, b, by)


def _check_places(arguments: argparse.Namespace) -> None:
    """Refuse a place for a page before the work, above all one that would overwrite an input."""
    pages = {"--markdown": arguments.markdown, "--html": arguments.html}
    taken = {Path(side).absolute() for side in (arguments.a, arguments.b)}
    for option, path in pages.items():
        if path is None:
            continue
        if not path.name or path.is_dir():
            raise UsageError(f"{option} {str(path)!r} is a folder; give the file to write")
        if path.absolute() in taken:
            raise UsageError(f"{option} {path} is taken by another argument; give another file")
        taken.add(path.absolute())


def _write_pages(difference: Difference, arguments: argparse.Namespace) -> None:
    if arguments.markdown:
        from common.report.diff_markdown import difference_markdown
        from common.report.html_page import write_text

        top = {} if arguments.top is None else {"top": arguments.top}
        write_text(arguments.markdown, difference_markdown(difference, **top))
    if arguments.html:
        from common.report.diff_html import difference_html
        from common.report.html_page import write_text

        write_text(arguments.html, difference_html(difference))


def _print(difference: Difference, arguments: argparse.Namespace) -> None:
    if arguments.json:
        from common.diff.by_name import document

        _encode_output(encoding="utf-8", errors="strict")
        print(json_text(document(difference)))
        sys.stdout.flush()
        return
    import shutil  # loads every way to pack files

    from common.report.diff_sides import warnings_of
    from common.report.diff_text import SCREEN, difference_text
    from common.report.rank_table import SHOWN as RANKS_SHOWN
    from common.report.rank_table import rank_table

    _encode_output(errors="backslashreplace")  # a terminal that knows only ASCII
    asked = arguments.top is not None
    print(
        difference_text(
            difference,
            **({"top": arguments.top} if asked else {"lines": SCREEN}),
            width=max(NARROW, min(WIDE, shutil.get_terminal_size((120, 50)).columns)),
            colour=_colour(),
        )
    )
    ranks = rank_table(difference, arguments.top if asked else RANKS_SHOWN)
    if ranks is not None:
        print(f"\n{ranks.text()}")
    sys.stdout.flush()
    _say("warning", warnings_of(difference))


def _encode_output(errors: str, encoding: str | None = None) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=encoding, errors=errors)


def _colour() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def _say(kind: str, sentences: tuple[str, ...], most: int = 20) -> None:
    if not sentences:
        return
    from common.report.diff_view import sentence

    for says in sentences[:most]:
        print(f"{kind}: {sentence(says)}", file=sys.stderr)
    if len(sentences) > most:
        print(f"{kind}: ({len(sentences) - most} more; see --json)", file=sys.stderr)


def json_text(document: dict[str, Any]) -> str:
    """One document that every JSON reader takes: what is no finite number becomes null."""
    import msgspec  # many times faster than json for the tens of thousands of rows of a long trace

    try:
        data = msgspec.json.format(msgspec.json.encode(document), indent=1)
    except (UnicodeEncodeError, OverflowError, TypeError):
        # Half a surrogate pair, or a number beyond 64 bits: json can write these.
        return json.dumps(_finite(document), indent=1, allow_nan=False)
    # JSON only escapes what is below a space; terminals obey some characters above as well. Looked
    # for among the few that are no plain ASCII: the expression takes longer than all of the JSON.
    rare = data.translate(None, delete=_PLAIN_ASCII).decode()
    text = data.decode()
    if not _OBEYED.search(rare):
        return text
    return _OBEYED.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
