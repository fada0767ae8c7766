"""Is nothing left of a program, however it ends, and is nobody else's process touched?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from helpers.command import processes_naming, wait_for

from common.recording import gpu_state, process_tree
from common.recording.process_tree import Ended, descendants, interrupts_held, run_limited
from common.recording.tools import run_tool
from common.workloads import expert_launch

PYTHON = [sys.executable, "-I", "-S", "-c"]
# Starts a process in a session of its own that ignores what it can, and tells its number.
STUBBORN = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c",
    "import signal, time\\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\\ntime.sleep(99)",
    MARK], start_new_session=True)
print("started", flush=True)
"""


def run(tmp_path: Path, code: str, limit_s: float = 20.0) -> Ended:
    return run_limited([*PYTHON, code], os.environ, tmp_path / "log.txt", limit_s)


def stubborn(tmp_path: Path, then: str) -> tuple[str, str]:
    mark = f"mark-{tmp_path.name}"
    return mark, f"MARK = {mark!r}\n{STUBBORN}\n{then}"


def test_a_program_that_ends_by_itself_has_its_exit_code_and_words(tmp_path: Path) -> None:
    ended = run(tmp_path, "import sys; print('words'); sys.exit(7)")
    assert (ended.exit_code, ended.timed_out, ended.left_behind) == (7, False, 0)
    assert (tmp_path / "log.txt").read_text() == "words\n"
    assert ended.says == "ended with exit code 7"


def test_results_and_words_are_kept_apart(tmp_path: Path) -> None:
    code = "import sys; print('result'); print('noise', file=sys.stderr)"
    results = tmp_path / "out.json"
    run_limited([*PYTHON, code], os.environ, tmp_path / "log.txt", 20, results)
    assert results.read_text() == "result\n" and (tmp_path / "log.txt").read_text() == "noise\n"


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    mark, code = stubborn(tmp_path, "time.sleep(99)")
    started = time.monotonic()
    ended = run(tmp_path, code, limit_s=1.0)
    assert ended.timed_out and time.monotonic() - started < 20
    assert ended.left_behind == 1 and processes_naming(mark) == []
    assert "time limit" in ended.says


def test_what_a_program_leaves_behind_in_another_session_is_ended_too(tmp_path: Path) -> None:
    mark, code = stubborn(tmp_path, "os._exit(0)")  # the child becomes an orphan
    ended = run(tmp_path, code)
    assert (ended.exit_code, ended.left_behind) == (0, 1)
    assert processes_naming(mark) == []


def test_a_program_that_ignores_the_request_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.recording.process_tree.GRACE_SECONDS", 0.3)
    ended = run(
        tmp_path,
        "import signal, time\nsignal.signal(2, signal.SIG_IGN)\nprint(1, flush=True)\n"
        "time.sleep(99)",
        limit_s=1.0,
    )
    assert ended.timed_out and ended.exit_code == -signal.SIGKILL


def test_a_child_that_came_after_a_look_is_seen_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parent ended between the list of processes and the look at it: that look sees neither."""
    mark, code = stubborn(tmp_path, "os._exit(0)")
    real, looks = process_tree.descendants, []

    def late(*arguments: Any, **more: Any) -> set[int]:
        looks.append(real(*arguments, **more))
        return set() if len(looks) == 1 else looks[-1]

    monkeypatch.setattr(process_tree, "descendants", late)
    ended = run(tmp_path, code)
    assert looks[0] and ended.left_behind == 1 and processes_naming(mark) == []


def test_another_child_of_the_caller_lives_on(tmp_path: Path) -> None:
    other = subprocess.Popen([*PYTHON, "import time; time.sleep(60)"])
    try:
        run(tmp_path, "pass")
        assert other.poll() is None
        assert other.pid in descendants(os.getpid())
        assert other.pid not in descendants(os.getpid(), without=[other.pid])
    finally:
        other.kill()
        other.wait()


def test_an_interrupt_ends_the_program_and_goes_on(tmp_path: Path) -> None:
    mark, code = stubborn(tmp_path, "time.sleep(99)")
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, code)
    assert processes_naming(mark) == []


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def answered() -> Iterator[list[int]]:
    """Ctrl-C raises, however these tests were started; the SIGTERMs that came."""
    came: list[int] = []
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: came.append(number)),
    }
    yield came
    for number, answer in before.items():
        signal.signal(number, answer)


def _limited(argv: list[str], folder: Path) -> None:
    run_limited(argv, os.environ, folder / "log", 60)


def _tool(argv: list[str], folder: Path) -> None:
    run_tool(argv, os.environ, folder / "log")


def _sampler(argv: list[str], folder: Path) -> None:
    with (
        mock.patch.object(gpu_state, "smi_command", lambda *_: argv),
        gpu_state.Sampler(folder / "clocks", ["timestamp"]),
    ):
        time.sleep(60)


def _ranks(argv: list[str], folder: Path) -> None:
    with mock.patch.object(expert_launch, "torchrun_command", lambda *_: argv):
        expert_launch.run_ranks([expert_launch.Request("tiny", 2, 7, 1)], 1, folder)


@pytest.mark.parametrize("start", [_limited, _tool, _sampler, _ranks])
def test_an_interrupt_while_a_program_starts_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[list[str], Path], None]
) -> None:
    """After the fork and before Popen has returned."""
    real = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def interrupted(self: subprocess.Popen[bytes], *arguments: object) -> None:
        real(self, *arguments)
        assert wait_for(lambda: len(processes_naming(mark)) == 1)
        signal.raise_signal(signal.SIGINT)

    mark = f"mark-{tmp_path.name}"
    argv = [*PYTHON, "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(99)", mark]
    monkeypatch.setattr(subprocess.Popen, "_execute_child", interrupted)
    monkeypatch.setattr("common.recording.tools.STOP_SECONDS", 0.5)
    with pytest.raises(KeyboardInterrupt):
        start(argv, tmp_path)
    assert processes_naming(mark) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_comes_while_answers_are_put_back_finds_them_put_back(
    monkeypatch: pytest.MonkeyPatch, answered: list[int]
) -> None:
    real = signal.signal

    def interrupted(number: signal.Signals, answer: Any) -> Any:
        before = real(number, answer)
        if answer is signal.default_int_handler:
            signal.raise_signal(signal.SIGINT)
        return before

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGTERM)
    assert answered == [signal.SIGTERM]
    signal.raise_signal(signal.SIGTERM)
    assert answered == [signal.SIGTERM] * 2


def test_what_is_held_is_answered_once_also_after_an_error() -> None:
    with pytest.raises(KeyboardInterrupt) as found, interrupts_held():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise OSError("no such program")
    assert isinstance(found.value.__context__, OSError)
    with interrupts_held():  # nothing is left of it
        pass


# The recorder is killed before the kernel knows that its program shall die with it.
LATE = """
import ctypes, time
real = ctypes.CDLL(None, use_errno=True)
class Late:
    def prctl(self, *arguments):
        time.sleep(1.0 if arguments[0] == 1 else 0)
        return real.prctl(*arguments)
ctypes.CDLL = lambda *_, **__: Late()
"""


@pytest.mark.parametrize("before", ["", LATE], ids=["at-once", "late"])
def test_the_program_dies_with_a_recorder_that_is_killed(tmp_path: Path, before: str) -> None:
    mark = f"mark-{tmp_path.name}"
    driver: Sequence[str] = [
        sys.executable, "-c",
        f"{before}\nimport os, sys\nfrom pathlib import Path\n"
        "from common.recording.process_tree import run_limited\n"
        "run_limited([sys.executable, '-I', '-S', '-c', 'import time; time.sleep(99)', "
        f"{mark!r}], os.environ, Path({str(tmp_path / 'log')!r}), 60)",
    ]  # fmt: skip
    root = str(Path(__file__).resolve().parents[2])
    recorder = subprocess.Popen(driver, env={**os.environ, "PYTHONPATH": root})
    # Its own command line names the mark, too.
    assert wait_for(lambda: len(processes_naming(mark)) == 2)
    recorder.kill()
    recorder.wait()
    assert wait_for(lambda: processes_naming(mark) == [])
