"""`worklog replay`, `worklog detect`, `worklog new`: arguments in, exit codes out; no logic."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from common.quick_start import start_reading


def add_page_commands(commands: Any) -> None:
    says = "a worklog's analysis again, from its recorded runs: no GPU, no torch"
    replay = commands.add_parser("replay", help=says, description=says)
    replay.add_argument("problem", metavar="PROBLEM")
    replay.add_argument("--json", action="store_true", help="print one JSON document")
    replay.set_defaults(command=_replay)
    says = "which of our problems' signatures a profiler's file shows, with the evidence"
    detect = commands.add_parser(
        "detect", help=says, description=says,
        epilog="exit codes: 0 read (whether something was found or not), 2 unreadable",
    )  # fmt: skip
    detect.add_argument("files", nargs="+", type=Path, metavar="FILE", help="as for `show`")
    detect.add_argument("--json", action="store_true", help="print one JSON document")
    detect.set_defaults(command=_detect)
    says = "make a problem's folder: it runs at once and passes `worklog check`"
    new = commands.add_parser("new", help=says, description=says)
    new.add_argument("problem", metavar="NAME", help="letters, digits and _, e.g. slow_softmax")
    new.set_defaults(command=_new)


def _replay(arguments: argparse.Namespace) -> int:
    from common.contract.problem import load_problem
    from common.pages.replay import as_document, as_text, replay

    replayed = replay(load_problem(arguments.problem))
    if arguments.json:
        print(json.dumps(as_document(replayed), indent=1))
    else:
        print(as_text(replayed), flush=True)
    for finding in replayed.findings:
        print(finding, file=sys.stderr)
    return 1 if replayed.findings else 0


def _detect(arguments: argparse.Namespace) -> int:
    start_reading()
    from common.pages.detect import as_document, as_text, detect

    found = [detect(path) for path in arguments.files]
    if arguments.json:
        documents = [as_document(each) for each in found]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1))
    else:
        print("\n\n".join(as_text(each) for each in found))
    return 0


def _new(arguments: argparse.Namespace) -> int:
    from common.pages.scaffold import make_problem

    for path in make_problem(arguments.problem):
        print(path)
    name = arguments.problem
    print(f"next: worklog run {name} --preset tiny; then worklog check {name}", file=sys.stderr)
    return 0
