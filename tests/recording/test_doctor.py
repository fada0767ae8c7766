"""Does the doctor say what is there, and end every "no" with what mends it?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import worklog

from common.recording import doctor
from common.recording.doctor import (
    Finding,
    compiler,
    container_engine,
    counters,
    disk,
    examine,
    gpu,
    paranoid,
    profiler,
    to_json,
    to_text,
    toolkit,
    torch_build,
)

TOPICS = (
    "GPU and driver", "torch", "C++ compiler", "nsys", "ncu", "GPU counters (ncu)",
    "CPU sampling (nsys)", "container engine", "NVIDIA container toolkit", "disk",
)  # fmt: skip
H200 = {"name": "NVIDIA H200", "driver_version": "580.95"}


def test_this_machine_is_examined_in_every_respect() -> None:
    findings = examine(Path.cwd())
    assert tuple(finding.topic for finding in findings) == TOPICS
    for finding in findings:
        assert finding.state in ("ok", "missing", "none") and finding.says
        if finding.state == "missing":
            assert finding.mend, finding


def test_the_command_prints_a_table_or_one_document(tmp_path: Path) -> None:
    done = worklog(tmp_path, "doctor")
    assert done.returncode == 0, done.stderr
    assert all(topic in done.stdout for topic in TOPICS)
    document = json.loads(worklog(tmp_path, "doctor", "--json").stdout)
    assert document["schema"] == "worklog.doctor/1"
    assert [row["topic"] for row in document["findings"]] == list(TOPICS)


def test_without_a_compiler_nothing_can_be_measured_and_the_exit_code_is_3(tmp_path: Path) -> None:
    done = worklog(tmp_path, "doctor", PATH=str(tmp_path), CXX="")
    assert done.returncode == 3
    assert "apt-get install g++" in done.stdout


@pytest.mark.parametrize(
    ("finding", "state", "words"),
    [
        (gpu([H200]), "ok", "NVIDIA H200, driver 580.95"),
        (gpu([H200, H200]), "ok", "and 1 more"),
        (torch_build(None, False), "missing", "./run.sh setup"),
        (torch_build("2.13.0+cpu", True), "missing", "rm -r .venv"),
        (torch_build("2.13.0+cpu", False), "ok", "2.13.0+cpu"),
        (compiler(None), "missing", "apt-get install g++"),
        (compiler("g++ 12"), "ok", "g++ 12"),
        (counters(None, False, False), "none", "no NVIDIA driver"),
        (counters("A: 1\nRmProfilingAdminOnly: 0\n", False, True), "ok", "open to everybody"),
        (counters("RmProfilingAdminOnly: 1\n", False, True), "missing", "ERR_NVGPUCTRPERM"),
        (counters("RmProfilingAdminOnly: 1\n", True, True), "ok", "this is root"),
        (counters(None, False, True), "missing", "on the host"),
        (paranoid("2\n"), "ok", "is 2"),
        (paranoid("4\n"), "missing", "kernel.perf_event_paranoid=2"),
        (paranoid(None), "none", "captures go without"),
        (toolkit(True, True, False), "missing", "nvidia-container-toolkit"),
        (toolkit(True, True, True), "ok", "nvidia-ctk"),
        (toolkit(False, True, False), "none", "no GPU"),
        (disk(1 << 30), "missing", "free some space"),
        (disk(1 << 40), "ok", "GB free"),
    ],
)
def test_each_fact_leads_to_one_line(finding: Finding, state: str, words: str) -> None:
    assert finding.state == state
    assert words in to_text([finding])
    assert json.loads(to_json([finding]))["findings"][0]["state"] == state


def test_a_driver_without_a_gpu_is_something_to_mend(path_with, monkeypatch) -> None:
    monkeypatch.setenv("PATH", path_with("nvidia-smi", "exit 9"))
    assert gpu([]).state == "missing"
    monkeypatch.setenv("PATH", "")
    assert gpu([]).state == "none"


@pytest.fixture
def path_with(tmp_path: Path):  # type: ignore[no-untyped-def]
    def make(name: str, body: str) -> str:
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
        return str(tmp_path)

    return make


def test_a_profiler_that_is_there_and_broken_is_missing_and_not_a_crash(
    path_with, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", path_with("nsys", "echo no libraries >&2; exit 127"))
    finding = profiler("nsys")
    assert finding.state == "missing" and "exit code 127" in finding.says


def test_an_engine_that_does_not_answer_is_named_with_its_last_words(
    path_with, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", path_with("docker", "echo cannot connect >&2; exit 1"))
    finding = container_engine({}, doctor._answers)
    assert finding.state == "missing"
    assert "docker does not answer (cannot connect); podman is not here" in finding.says
    assert "systemctl start docker" in finding.mend


def test_podman_serves_where_docker_does_not_answer(path_with, monkeypatch) -> None:
    path_with("docker", "exit 1")
    monkeypatch.setenv("PATH", path_with("podman", "exit 0"))
    finding = container_engine({}, doctor._answers)
    assert (finding.state, finding.mend) == ("ok", "export DOCKER=podman")
    assert container_engine({"DOCKER": "podman"}, doctor._answers).mend == ""
    assert container_engine({"DOCKER": "docker"}, doctor._answers).state == "missing"
