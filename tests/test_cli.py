"""Does the command line answer fast, with the right exit code, and never with a traceback?"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import CHECKOUT, assert_one_line_error, environment, worklog
from helpers.runs import summarise_into, write_run
from helpers.synthetic import make_problem

from common.cli import COMMANDS, build_parser, main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    make_problem(root)
    return root


def test_help_is_there_in_a_blink(root: Path) -> None:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = worklog(root, "--help")
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0 and "exit codes" in done.stdout
    assert statistics.median(seconds) <= 0.3


def run_code(root: Path, code: str) -> subprocess.CompletedProcess[str]:
    """What a fresh Python does with `code` in a project at `root`."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_command_line_imports_neither_torch_nor_numpy(root: Path) -> None:
    code = (
        "import sys, common, common.cli; common.cli.build_parser(); "
        "print([m for m in ('torch', 'numpy', 'rich', 'msgspec') if m in sys.modules])"
    )
    done = run_code(root, code)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("arguments", [["check"], ["floors", "show"]])
def test_reading_commands_import_no_torch(root: Path, arguments: list[str]) -> None:
    code = (
        f"import sys; from common.cli import main; main({arguments!r}); "
        "sys.exit(7 if 'torch' in sys.modules else 0)"
    )
    done = run_code(root, code)
    assert done.returncode == 0, done.stderr


def test_a_command_alone_is_parsed_as_among_all() -> None:
    """Only the arguments of the named command are made at a start."""
    every = subcommands(build_parser())
    assert sorted(name for names, _ in COMMANDS for name in names) == sorted(every)
    for name, command in every.items():
        alone = subcommands(build_parser(name))
        assert alone[name].format_help() == command.format_help()
        assert len(alone) <= 3
    assert subcommands(build_parser("nothing")).keys() == every.keys()


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = [each.choices for each in parser._actions if isinstance(each.choices, dict)]
    assert len(found) == 1
    return found[0]


def test_a_diff_starts_without_what_is_slow_to_import(tmp_path: Path) -> None:
    """Twenty modules' dataclasses, or typing_extensions, cost a small diff a tenth of its time."""
    trace = tmp_path / "trace.json"
    events = [event("aten::mm", "cpu_op", 0), event("sgemm", "kernel", 2, stream=7)]
    trace.write_text(json.dumps({"traceEvents": events}))
    code = (
        "import sys; from common.cli import main; "
        f"main(['diff', {str(trace)!r}, {str(trace)!r}, '--json']); "
        "slow = {'dataclasses', 'typing_extensions', 'pandas', 'rich', 'torch'}; "
        "print(sorted(slow & set(sys.modules)), file=sys.stderr); "
        "import typing_extensions"  # which stays there for others
    )
    done = run_code(tmp_path, code)
    assert done.stderr == "[]\n" and done.returncode == 0
    assert json.loads(done.stdout)["verdict"]


def event(name: str, category: str, at: int, **args: int) -> dict[str, object]:
    where = {"pid": 1, "tid": 1, "ts": at, "dur": 1}
    return {"ph": "X", "name": name, "cat": category, **where, "args": args}


def test_every_command_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["run", "bench", "profile", "report", "check", "render", "floors"]
    for name in names:
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert name in capsys.readouterr().out
    assert all(name in build_parser().format_help() for name in names)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2), (["nothing"], 2), (["bench"], 2), (["bench", "spin", "--preset"], 2),
        (["bench", "spin", "--nothing"], 2), (["bench", "spin", "--js"], 2), (["floors"], 2),
        (["floors", "measure", "--budget", "much"], 2), (["floors", "show", "Abacus"], 2),
        (["floors", "measure", "--device", "tpu"], 2), (["check", "nothing"], 2),
        (["render", "nothing"], 2), (["run", "nothing"], 2), (["profile", "nothing"], 2),
        (["report"], 2), (["bench", "../spin"], 2), (["bench", ""], 2), (["bench", "sp\nin"], 2),
        (["bench", "spin", "--variant", "\x1b[31m"], 2),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line_and_exit_code_2(
    root: Path, arguments: list[str], code: int
) -> None:
    done = worklog(root, *arguments)
    assert_one_line_error(done, code)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_no_gpu_is_a_missing_precondition(root: Path) -> None:
    done = worklog(root, "bench", "spin", "--device", "cuda", PATH="/usr/bin:/bin")
    if done.returncode == 2:  # torch for CUDA and a GPU are here, but the preset is for CPUs
        return
    assert "--device cpu" in assert_one_line_error(done, 3)


def test_no_compiler_is_a_missing_precondition(root: Path) -> None:
    line = assert_one_line_error(worklog(root, "bench", "spin", PATH="", CXX=""), 3)
    assert "C++ compiler" in line and "apt-get install" in line


def test_no_problems_is_no_success(tmp_path: Path) -> None:
    for command in ("run", "check", "render"):
        assert "WORKLOG_ROOT" in assert_one_line_error(worklog(tmp_path, command), 2)


@pytest.mark.parametrize(
    "damage", [b"\xff", b"schema = ", b'schema = "worklog.problem/1"', b"a = " + b"[" * 50_000, b""]
)
def test_a_damaged_problem_is_one_line(tmp_path: Path, damage: bytes) -> None:
    contract = make_problem(tmp_path) / "problem.toml"
    contract.write_bytes(damage)
    assert_one_line_error(worklog(tmp_path, "bench", "spin"), 2)
    for command in ("check", "render"):  # a finding: what can be said of the other pages is said
        done = worklog(tmp_path, command, "spin")
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
        about = [line for line in (done.stdout + done.stderr).splitlines() if str(contract) in line]
        assert len(about) == 1, done


@pytest.mark.parametrize("name", ["manifest.json", "samples.jsonl", "checks.json"])
@pytest.mark.parametrize("damage", [b"\xff\n", b"{\n{\n", b"[]\n{}\n", b"[" * 50_000 + b"\n"])
def test_damaged_evidence_is_a_finding_and_no_traceback(
    tmp_path: Path, name: str, damage: bytes
) -> None:
    folder = make_problem(tmp_path, evidence={"cpu": "recorded/cpu"})
    run = write_run(folder / "recorded", {"plain": {"step": [1] * 12}})
    summarise_into(run.rename(folder / "recorded" / "cpu"))
    (folder / "recorded" / "cpu" / name).write_bytes(damage)
    done = worklog(tmp_path, "check")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "evidence cpu" in done.stdout
    rendered = worklog(tmp_path, "render")
    assert rendered.returncode in (1, 2) and "Traceback" not in rendered.stderr


def test_a_reader_that_leaves_is_no_error(root: Path) -> None:
    shell = f"{sys.executable} -m common.cli floors show --json | head -c 1 > /dev/null"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell], env=environment(root), cwd=CHECKOUT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_published_figures_are_one_document(root: Path) -> None:
    done = worklog(root, "floors", "show", "--json")
    devices = json.loads(done.stdout)
    assert done.returncode == 0 and len(devices) > 5
    name = devices[0]["driver_names"][0]
    assert json.loads(worklog(root, "floors", "show", name, "--json").stdout) == devices[:1]


def test_an_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "common.cli", "floors", "show"], env=environment(CHECKOUT),
            cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode not in (0, 1)
    assert "Traceback" not in done.stderr and done.stderr.startswith("error: the disk is full")


def test_the_version_is_told() -> None:
    done = worklog(CHECKOUT, "--version")
    assert done.stdout.startswith("worklog ") and os.linesep in done.stdout
