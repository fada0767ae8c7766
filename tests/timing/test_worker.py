"""Is a variant's process heard, and noticed when it lies, dies, hangs or is left alone?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.command import CHECKOUT, environment, processes_naming, wait_for

from common.timing.worker_client import Worker, WorkerFailed, last_words

HEAD = """
import os, signal, subprocess, sys, time
class Session:
    def needs_bytes(self): return 5
    def prepare(self): return {}
    def sample(self): return {"step": 7}
    def renew(self): pass
    def outputs(self, path): path.write_text("x")
    def profile(self, folder): return {}
def open_session(**arguments):
    Session.arguments = arguments
    return Session()
"""
OPEN = {"variant": {"a": 1}, "preset": {}, "device": "cpu", "options": {}}
Start = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a worker on a `repro.py` with this body; all are ended afterwards."""
    started: list[Worker] = []

    def begin(body: str = "", packages: list[Path] | None = None, **more: str) -> Worker:
        (tmp_path / "repro.py").write_text(HEAD + body)
        worker = Worker("side", tmp_path / "repro.py", packages or [], more, tmp_path / "side.log")
        started.append(worker)
        return worker

    yield begin
    for worker in started:
        worker.kill()
    assert wait_for(lambda: not processes_naming(str(tmp_path)), 5)


def test_every_request_has_its_answer(start: Start, tmp_path: Path) -> None:
    worker = start("Session.prepare = lambda self: dict(self.arguments)")
    assert worker.request("open", 20, **OPEN) == {"needs_bytes": 5}
    assert worker.request("prepare", 5) == {"facts": OPEN}
    sampled = worker.request("sample", 5)
    assert sampled["phases"] == {"step": 7} and sampled["fresh_pages"] >= 0
    assert worker.request("renew", 5) == {}
    assert worker.request("outputs", 5, path=str(tmp_path / "o")) == {}
    assert (tmp_path / "o").read_text() == "x"
    assert worker.request("profile", 5, folder=str(tmp_path)) == {"facts": {}}
    peak = worker.close()
    assert peak is not None and 1 << 20 < peak < 1 << 40
    assert worker.close() is None  # a second time is harmless


def test_what_a_library_prints_is_never_an_answer(start: Start, tmp_path: Path) -> None:
    worker = start(
        """
print('{"needs_bytes": 666}')
os.write(1, b'{"needs_bytes": 667}\\n' * 5)
os.system("echo '{\\"needs_bytes\\": 668}'")
sys.stderr.write("warning\\n")
""",
        PYTHONUNBUFFERED="",  # empty is unset: with it each line is written at once anyway
    )
    assert worker.request("open", 20, **OPEN) == {"needs_bytes": 5}
    assert "666" in (tmp_path / "side.log").read_text()


def test_what_a_library_reads_is_never_a_request(start: Start) -> None:
    worker = start("eaten = sys.stdin.read(); os.system('cat > /dev/null')")
    assert worker.request("open", 20, **OPEN) == {"needs_bytes": 5}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('no weights\\nsecond line')", "RuntimeError: no weights"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("this is no python", "SyntaxError"),
        ("del open_session", "AttributeError"),
        ("Session.needs_bytes = lambda self: None", "TypeError"),
        ("Session.needs_bytes = lambda self: 0.5", "TypeError"),
    ],
)
def test_what_is_raised_comes_back_in_one_line(start: Start, body: str, words: str) -> None:
    worker = start(body)
    with pytest.raises(WorkerFailed) as caught:
        worker.request("open", 20, **OPEN)
    message = str(caught.value)
    assert message.startswith("side: open failed: ") and words in message
    assert "\n" not in message and "second line" not in message
    assert message.endswith("see side.log")
    assert caught.value.worker == "side"


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("sample", "Session.sample = lambda self: {'step': 1.5}"),
        ("sample", "Session.sample = lambda self: None"),
        ("sample", "Session.sample = lambda self: {'step': 'fast'}"),
        ("prepare", "Session.prepare = lambda self: {'loss': float('nan')}"),
        ("prepare", "Session.prepare = lambda self: {'object': object()}"),
        ("prepare", "Session.prepare = lambda self: None"),
    ],
)
def test_an_answer_that_cannot_be_kept_is_an_error_where_it_arises(
    start: Start, command: str, body: str
) -> None:
    worker = start(body)
    worker.request("open", 20, **OPEN)
    with pytest.raises(WorkerFailed, match=r"Type|Value|Attribute"):
        worker.request(command, 5)
    assert worker.close() is not None  # and the process is as alive as before


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit(7)", "exit code 7"),
        ("os._exit(0)", "exit code 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"was killed \(out of memory\?\)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
    ],
)
def test_how_a_process_ended_is_told(start: Start, body: str, words: str) -> None:
    worker = start(f"print('last words of mine', flush=True)\n{body}")
    with pytest.raises(WorkerFailed, match=words) as caught:
        worker.request("open", 20, **OPEN)
    assert "last words of mine" in str(caught.value)
    with pytest.raises(WorkerFailed):  # asked again, it is still a failure of this worker
        worker.request("sample", 5)
    assert worker.close() is None


def test_a_process_that_died_between_requests_is_noticed(start: Start) -> None:
    worker = start("Session.renew = lambda self: os._exit(3) if os.fork() == 0 else None")
    worker.request("open", 20, **OPEN)
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(WorkerFailed, match="was killed"):
        worker.request("sample", 5)


def test_a_process_that_hangs_is_ended_in_time(start: Start) -> None:
    worker = start("Session.sample = lambda self: time.sleep(600)")
    worker.request("open", 20, **OPEN)
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match="no answer in time during sample"):
        worker.request("sample", 0.3)
    assert time.monotonic() - began < 3
    assert worker._process.poll() is not None


def test_a_death_is_noticed_though_a_forked_child_holds_the_pipe(start: Start) -> None:
    worker = start("""
def sample(self):
    if os.fork() == 0:
        time.sleep(30)
    os.kill(os.getpid(), signal.SIGKILL)
Session.sample = sample
""")
    worker.request("open", 20, **OPEN)
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match="was killed"):
        worker.request("sample", 25)
    assert time.monotonic() - began < 15
    os.killpg(worker._process.pid, signal.SIGKILL)  # the sleeper of this test


def test_what_a_hanging_process_started_goes_with_it(start: Start, tmp_path: Path) -> None:
    worker = start(f"""
def sample(self):
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)", {str(tmp_path)!r}])
Session.sample = sample
""")
    worker.request("open", 20, **OPEN)
    with pytest.raises(WorkerFailed, match="in time"):
        worker.request("sample", 1)
    assert wait_for(lambda: not processes_naming(str(tmp_path)), 5)


@pytest.mark.parametrize("answer", ["no json", "", "[1]", "3", "{", "[" * 100_000])
def test_an_answer_that_is_none_is_a_failure(start: Start, answer: str) -> None:
    line = (answer + "\n").encode()
    worker = start(f"os.write(int(sys.argv[-1]), {line!r})")
    with pytest.raises(WorkerFailed, match="gave an answer that is none during open"):
        worker.request("open", 20, **OPEN)


def test_a_long_answer_arrives_whole(start: Start) -> None:
    worker = start("Session.prepare = lambda self: {'text': 'x' * 3_000_000}")
    worker.request("open", 20, **OPEN)
    assert len(worker.request("prepare", 20)["facts"]["text"]) == 3_000_000


def test_an_interrupted_request_is_not_answered_by_the_next(start: Start) -> None:
    """After Ctrl-C in mid-sample the pipe holds an answer to a question nobody asks any more."""
    worker = start("Session.sample = lambda self: time.sleep(0.2) or {'step': 1}")
    worker.request("open", 20, **OPEN)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            worker.request("sample", 20)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert worker.close() is None
    assert worker._process.poll() is not None


def test_environment_and_packages_come_first(start: Start, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a_library.py").write_text(f"NAME = {name!r}")
    worker = start(
        "import a_library\nSession.prepare = lambda self: {'library': a_library.NAME, "
        "'flag': os.environ['FLAG'], 'home': os.environ.get('HOME')}",
        [tmp_path / "one", tmp_path / "two"],
        FLAG="7",
    )
    worker.request("open", 20, **OPEN)
    facts = worker.request("prepare", 5)["facts"]
    assert facts == {"library": "one", "flag": "7", "home": os.environ.get("HOME")}


def test_a_worker_does_not_take_its_modules_from_the_current_folder(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "common").mkdir(parents=True)
    (tmp_path / "here" / "common" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path / "here")
    assert start().request("open", 20, **OPEN) == {"needs_bytes": 5}


def test_a_log_that_cannot_be_written_leaves_no_open_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError):
            Worker("side", tmp_path / "repro.py", [], {}, tmp_path / "no" / "folder.log")
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_ended_worker_leaves_no_open_descriptor(start: Start) -> None:
    before = len(os.listdir("/proc/self/fd"))
    worker = start()
    worker.request("open", 20, **OPEN)
    worker.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("busy", [True, False])
def test_a_worker_dies_with_its_parent(tmp_path: Path, busy: bool) -> None:
    (tmp_path / "repro.py").write_text(HEAD + "Session.sample = lambda self: time.sleep(600)")
    parent = f"""
from pathlib import Path
from common.timing.worker_client import Worker
folder = Path({str(tmp_path)!r})
worker = Worker("side", folder / "repro.py", [], {{}}, folder / "side.log")
worker.request("open", 20, **{OPEN!r})
(folder / "opened").touch()
if {busy}:
    worker.request("sample", 600)
import time; time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", parent], env=environment(tmp_path), cwd=CHECKOUT
    )
    try:
        assert wait_for((tmp_path / "opened").exists)
        wait_for(lambda: False, 0.2)
        assert len(processes_naming(str(tmp_path / "repro.py"))) == 1
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_for(lambda: not processes_naming(str(tmp_path / "repro.py")), 5)


def test_last_words_are_the_last_lines_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_words(log) == ""
    log.write_bytes(b"one\n\ntwo\n\xff three \n\nfour\n\n")
    assert last_words(log) == "two | \ufffd three | four"


def test_the_peak_is_the_process_own_and_not_its_parents() -> None:
    """`ru_maxrss` outlives exec: a small child of a process with 300 MiB would report those."""
    child = "from common.memory import peak_resident_bytes; print(peak_resident_bytes())"
    parent = f"""
import subprocess, sys
held = bytearray(b"x") * (300 << 20)
print(subprocess.run([sys.executable, "-c", {child!r}], capture_output=True, text=True).stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, text=True, check=True
    )
    assert 0 < int(done.stdout) < 100 << 20
