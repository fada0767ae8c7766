"""Which captures does a request ask for, and with which command lines?

What needs no profiler: `--dry-run` prints this, and `common.experiments.capture` carries it out.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.contract.capture import Capture
from common.contract.problem import Problem, Variant, choose_variants
from common.errors import UsageError
from common.experiments.request import Request, compile_cache
from common.recording.ncu_command import NcuPlan, ncu_command, ncu_csv_command
from common.recording.nsys_command import MODES, NsysPlan, nsys_command
from common.recording.tool_help import CommandLine
from common.recording.tools import Tool


@dataclass(frozen=True)
class Planned:
    """One capture to be made. `plan` says what and where, `command` how."""

    variant: Variant
    mode: str
    plan: NsysPlan | NcuPlan
    command: CommandLine


def aim(request: Request) -> Capture:
    capture = request.problem.capture
    if capture is None:
        raise UsageError(
            f"problem.toml of {request.problem.name} has no [capture] table; add one with its "
            "nvtx_range"
        )
    return capture


def program(request: Request, variant: Variant) -> tuple[str, ...]:
    """The problem's own script for one variant, one repetition."""
    words = [
        sys.executable, str(request.problem.repro), "--variant", variant.name,
        "--preset", request.preset.name, "--device", request.device, "--repetitions", "1",
    ]  # fmt: skip
    if request.options.get("compile_prefill"):
        words.append("--compile-prefill")
    if request.options.get("checkpoint"):
        words += ["--checkpoint", str(request.options["checkpoint"])]
    return tuple(words)


def plans(
    request: Request,
    name: str,
    folder: Path,
    tool: Tool | None,
    modes: Sequence[str] = (),
    clock_control: str = "none",
) -> Iterator[Planned]:
    """Every capture of `name` (nsys or ncu) that the request asks for, with its command line."""
    capture = aim(request)
    known, path = (tool.help, tool.path) if tool else (None, name)
    for variant in request.variants:
        words, place = program(request, variant), folder / "traces" / variant.name
        if name == "ncu":
            measured = NcuPlan(words, capture, place / "ncu", clock_control)
            yield Planned(variant, "kernels", measured, ncu_command(measured, known, path))
            continue
        for mode in modes or MODES[request.device]:
            if mode not in MODES[request.device]:
                raise UsageError(
                    f"mode {mode} is not for {request.device}; use one of: "
                    + ", ".join(MODES[request.device])
                )
            traced = NsysPlan(words, capture.nvtx_range, mode, place / f"nsys-{mode}")
            yield Planned(variant, mode, traced, nsys_command(traced, known, path))


def dry_run(
    request: Request, name: str, tool: Tool | None, modes: Sequence[str], clock_control: str
) -> tuple[list[str], list[str]]:
    """(the commands as a shell takes them, notices). The folder of a run is made when it runs."""
    folder = request.run_parent / "RUN"
    commands, notices = [], []
    if tool is None:
        notices.append(f"{name} is not installed here: its options were not checked")
    for one in plans(request, name, folder, tool, modes, clock_control):
        commands.append(shell_line(one, environment_of(one.variant)))
        if isinstance(one.plan, NcuPlan):
            export = ncu_csv_command(one.plan, one.command.argv[0]).argv
            commands.append(f"{_quoted(export)} > {_quoted((str(one.plan.csv),))}")
        if one.command.left_out and tool is not None:
            left_out = ", ".join(one.command.left_out)
            notice = f"{name} {tool.version} does not know {left_out}: left out"
            if notice not in notices:
                notices.append(notice)
    return commands, notices


def environment_of(variant: Variant) -> Mapping[str, str]:
    """What the program needs beside the caller's own environment."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(compile_cache(variant)), **variant.environment}


def shell_line(one: Planned, variables: Mapping[str, str]) -> str:
    assigned = " ".join(f"{key}={_quoted((value,))}" for key, value in variables.items())
    return f"{assigned} {_quoted(one.command.argv)}"


def _quoted(words: Sequence[str]) -> str:
    return shlex.join(words)


def chosen(request: Request, names: Sequence[str]) -> Request:
    """Only the variants that were named, the baseline only if it was: no times are compared."""
    if not names:
        return request
    return replace(request, variants=tuple(v for v in request.variants if v.name in names))


def captured(problem: Problem, names: Sequence[str]) -> list[str]:
    """The variants that were named, else those that [capture] names; empty: what is compared."""
    return list(names) or list(problem.capture.variants if problem.capture else ())


def shown_for(
    request: Request, name: str, modes: Sequence[str], names: Sequence[str] = ()
) -> Request:
    """For --dry-run: what needs a GPU is shown as it would run on one, also where there is none.

    `request` is settled without variants, so that none is refused; `names` are those to show.
    """
    variants = request.variants
    if names:
        of_problem = choose_variants(request.problem, list(names))
        variants = tuple(variant for variant in of_problem if variant.name in names)
    request = replace(request, variants=variants)
    on_gpu = name == "ncu" or bool({"graph", "node"} & set(modes))
    on_gpu = on_gpu or any(variant.needs_cuda_capability is not None for variant in variants)
    if request.device == "cuda" or not on_gpu:
        return request
    presets = [request.preset, *request.problem.presets.values()]
    fitting = [preset for preset in presets if "cuda" in preset.devices]
    return replace(request, device="cuda", preset=fitting[0]) if fitting else request
