"""`worklog`: arguments in, exit codes out. Everything else is imported when a command needs it."""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli_capture import add_capture_commands
from common.cli_convert import add_convert
from common.cli_diff import add_diff
from common.cli_pages import add_page_commands
from common.cli_record import add_record_commands
from common.errors import PreconditionError, UsageError, WorklogError
from common.quick_start import start_reading

if TYPE_CHECKING:
    from common.experiments.request import Request

INTERRUPTED = 130
# What these have read goes back to the system in one piece as the process ends: to free object by
# object what nobody looks at again takes a tenth of the time that reading it took.
_READERS = frozenset(("diff", "show"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. What a user can mend never shows a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parsed = build_parser(given[0] if given else None).parse_args(given)
    parsed.given = given
    try:
        code: int = parsed.command(parsed)
        sys.stdout.flush()
        if arguments is None and parsed.name in _READERS:
            sys.stderr.flush()
            os._exit(code)
        return code
    except WorklogError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say(
            "stopped; what was measured is kept in the .unfinished folder, start anew", INTERRUPTED
        )
    except BrokenPipeError:
        # The reader (head, less) has had enough; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(*_explain(error))
    except RecursionError:
        return _say("an input file is nested too deeply; give another one", UsageError.exit_code)
    except MemoryError:
        return _say(
            "the memory is not enough for this; free some and try again",
            PreconditionError.exit_code,
        )
    finally:
        if arguments is None:  # the process ends here: let the collector not look at all it has
            gc.freeze()


def _say(message: str, code: int) -> int:
    print(f"error: {_one_line(message)}", file=sys.stderr)
    return code


def _one_line(message: str) -> str:
    """For a terminal: it may quote names of files and texts of files, which may hold anything."""
    from common.report.tables import printable

    return printable(" ".join(message.split()))


def _explain(error: OSError) -> tuple[str, int]:
    place = error.filename or "the output folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full while writing {place}; free some space or choose another --out",
            PreconditionError.exit_code,
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for {place}; choose another folder with --out", UsageError.exit_code
    return f"{error}; check the path and try again", UsageError.exit_code


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # No abbreviations: `--ou DIR` would pass the filter that keeps folders out of manifests.
        super().__init__(**{**options, "allow_abbrev": False})

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {_one_line(message)}; see {self.prog} --help\n")


class _Version(argparse.Action):
    """Looks the version up when it is asked for, not at every start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from common import __version__

        print(f"worklog {__version__}")
        parser.exit()


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; of `only` and its neighbours where that is a command's name.

    Each argument of each command costs time at every start: all of them as much as a small diff.
    """
    parser = _Parser(
        prog="worklog",
        description="Reproduce, time, profile and report inference slowdowns.",
        epilog="exit codes: 0 ok, 1 a check or claim says no, 2 usage or unreadable input, "
        "3 a precondition is missing",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    # The name is said here: to find it, argparse would lay out a page for this terminal.
    commands = parser.add_subparsers(
        dest="name", required=True, metavar="COMMAND", prog=parser.prog
    )
    wanted = [add for names, add in COMMANDS if only in names]
    for add in wanted or [add for _, add in COMMANDS]:
        add(commands)
    return parser


def _add_experiments(commands: Any) -> None:
    for name, says in (
        ("run", "bench, profile and report problems; judges every claim"),
        ("bench", "time the variants of a problem, interleaved (or compile and count them)"),
        ("profile", "record traces and the allocation timeline of each variant"),
    ):
        command = commands.add_parser(name, help=says, description=says)
        _add_experiment_arguments(command, many=name == "run")
        if name == "bench":
            command.add_argument("--study", metavar="S", help="a study of the problem by itself")
        command.set_defaults(command=_experiment)


def _add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="write the HTML report of runs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    report.add_argument("--out", type=Path, help="file to write (default: report.html in the run)")
    report.set_defaults(command=_report)


def _add_show(commands: Any) -> None:
    show = commands.add_parser("show", help="one profiler's file, summarised")
    show.add_argument("file", type=Path, metavar="FILE", help="a trace, also gzipped")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    show.set_defaults(command=_show)


def _add_worklogs(commands: Any) -> None:
    for name, says in (
        ("check", "compare the worklogs with their evidence"),
        ("render", "write the generated blocks of the worklogs anew"),
    ):
        command = commands.add_parser(name, help=says, description=says)
        command.add_argument("problems", nargs="*", metavar="PROBLEM", help="default: all")
        command.set_defaults(command=_check if name == "check" else _render)


def _add_captures(commands: Any) -> None:
    add_capture_commands(commands, _public_arguments)


def _add_experiment_arguments(command: argparse.ArgumentParser, many: bool) -> None:
    if many:
        command.add_argument("problems", nargs="*", metavar="PROBLEM", help="default: all")
    else:
        command.add_argument("problems", nargs=1, metavar="PROBLEM")
    command.add_argument("--preset", help="size of the workload (default: what fits the device)")
    command.add_argument(
        "--variant", action="append", default=[], metavar="V", help="only these (and the baseline)"
    )
    command.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    command.add_argument("--out", type=Path, help="where run folders go (default: results/)")
    command.add_argument("--compile-prefill", action="store_true", help="compile prefill too")
    command.add_argument("--checkpoint", type=Path, help="folder of a Hugging Face checkpoint")
    command.add_argument("--json", action="store_true", help="print the summary and nothing else")


def _add_floors(commands: Any) -> None:
    floors = commands.add_parser("floors", help="this machine's bandwidths and rates")
    verbs = floors.add_subparsers(dest="verb", required=True, metavar="VERB", prog=floors.prog)
    measure = verbs.add_parser("measure", help="measure read and copy bandwidth and matmul rate")
    measure.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    measure.add_argument("--budget", type=float, default=20.0, metavar="S", help="seconds to spend")
    measure.add_argument("--json", action="store_true", help="print one JSON document")
    measure.set_defaults(command=_floors_measure)
    show = verbs.add_parser("show", help="the published figures of a device, or of all")
    show.add_argument("device", nargs="?", help="a name as the driver prints it")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    show.set_defaults(command=_floors_show)


# In the order of the help.
COMMANDS: tuple[tuple[tuple[str, ...], Callable[[Any], None]], ...] = (
    (("run", "bench", "profile"), _add_experiments),
    (("report",), _add_report),
    (("show",), _add_show),
    (("diff",), add_diff),
    (("convert",), add_convert),
    (("check", "render"), _add_worklogs),
    (("floors",), _add_floors),
    (("nsys", "ncu", "doctor"), _add_captures),
    (("replay", "detect", "new"), add_page_commands),
    (("record", "import", "slice"), add_record_commands),
)


def _experiment(arguments: argparse.Namespace) -> int:
    from common.experiments.request import limited, settle

    if arguments.out is not None and not arguments.out.name:
        raise UsageError("--out is empty or names no folder; give a folder")
    if getattr(arguments, "study", None):
        from common.experiments.study import Wish, run_script

        if arguments.variant:
            raise UsageError("--study names its variants itself; leave out --variant")
        variants = load_study(arguments.problems[0], arguments.study)
        if not variants:
            given = (arguments.out, _public_arguments(arguments), arguments.json)
            wish = Wish(arguments.device, arguments.preset or "", *given)
            return run_script(arguments.problems[0], arguments.study, wish)
        # A study's question is why: it needs the traces beside the times.
        arguments.variant, arguments.name = variants, "study"
    options: dict[str, Any] = {}
    if arguments.compile_prefill:
        options["compile_prefill"] = True
    if arguments.checkpoint:
        options["checkpoint"] = str(arguments.checkpoint.absolute())
    # Settle all of them first: a wrong name must not show after an hour of work.
    requests = [
        settle(name, arguments.preset, arguments.variant, arguments.device, arguments.out, options)
        for name in arguments.problems or _all_problems()
    ]
    if arguments.name == "study":
        requests = [limited(request, arguments.study) for request in requests]
    results = [_one_experiment(request, arguments) for request in requests]
    if arguments.json:
        documents = [summary for summary, _ in results]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1))
    refuted = any(claim["reproduced"] is False for s, _ in results for claim in s["claims"])
    pairs = zip(requests, results, strict=True)
    broken = any(_fell_out(summary, request) for request, (summary, _) in pairs)
    return 1 if refuted or broken else 0


def load_study(problem: str, study: str) -> list[str]:
    from common.contract.problem import load_problem

    return load_problem(problem).study_variants(study)


def _all_problems() -> list[str]:
    from common.contract.problem import problem_names, root

    names = problem_names()
    if not names:
        # Nothing to do must not look like all is well.
        raise UsageError(
            f"there are no problems under {root()}; run this in a checkout or set WORKLOG_ROOT"
        )
    return names


def _fell_out(summary: dict[str, Any], request: Request) -> bool:
    """Did a variant fail, or the correctness check say what it should not?"""
    for name, variant in summary["variants"].items():
        wrong_on_purpose = request.problem.variants[name].role == "must-be-rejected"
        checked = "correctness" in variant
        if variant["state"] == "failed" or "profile_failure" in variant:
            return True
        if checked and (variant["state"] == "rejected") != wrong_on_purpose:
            return True
    return False


def _one_experiment(request: Request, arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    from common.experiments.run import execute
    from common.report.floor_tables import run_floor_table
    from common.report.run_tables import claims, correctness, figures, memory, verdicts

    kept = _public_arguments(arguments)
    folder, summary = execute(request, arguments.name, kept)
    page = None
    if arguments.name in ("run", "study"):
        from common.report.html import write_report

        page = write_report([folder], folder / "report.html")
    if not arguments.json:
        print(f"\n{request.problem.name}: {request.problem.question}\n")
        if request.problem.kind != "timed":
            print(figures(summary).text() + "\n")
        elif arguments.name != "profile":
            for phase in request.problem.phases:
                print(verdicts(summary, phase).text() + "\n")
            print(run_floor_table(summary).text() + "\n")
            print(correctness(summary).text() + "\n")
        if arguments.name != "bench" and request.problem.kind == "timed":
            print(memory(summary).text() + "\n")
        print(claims(summary).text() + "\n")
        if page is not None:
            print(f"report: {page}")
        print(f"run: {folder}", flush=True)
    return summary, folder


def _public_arguments(arguments: argparse.Namespace) -> list[str]:
    """The arguments as given, with folders left out: a manifest names no place of a machine."""
    kept, skip = [], False
    for argument in arguments.given:
        if skip:
            skip = False
        elif argument in ("--out", "--checkpoint"):
            kept.append(f"{argument}=…")
            skip = True
        elif argument.startswith(("--out=", "--checkpoint=")):
            kept.append(argument.split("=")[0] + "=…")
        else:
            kept.append(argument)
    return kept


def _report(arguments: argparse.Namespace) -> int:
    from common.recording.run_folder import open_run
    from common.report.html import write_report

    if arguments.out is None and len(arguments.runs) > 1:
        raise UsageError("several runs need a place for their report; add --out FILE")
    for folder in arguments.runs:
        if not open_run(folder).finished:
            print(f"warning: {_one_line(str(folder))} is an unfinished run", file=sys.stderr)
    print(write_report(arguments.runs, arguments.out or arguments.runs[0] / "report.html"))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    start_reading()
    from common.traces.formats import summarise

    found, summary = summarise(arguments.file)
    if arguments.json:
        print(json.dumps(summary, indent=1))
        return 0
    from common.report.show import PAGES

    print(PAGES[found.kind](summary))
    sys.stdout.flush()
    for caution in summary["warnings"]:
        says = caution["says"] if isinstance(caution, dict) else caution
        print(f"warning: {_one_line(says)}", file=sys.stderr)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from common.pages.check import check

    findings = check(arguments.problems or _all_problems())
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings" if findings else "ok", file=sys.stderr)
    return 1 if findings else 0


def _render(arguments: argparse.Namespace) -> int:
    from common.contract.problem import load_problem
    from common.contract.recorded import recordings
    from common.pages.check import rebuild_summary, render

    names = arguments.problems or _all_problems()
    for name in names:
        problem = load_problem(name)
        brought = [run for one in recordings(problem.folder) for run in one.runs()]
        for folder in [*(problem.folder / place for place in problem.evidence.values()), *brought]:
            if rebuild_summary(folder):
                place = folder.relative_to(problem.folder)
                print(f"rebuilt {problem.name}/{place}/summary.json")
    changed, findings = render(names)
    for path in changed:
        print(f"rendered {path}")
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def _floors_measure(arguments: argparse.Namespace) -> int:
    from common.experiments.request import choose_device
    from common.floors.measure import measure_floors
    from common.floors.measured import to_json
    from common.recording.environment import read_machine
    from common.report.floor_tables import measured_table

    device = choose_device(arguments.device, read_machine())
    measured = measure_floors("cuda" if device == "cuda" else "cpu", budget_s=arguments.budget)
    print(to_json(measured) if arguments.json else measured_table(measured).text())
    return 0


def _floors_show(arguments: argparse.Namespace) -> int:
    from common.floors.devices import all_devices, find_device
    from common.report.floor_tables import devices_json, devices_table

    devices = all_devices()
    if arguments.device:
        found = find_device(arguments.device)
        if found is None:
            names = ", ".join(name for device in devices for name in device.driver_names)
            raise UsageError(f"no figures for {arguments.device!r}; there are: {names}")
        devices = (found,)
    table = devices_table(devices).text()
    print(json.dumps(devices_json(devices), indent=1) if arguments.json else table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
