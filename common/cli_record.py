"""`worklog record`, `worklog import`, `worklog slice`: arguments in, exit codes out; no logic.

`record` starts with nothing but the standard library: on a machine without a network it makes the
environment that the rest of it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.quick_start import start_reading

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 20m or 1h")
    return float(match[1]) * UNITS[match[2]]


def size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 16M")
    return int(match[1]) * SIZES[match[2]]


def add_record_commands(commands: Any) -> None:
    record = commands.add_parser(
        "record", help="record all problems on a GPU within a time budget",
        description="Exit code 0: all that was tried was recorded; 1: some of it failed (the "
        "archive says what); 3: nothing could be tried.",
    )  # fmt: skip
    record.add_argument("problems", nargs="*", metavar="PROBLEM", help="default: all")
    record.add_argument("--budget", type=seconds, default=seconds("20m"), metavar="TIME",
                        help="for everything together (default: 20m)")  # fmt: skip
    record.add_argument("--wheels", type=Path, metavar="DIR",
                        help="of docker/wheels.sh, for a machine without a network")  # fmt: skip
    record.add_argument("--out", type=Path, help="where the session goes (default: results/record)")
    record.add_argument("--pack", action="store_true", help="make an archive after every step")
    record.add_argument(
        "--pack-to", type=Path, metavar="DIR", help="where the archive goes (default: --out)"
    )
    record.add_argument("--max-file", type=size, default=size("16M"), metavar="SIZE",
                        help="of a part of the archive (default: 16M)")  # fmt: skip
    record.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="go on with the latest session in --out: only what it lacks",
    )
    record.add_argument("--dry-run", action="store_true", help="print the plan and run nothing")
    record.add_argument("--rehearse", action="store_true",
                        help="every step in tiny form on the CPU, packed, imported and rendered "
                        "into a copy")  # fmt: skip
    record.add_argument("--json", action="store_true", help="print one JSON document")
    record.set_defaults(command=_record)
    brought = commands.add_parser(
        "import", help="bring a recording's archive into the problems' recorded/ folders",
        description="Exit code 1 if parts of it were lost or left out; what is whole is imported.",
    )  # fmt: skip
    brought.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE",
                         help="all parts of one recording, or its session's folder")  # fmt: skip
    brought.add_argument("--into", type=Path, metavar="DIR", help="another checkout than this one")
    brought.set_defaults(command=_import)
    cut = commands.add_parser(
        "slice", help="a small part of an nsys database or ncu report that says where it is from",
        description="nsys .sqlite to .sqlite.gz; ncu .ncu-rep or CSV to .csv.gz",
    )  # fmt: skip
    cut.add_argument("source", type=Path, metavar="FILE")
    cut.add_argument("target", type=Path, metavar="OUT", help="a new file")
    cut.add_argument("--range", dest="interest", metavar="NAME",
                     help="nsys: begin at the first opening of this NVTX range")  # fmt: skip
    cut.add_argument("--max-size", type=size, default=size("3M"), metavar="SIZE",
                     help="of the new file (default: 3M)")  # fmt: skip
    cut.set_defaults(command=_slice)


def _record(arguments: argparse.Namespace) -> int:
    if arguments.wheels is not None:
        return _in_environment(arguments)
    from common.experiments import recording_run
    from common.recording.offline import require_packages

    require_packages()
    if arguments.rehearse:
        from common.experiments.rehearsal import rehearse

        return rehearse(arguments)
    return recording_run.run(arguments)


def _in_environment(arguments: argparse.Namespace) -> int:
    """Make the environment from the wheels, then start anew in it, without --wheels."""
    from common.contract.problem import load_problem, problem_names, root
    from common.recording.offline import make_environment, python_of

    pinned = sorted(
        {
            package
            for name in problem_names()
            for variant in load_problem(name).variants.values()
            for package in variant.packages
        }
    )
    folder = Path(os.environ.get("WORKLOG_CACHE") or root() / ".cache") / "offline"
    for line in make_environment(folder, arguments.wheels, pinned):
        print(f"wheels: {line}", file=sys.stderr)
    package = str(Path(__file__).resolve().parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]).rstrip(":"),
        "WORKLOG_VARIANTS": str(folder / "variants"),
    }
    given = list(arguments.given)
    kept = [
        word
        for number, word in enumerate(given)
        if not word.startswith("--wheels") and (number == 0 or given[number - 1] != "--wheels")
    ]
    python = str(python_of(folder))
    sys.stdout.flush()
    os.execve(python, [python, "-P", "-m", "common.cli", *kept], environment)


def _import(arguments: argparse.Namespace) -> int:
    from common.experiments.import_evidence import import_evidence

    done = import_evidence(arguments.archives, arguments.into)
    for path in done.runs:
        print(f"imported {path}")
    for path in done.already:
        print(f"already there: {path}")
    for path in done.records:
        print(f"wrote {path}")
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not done.warnings:
        print("now: worklog render", file=sys.stderr)
    return 0 if done.is_whole else 1


def _slice(arguments: argparse.Namespace) -> int:
    start_reading()
    from common.traces.formats import recognise

    if arguments.target.exists():
        raise UsageError(f"{arguments.target} is there already; name a new file")
    found = recognise(arguments.source)
    if found.name == "nsys":
        from common.traces.nsys_slice import slice_nsys

        made = slice_nsys(
            arguments.source, arguments.target, arguments.max_size, arguments.interest
        )
    elif found.kind == "ncu":
        from common.traces.ncu_slice import slice_ncu

        made = slice_ncu(arguments.source, arguments.target, arguments.max_size)
    else:
        raise UsageError(
            f"{arguments.source} holds {found.says}; give an nsys .sqlite, an .ncu-rep or ncu's CSV"
        )
    print(json.dumps(made, indent=1))
    return 0
