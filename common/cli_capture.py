"""`worklog nsys`, `worklog ncu`, `worklog doctor`: arguments in, exit codes out; no logic."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.errors import PreconditionError, UsageError

# What a manifest may hold of the arguments: cli.py's own filter, which leaves folders out.
PublicArguments = Callable[[argparse.Namespace], Sequence[str]]


def add_capture_commands(commands: Any, public_arguments: PublicArguments) -> None:
    for name, says in (
        ("nsys", "record Nsight Systems traces of the range of interest, exported to SQLite"),
        ("ncu", "measure the kernels that matter with Nsight Compute"),
    ):
        command = commands.add_parser(name, help=says, description=says)
        command.add_argument("problems", nargs=1, metavar="PROBLEM")
        command.add_argument("--preset", help="size of the workload (default: what fits)")
        command.add_argument(
            "--variant", action="append", default=[], metavar="V", help="only these"
        )
        command.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
        command.add_argument("--out", type=Path, help="where run folders go (default: results/)")
        command.add_argument("--compile-prefill", action="store_true", help="compile prefill too")
        command.add_argument("--checkpoint", type=Path, help="folder of a Hugging Face checkpoint")
        command.add_argument(
            "--dry-run", action="store_true", help="print the command lines and run nothing"
        )
        command.add_argument("--json", action="store_true", help="print one JSON document")
        if name == "nsys":
            command.add_argument(
                "--mode", action="append", default=[], choices=("graph", "node", "ranges"),
                help="how CUDA graphs are shown (default with a GPU: graph, then node)",
            )  # fmt: skip
        else:
            command.add_argument(
                "--clock-control", default="none", choices=("none", "base"),
                help="none (default): durations as in production; base: locked clocks",
            )  # fmt: skip
        command.set_defaults(command=_capture, public_arguments=public_arguments)
    doctor = commands.add_parser(
        "doctor", help="what this machine can do, and what to do about each no",
        description="Exit code 3 if something is missing without which nothing can be measured.",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    doctor.set_defaults(command=_doctor)


def _capture(arguments: argparse.Namespace) -> int:
    from common.contract.problem import load_problem
    from common.experiments.capture import document, execute_captures
    from common.experiments.capture_plan import captured, chosen, dry_run, shown_for
    from common.experiments.request import settle
    from common.recording.tools import find_tool, need_tool

    if arguments.out is not None and not arguments.out.name:
        raise UsageError("--out is empty or names no folder; give a folder")
    options: dict[str, Any] = {}
    if arguments.compile_prefill:
        options["compile_prefill"] = True
    if arguments.checkpoint:
        options["checkpoint"] = str(arguments.checkpoint.absolute())
    names = captured(load_problem(arguments.problems[0]), arguments.variant)
    request = settle(
        arguments.problems[0], arguments.preset, [] if arguments.dry_run else names,
        arguments.device, arguments.out, options,
    )  # fmt: skip
    name, modes = arguments.name, getattr(arguments, "mode", [])
    clocks = getattr(arguments, "clock_control", "none")
    if arguments.dry_run:
        request = shown_for(request, name, modes, names)
        commands, notices = dry_run(request, name, find_tool(name), modes, clocks)
        print(json.dumps({"commands": commands}) if arguments.json else "\n".join(commands))
        for notice in notices:
            print(f"notice: {notice}", file=sys.stderr)
        return 0
    request = chosen(request, names)
    folder, records = execute_captures(
        request, need_tool(name), list(arguments.public_arguments(arguments)), modes, clocks
    )
    print(document(folder, records) if arguments.json else _page(folder, records), flush=True)
    failed = [record for record in records if record["state"] != "complete"]
    for notice in sorted({option for record in records for option in record["left_out"]}):
        print(f"notice: this {name} does not know {notice}: left out", file=sys.stderr)
    if failed and all("ERR_NVGPUCTRPERM" in record["reason"] for record in failed):
        raise PreconditionError(failed[0]["reason"])
    for record in failed:
        print(
            f"warning: {record['variant']}, {record['mode']}: {record['reason']}", file=sys.stderr
        )
    return 1 if failed else 0


def _page(folder: Path, records: Sequence[dict[str, Any]]) -> str:
    lines = []
    for record in records:
        lines.append(f"{record['state']:9} {record['variant']} ({record['mode']})")
        lines += [f"          {folder / file}" for file in record["files"]]
    return "\n".join([*lines, f"run: {folder}"])


def _doctor(arguments: argparse.Namespace) -> int:
    from common.contract.problem import root
    from common.recording.doctor import examine, to_json, to_text

    findings = examine(root())
    print(to_json(findings) if arguments.json else to_text(findings))
    return 3 if any(finding.stops_everything for finding in findings) else 0
