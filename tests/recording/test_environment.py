"""Are the facts of a machine read, unknown ones None, and nobody named?"""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

import pytest

from common import memory
from common.recording import environment
from common.recording.environment import (
    Machine,
    compiler_version,
    device_slug,
    gpu_facts,
    machine_facts,
    package_version,
    read_machine,
    revision,
    slug,
    without_places,
)

H200 = "NVIDIA H200, 580.95.05, 143771 MiB, 9.0, 345 MHz, 3201 MHz, 1980 MHz, 700.00 W, 30, 0x1"


def fake(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_the_machine_here_has_plausible_facts() -> None:
    machine = read_machine()
    assert 1 <= machine.usable_cpus <= (machine.logical_cpus or 10**6)
    assert machine.memory_bytes is None or machine.memory_bytes > 1 << 28
    assert machine_facts(machine)["kernel"].startswith(os.uname().sysname)


def test_the_facts_name_no_host_and_no_person() -> None:
    text = repr(machine_facts(read_machine())) + device_slug(read_machine(), "cpu")
    assert os.uname().nodename not in text
    assert os.uname().version not in text  # the builder of the kernel stands in it
    assert getpass.getuser() not in text.split()
    assert "GPU-" not in text  # a serial number


def test_a_fact_that_cannot_be_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_read", lambda path: None)
    monkeypatch.setattr(memory, "_MEMINFO", Path("/nowhere"))
    monkeypatch.setenv("PATH", "")
    machine = read_machine()
    assert (machine.cpu, machine.l2_bytes, machine.l3_bytes, machine.memory_bytes) == (None,) * 4
    assert (machine.virtual, machine.transparent_huge_pages, machine.gpus) == (None, None, ())
    assert device_slug(machine, "cpu") == f"cpu-unknown-{machine.usable_cpus}c"


def test_gpus_are_those_that_nvidia_smi_prints(tmp_path: Path, monkeypatch) -> None:
    fake(tmp_path / "bin", "nvidia-smi", f"echo '{H200}'; echo '{H200}'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    first, second = gpu_facts()
    assert first == second
    assert (first["name"], first["compute_cap"]) == ("NVIDIA H200", "9.0")
    assert device_slug(read_machine(), "cuda") == "nvidia-h200"


def test_a_gpu_is_seen_by_an_older_driver_that_knows_fewer_fields(tmp_path, monkeypatch) -> None:
    body = (
        'case "$1" in *event_reasons*) echo "Field is not a valid field to query."; exit 2;; esac\n'
        "echo 'Tesla V100, 470.1, 16160 MiB'"
    )
    fake(tmp_path / "bin", "nvidia-smi", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert gpu_facts() == (
        {"name": "Tesla V100", "driver_version": "470.1", "memory.total": "16160 MiB"},
    )


@pytest.mark.parametrize("body", ["exit 9", "echo", "kill -9 $$"])
def test_a_driver_that_does_not_answer_is_no_gpu(tmp_path: Path, monkeypatch, body: str) -> None:
    fake(tmp_path / "bin", "nvidia-smi", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert gpu_facts() == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AMD EPYC 7763 64-Core Processor", "cpu-amd-epyc-7763-64-core-2c"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "cpu-intel-xeon-2c"),
        (None, "cpu-unknown-2c"),
    ],
)
def test_slugs_of_cpus(text: str | None, expected: str) -> None:
    machine = Machine(text, 2, 2, None, None, None, None, "Linux", None, ())
    assert device_slug(machine, "cpu") == expected
    assert slug("NVIDIA GeForce RTX 5090") == "nvidia-geforce-rtx-5090"


def test_a_broken_compiler_is_passed_over(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "broken").write_bytes(b"\x7fELF nothing")
    (tmp_path / "bin" / "broken").chmod(0o755)
    fake(tmp_path / "bin", "g++", "echo 'g++ 12.2.0'; echo 'more'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    monkeypatch.setenv("CXX", "broken")
    assert compiler_version() == "g++ 12.2.0"


def test_versions_of_packages() -> None:
    assert package_version("numpy")
    assert package_version("no-such-package-here") is None


def test_the_revision_is_handed_in_or_git_s_or_unknown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("WORKLOG_REVISION", raising=False)
    assert revision(tmp_path) == ("unknown", None)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit, changed = revision(tmp_path)
    assert len(commit) == 40 and changed is False
    (tmp_path / "new").write_text("")
    assert revision(tmp_path) == (commit, True)
    monkeypatch.setenv("WORKLOG_REVISION", "abc")
    assert revision(tmp_path) == ("abc", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No such file: '/srv/alice/model/x.npz'", "No such file: '…/x.npz'"),
        ('File "/opt/a/b.py", line 3', 'File "…/b.py", line 3'),
        ("~/secret/x", "…/x"),
        ("see https://pytorch.org/docs/x and 3/4 of a/b", None),
        ("nothing here", None),
    ],
)
def test_folders_are_cut_from_what_a_process_says(text: str, expected: str | None) -> None:
    assert without_places(text) == (expected or text)


def test_the_home_folder_is_cut_even_alone_or_with_spaces(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/Jo Doe")
    assert without_places("denied: '/home/Jo Doe'") == "denied: '~'"
    assert without_places("denied: '/home/Jo Doe/a/b.txt'") == "denied: '…/b.txt'"
