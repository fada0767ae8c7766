"""Are captures real, recorded in the manifest, and partial ones kept and marked?

The happy path runs the nsys that is installed; failures come from small scripts in its place.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command import (
    assert_one_line_error,
    processes_naming,
    run_folders,
    start,
    wait_for,
    worklog,
)
from helpers.synthetic import REPRO, make_problem

from common.experiments.capture import execute_captures
from common.experiments.request import settle
from common.recording.run_folder import open_run
from common.recording.tools import need_tool
from common.traces.formats import summarise

MAIN = """
if __name__ == "__main__":
    from pathlib import Path
    from common.experiments.standalone import run_standalone
    run_standalone(Path(__file__), __doc__)
"""
# The ranges of the spinning problem: "step" around each repetition's steps.
RANGED = REPRO.replace(
    '"step": sum(spin(ns) for _ in range(self.steps))}',
    '"step": self.ranged(ns)}',
).replace(
    "    def renew(self):",
    """    def ranged(self, ns):
        from common.recording.ranges import named_range
        total = 0
        with named_range("step"):
            for _ in range(self.steps):
                with named_range("one"):
                    total += spin(ns)
        return total

    def renew(self):""",
)
VARIANTS = {
    "plain": {"settings": {"factor": 1}},
    "double": {"settings": {"factor": 2}, "tolerance": 0.01},
    "slow": {"settings": {"behaviour": "sleeps"}, "tolerance": 0.01, "role": "diagnostic"},
}
# What the fake tools answer to the probes, and then do.
PROBES = """#!/bin/sh
case "$*" in
  --version) echo "Version 2022.4.2"; exit 0 ;;
  *--help*) cat "{help}"; exit 0 ;;
esac
for word in "$@"; do case "$word" in --output=*) out=${{word#--output=}} ;; esac; done
"""
HELP = Path(__file__).parents[1] / "data" / "profiler_help"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = make_problem(tmp_path, variants=VARIANTS)
    (folder / "repro.py").write_text(RANGED + MAIN)
    text = (folder / "problem.toml").read_text()
    (folder / "problem.toml").write_text(
        text.replace("[evidence]", '[capture]\nnvtx_range = "step"\n[evidence]')
    )
    return tmp_path


def fake(root: Path, tool: str, body: str) -> dict[str, str]:
    """The environment in which `tool` is this script."""
    stored = HELP / {"nsys": "nsys-2022.4.2.txt", "ncu": "ncu-2024.1.1.txt"}[tool]
    path = root / f"fake-{tool}"
    path.write_text(PROBES.format(help=stored) + body + "\n")
    path.chmod(0o755)
    return {tool.upper(): str(path)}


def captures(folder: Path) -> list[dict[str, Any]]:
    recorded: list[dict[str, Any]] = open_run(folder).manifest["captures"]
    return recorded


def need_nsys() -> None:
    if shutil.which("nsys") is None:
        pytest.skip("nsys is not installed here")


def test_a_real_capture_holds_the_range_of_interest_and_only_that(root: Path) -> None:
    need_nsys()
    done = worklog(root, "nsys", "spin", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "worklog.captures/1"
    assert [c["variant"] for c in document["captures"]] == ["plain", "double"]
    (folder,) = run_folders(root)
    run = open_run(folder)
    assert run.finished and run.manifest["capture"]["tool"] == "nsys"
    times = {}
    for record in captures(folder):
        assert record["state"] == "complete"
        assert "--capture-range=nvtx" in record["options"]
        assert set(record["files"]) == {
            f"traces/{record['variant']}/nsys-ranges.{suffix}" for suffix in ("nsys-rep", "sqlite")
        }
        sqlite = folder / "traces" / record["variant"] / "nsys-ranges.sqlite"
        assert summarise(sqlite)[1]["counts"]["nvtx_push_pop"] == 5
        with sqlite3.connect(sqlite) as connection:
            rows = connection.execute(
                "SELECT COALESCE(e.text, s.value), count(*), sum(e.end - e.start) "
                "FROM NVTX_EVENTS e LEFT JOIN StringIds s ON s.id = e.textId "
                "WHERE eventType = 59 GROUP BY 1"
            ).fetchall()
        assert [(name, count) for name, count, _ in rows] == [("one", 4), ("step", 1)]
        times[record["variant"]] = rows[0][2]
    assert times["double"] > 1.3 * times["plain"]


def test_a_manifest_names_no_place(root: Path) -> None:
    need_nsys()
    assert worklog(root, "nsys", "spin", "--variant", "plain", "--out", "x").returncode == 0
    (manifest,) = root.glob("x/*/*/*/manifest.json")
    assert str(root) not in manifest.read_text()


def test_worklog_diff_of_two_captures_attributes_by_range(root: Path) -> None:
    need_nsys()
    assert worklog(root, "nsys", "spin").returncode == 0
    (folder,) = run_folders(root)
    a, b = (folder / "traces" / name / "nsys-ranges.sqlite" for name in ("plain", "double"))
    done = worklog(root, "diff", str(a), str(b), "--by", "range", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["residual"] == 0
    assert document["delta"] == sum(
        row["delta"] for row in document["rows"] + document["remainders"]
    )
    assert {row["name"] for row in document["rows"]} & {"one", "step"}
    # Without a GPU it is the ranges' own time: twice the work is more of it.
    assert document["delta"] > 0


def test_a_dry_run_prints_the_commands_and_makes_nothing(root: Path) -> None:
    done = worklog(root, "nsys", "spin", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("profile --trace=nvtx" in line for line in lines)
    assert all("--nvtx-capture=step@worklog" in line for line in lines)
    assert not (root / "results").exists()


def test_a_dry_run_without_the_tool_says_that_nothing_was_checked(root: Path) -> None:
    done = worklog(root, "ncu", "spin", "--dry-run", "--variant", "plain", PATH=os.defpath)
    if done.returncode == 0 and "notice" in done.stderr:
        assert "its options were not checked" in done.stderr
    command, table = done.stdout.splitlines()
    assert "--clock-control none" in command and "--replay-mode kernel" in command
    assert "worklog@step/" in command
    assert table.endswith("/traces/plain/ncu.csv")


def test_options_that_the_installed_version_lacks_are_named(root: Path) -> None:
    environment = fake(root, "nsys", "exit 1")
    script = Path(environment["NSYS"])
    script.write_text(script.read_text().replace('cat "', 'grep -v -e --wait= "'))
    done = worklog(root, "nsys", "spin", "--dry-run", "--variant", "plain", **environment)
    assert "nsys 2022.4.2 does not know --wait=primary: left out" in done.stderr
    assert "--wait" not in done.stdout


# Bad input.


def test_a_missing_profiler_is_one_line_and_exit_code_3(root: Path) -> None:
    only = root / "bin"
    only.mkdir()
    for name in ("g++", "uname"):
        found = shutil.which(name)
        if found:
            (only / name).symlink_to(found)
    done = worklog(root, "nsys", "spin", PATH=str(only))
    assert "nsys is not installed here" in assert_one_line_error(done, 3)
    assert not (root / "results").exists()


def test_a_profiler_that_cannot_start_is_one_line_and_exit_code_3(root: Path) -> None:
    broken = root / "broken"
    broken.write_text("#!/bin/sh\necho 'no libraries' >&2\nexit 127\n")
    broken.chmod(0o755)
    done = worklog(root, "nsys", "spin", NSYS=str(broken))
    assert "fails (exit code 127)" in assert_one_line_error(done, 3)
    done = worklog(root, "nsys", "spin", NSYS="/nowhere/nsys")
    assert "NSYS=/nowhere/nsys is no program" in assert_one_line_error(done, 3)


def test_without_a_gpu_ncu_says_so_before_any_work(root: Path) -> None:
    done = worklog(root, "ncu", "spin", **fake(root, "ncu", "exit 0"))
    assert "NVIDIA GPU and there is none here" in assert_one_line_error(done, 3)
    assert not (root / "results").exists()


def test_a_mode_for_gpus_is_refused_on_a_cpu(root: Path) -> None:
    done = worklog(root, "nsys", "spin", "--mode", "graph", **fake(root, "nsys", "exit 0"))
    assert "mode graph is not for cpu; use one of: ranges" in assert_one_line_error(done, 2)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'Segmentation fault' >&2; exit 139", "ended with exit code 139 and left no report"),
        ("kill -SEGV $$", "ended with signal 11 and left no report"),
        ("exit 0", "ended with exit code 0 and left no report"),
        ('echo x > "$out.qdstrm"; exit 0', "could not turn its .qdstrm into a report"),
        ('echo x > "$out.nsys-rep"; exit 0', "left no SQLite that can be read"),
        ('echo x > "$out.nsys-rep"; echo x > "$out.sqlite"; exit 0', "no SQLite that can be read"),
        ("echo ERR_NVGPUCTRPERM; exit 1", "administrators read the GPU's counters"),
    ],
)
def test_an_nsys_that_fails_keeps_what_it_left_and_marks_it(
    root: Path, body: str, words: str
) -> None:
    done = worklog(root, "nsys", "spin", "--variant", "plain", **fake(root, "nsys", body))
    assert done.returncode == (3 if "ERR_" in body else 1), done.stderr
    assert "Traceback" not in done.stderr and words in done.stderr
    (folder,) = run_folders(root)
    (record,) = captures(folder)
    assert record["state"] == "failed" and words in record["reason"]
    assert str(root) not in record["reason"]
    left = {p.name for p in (folder / "traces" / "plain").iterdir()}
    assert {Path(name).name for name in record["files"]} == left


def test_a_report_without_the_range_is_not_taken_for_a_capture(root: Path) -> None:
    body = (
        'echo x > "$out.nsys-rep"; python3 -c "import sqlite3, sys; '
        "c = sqlite3.connect(sys.argv[1]); c.execute('CREATE TABLE StringIds(id, value)')\" "
        '"$out.sqlite"; exit 0'
    )
    done = worklog(root, "nsys", "spin", "--variant", "plain", **fake(root, "nsys", body))
    assert done.returncode == 1
    assert "holds no range named 'step': NVTX was not recorded" in done.stderr


def test_one_that_fails_does_not_keep_the_others_from_being_captured(root: Path) -> None:
    need_nsys()
    real = shutil.which("nsys")
    body = f'case "$*" in *double*) exit 9 ;; esac; exec {real} "$@"'
    done = worklog(root, "nsys", "spin", **fake(root, "nsys", body))
    assert done.returncode == 1, done.stderr
    (folder,) = run_folders(root)
    assert [c["state"] for c in captures(folder)] == ["complete", "failed"]
    assert list((folder / "traces" / "plain").glob("*.sqlite"))


def test_ctrl_c_during_a_capture_keeps_and_marks_what_there_is(root: Path) -> None:
    need_nsys()
    process = start(root, "nsys", "spin", "--variant", "plain", "--variant", "slow")
    assert wait_for(lambda: processes_naming("slow/nsys-ranges"), 60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert "Traceback" not in said and said.strip().splitlines()[-1].startswith("error: stopped")
    (folder,) = run_folders(root)
    assert folder.name.endswith(".unfinished")
    assert open_run(folder).manifest["ended_by"] == "KeyboardInterrupt"
    assert [c["state"] for c in captures(folder)] == ["complete", "interrupted"]
    assert wait_for(lambda: not processes_naming(str(root / "problems")), 20)


@pytest.mark.parametrize("at_the_end", ["exit 0", "sleep 60"])
def test_what_a_profiler_started_in_another_session_ends_with_it(
    root: Path, at_the_end: str
) -> None:
    """nsys runs the program in a session of its own, and may be gone before it is."""
    program = f'setsid sh -c "touch {root}/began; sleep 300; : {root}/left" &'
    body = f"{program} while [ ! -e {root}/began ]; do sleep 0.05; done; {at_the_end}"
    process = start(root, "nsys", "spin", "--variant", "plain", **fake(root, "nsys", body))
    assert wait_for((root / "began").exists, 60)
    if at_the_end != "exit 0":
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=90)
    assert process.returncode == (1 if at_the_end == "exit 0" else 130)
    assert wait_for(lambda: not processes_naming(f"{root}/left"), 5)


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_work(root: Path) -> None:
    (root / "file").write_text("")
    environment = fake(root, "nsys", f"touch {root}/was-run")
    done = worklog(root, "nsys", "spin", "--out", str(root / "file"), **environment)
    assert "choose another folder with --out" in assert_one_line_error(done, 2)
    assert not (root / "was-run").exists()


def test_a_problem_without_an_aim_is_refused(root: Path) -> None:
    path = root / "problems" / "spin" / "problem.toml"
    path.write_text(path.read_text().replace('[capture]\nnvtx_range = "step"\n', ""))
    done = worklog(root, "nsys", "spin", **fake(root, "nsys", "exit 0"))
    assert "has no [capture] table; add one" in assert_one_line_error(done, 2)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo '==ERROR== ERR_NVGPUCTRPERM - no permission'; exit 1", "counters"),
        ("exit 255", "ncu ended with exit code 255 and left no report"),
        ('for w in "$@"; do last=$out; out=$w; [ "$last" != --export ] || echo x > "$w.ncu-rep"; '
         "done; exit 0", "ncu cannot read its own report"),
    ],
)  # fmt: skip
def test_an_ncu_that_fails_is_marked_in_the_manifest(
    root: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    """As on a GPU machine: the command line refuses a CPU before it comes to this."""
    monkeypatch.setenv("WORKLOG_ROOT", str(root))
    monkeypatch.setenv("WORKLOG_CACHE", str(root / ".cache"))
    probe = 'case "$*" in *--import*) exit 1 ;; esac\n'
    monkeypatch.setenv("NCU", fake(root, "ncu", probe + body)["NCU"])
    request = replace(settle("spin", "small", ["plain"], out=root / "results"), device="cuda")
    folder, (record,) = execute_captures(request, need_tool("ncu"), [])
    assert record["state"] == "failed" and words in record["reason"]
    manifest = open_run(folder).manifest
    assert manifest["captures"] == [record]
    assert "--clock-control" in record["options"] and "--replay-mode" in record["options"]
