"""Are the profilers called with exactly what is meant, by every version that people have?

The help files in tests/data/profiler_help are those of real versions, reduced to options and words.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.contract.capture import Capture
from common.contract.problem import load_problem, problem_names
from common.recording.ncu_command import NcuPlan, ncu_command, ncu_csv_command
from common.recording.nsys_command import NsysPlan, nsys_command, nsys_export_command
from common.recording.tool_help import ToolHelp, read_help, short_version
from common.recording.tools import find_tool

CHECKOUT = Path(__file__).parents[2]
HELP = CHECKOUT / "tests" / "data" / "profiler_help"
PROGRAM = ("python", "repro.py", "--variant", "bf16")
NSYS = ("2022.4.2", "2023.4.4")
NCU = ("2022.3.0", "2024.1.1")


def known(tool: str, version: str) -> ToolHelp:
    return read_help(version, (HELP / f"{tool}-{version}.txt").read_text())


def nsys(mode: str) -> NsysPlan:
    return NsysPlan(PROGRAM, "decode", mode, Path("out/nsys"))


def ncu(**changes: object) -> NcuPlan:
    capture = replace(Capture("decode", "regex:gemv", 2, 30), **changes)  # type: ignore[arg-type]
    return NcuPlan(PROGRAM, capture, Path("out/ncu"))


COMMON = (
    "--sample=none --cpuctxsw=none --capture-range=nvtx --nvtx-capture=decode@worklog "
    "--capture-range-end=stop --wait=primary"
)
END = "--force-overwrite=true --export=sqlite --output=out/nsys python repro.py --variant bf16"


@pytest.mark.parametrize("version", NSYS)
@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("ranges", f"nsys profile --trace=nvtx {COMMON} {END}"),
        ("graph", f"nsys profile --trace=cuda,nvtx {COMMON} --cuda-graph-trace=graph "
                  f"--cuda-memory-usage=false {END}"),
        ("node", f"nsys profile --trace=cuda,nvtx {COMMON} --cuda-graph-trace=node "
                 f"--cuda-memory-usage=true {END}"),
    ],
)  # fmt: skip
def test_nsys_is_called_like_this(version: str, mode: str, line: str) -> None:
    command = nsys_command(nsys(mode), known("nsys", version))
    assert " ".join(command.argv) == line
    assert command.left_out == ()


def test_ncu_is_called_like_this() -> None:
    line = (
        "ncu --set detailed --nvtx --nvtx-include worklog@decode/ --kernel-name regex:gemv "
        "--launch-skip 2 --launch-count 30 --replay-mode kernel --graph-profiling node "
        "--clock-control none --cache-control all --target-processes application-only "
        "--force-overwrite --export out/ncu python repro.py --variant bf16"
    )
    command = ncu_command(ncu(), known("ncu", "2024.1.1"))
    assert (" ".join(command.argv), command.left_out) == (line, ())
    older = ncu_command(ncu(), known("ncu", "2022.3.0"))
    assert " ".join(older.argv) == line.replace("--graph-profiling node ", "")
    assert older.left_out == ("--graph-profiling=node",)


def test_a_replay_mode_that_a_version_lacks_is_left_out_and_named() -> None:
    command = ncu_command(ncu(ncu_replay="app-range"), known("ncu", "2022.3.0"))
    assert "--replay-mode" not in command.argv
    assert "--replay-mode=app-range" in command.left_out
    assert "app-range" in ncu_command(ncu(ncu_replay="app-range"), known("ncu", "2024.1.1")).argv


def test_every_kernel_is_measured_where_none_are_named() -> None:
    assert "--kernel-name" not in ncu_command(ncu(ncu_kernels=""), None).argv


def test_an_older_nsys_gets_only_what_it_knows() -> None:
    text = (HELP / "nsys-2022.4.2.txt").read_text()
    older = text.replace("\t--cuda-graph-trace=\n\t   graph node\n", "")
    older = older.replace(" stop stop-shutdown", " stop-shutdown").replace("\t--wait=", "\t--w=")
    command = nsys_command(nsys("graph"), read_help("2021.1.1", older))
    assert command.left_out == (
        "--capture-range-end=stop", "--wait=primary", "--cuda-graph-trace=graph",
    )  # fmt: skip
    assert not set(command.left_out) & set(command.argv)


def test_without_the_tool_every_option_is_shown() -> None:
    assert nsys_command(nsys("node"), None) == nsys_command(nsys("node"), known("nsys", NSYS[1]))


def test_exports_name_the_report_and_the_table() -> None:
    assert nsys_export_command(nsys("graph")).argv[-2:] == (
        "--output=out/nsys.sqlite", "out/nsys.nsys-rep",
    )  # fmt: skip
    assert " ".join(ncu_csv_command(ncu()).argv) == (
        "ncu --import out/ncu.ncu-rep --csv --page raw"
    )


@pytest.mark.parametrize("tool", ["nsys", "ncu"])
def test_of_every_problem_the_command_names_its_range_and_kernels(
    monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.setenv("WORKLOG_ROOT", str(CHECKOUT))
    for name in problem_names():
        capture = load_problem(name).capture
        assert capture is not None
        if tool == "nsys":
            plan = NsysPlan(PROGRAM, capture.nvtx_range, "graph", Path("x"))
            assert f"--nvtx-capture={capture.nvtx_range}@worklog" in nsys_command(plan, None).argv
        else:
            argv = ncu_command(NcuPlan(PROGRAM, capture, Path("x")), None).argv
            assert f"worklog@{capture.nvtx_range}/" in argv
            assert capture.ncu_kernels == "" or capture.ncu_kernels in argv


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVIDIA Nsight Systems version 2022.4.2.1-df9881f", "2022.4.2"),
        ("NVIDIA Nsight Systems version 2026.5.1.7-267", "2026.5.1"),
        ("Copyright (c) 2018-2022 NVIDIA\nVersion 2022.3.0.0 (build 3)", "2022.3.0"),
        ("nothing", "unknown"),
    ],
)
def test_versions_are_read_as_the_tools_print_them(text: str, version: str) -> None:
    assert short_version(text) == version


def test_a_newer_help_with_other_wording_is_read_too() -> None:
    """As documented for later versions: a granularity with a launch origin, one option for two."""
    text = (
        "\n\t--cuda-graph-trace=<granularity>[:<launch origin>]\n\n\t   'graph' or 'node'.\n"
        "\n\t--nvtx-domain-[include|exclude]=\n\n\t--pytorch=\n\t   autograd-nvtx functions-trace\n"
    )
    found = read_help("2025.6.1", text)
    assert found.knows("--cuda-graph-trace", "node:host-only")
    assert not found.knows("--cuda-graph-trace", "kernel")
    assert found.knows("--nvtx-domain-include") and found.knows("--nvtx-domain-exclude")
    assert found.knows("--pytorch", "autograd-nvtx,functions-trace")


@pytest.mark.parametrize(("name", "stored"), [("nsys", NSYS[0]), ("ncu", NCU[0])])
def test_the_installed_tool_is_read_like_its_stored_help(name: str, stored: str) -> None:
    tool = find_tool(name)
    if tool is None:
        pytest.skip(f"{name} is not installed here")
    assert len(tool.help.options) > 40
    if tool.version == stored:
        assert set(tool.help.options) == set(known(name, stored).options)
    plan = nsys("graph") if name == "nsys" else ncu()
    command = nsys_command(plan, tool.help) if name == "nsys" else ncu_command(plan, tool.help)  # type: ignore[arg-type]
    assert set(command.left_out) <= {"--graph-profiling=node"}
