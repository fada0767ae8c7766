"""Are exactly the wheels gathered that a machine with torch and no network lacks?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.contract.problem import load_problem, problem_names
from common.recording.offline import NEEDED, read_wheels

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "wheels.sh"


def wheels(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def names(done: subprocess.CompletedProcess[str]) -> set[str]:
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_list_is_what_recording_needs_and_what_variants_pin() -> None:
    found = names(wheels("--dry-run"))
    pinned = {
        package
        for name in problem_names()
        for variant in load_problem(name).variants.values()
        for package in variant.packages
    }
    assert {p for p in pinned if not p.startswith("triton==")} <= found
    assert {one.split("==")[0] for one in found} >= set(NEEDED) - {"torch"}
    assert not any(one.startswith(("torch==", "triton==")) for one in found)
    with_triton = names(wheels("--dry-run", "--with", "triton"))
    assert with_triton - found == {p for p in pinned if p.startswith("triton==")}


def test_what_the_machine_has_and_what_is_not_wanted_stays_out(tmp_path: Path) -> None:
    frozen = tmp_path / "freeze.txt"
    frozen.write_text("NumPy==2.5.2\nrich @ file:///x\nPygments==2.19.0\ntorchao==0.13.0\n")
    found = names(wheels("--dry-run", "--have", str(frozen), "--have", "safetensors"))
    assert not any(
        one.startswith(("numpy==", "rich==", "pygments==", "safetensors==")) for one in found
    )
    # A variant's version is its own: that the machine has one is no reason to leave others out.
    assert {"torchao==0.13.0", "torchao==0.14.1"} <= found
    found = names(wheels("--dry-run", "--without", "torchao", "float8_weight_only"))
    assert not any(one.startswith(("torchao==", "gemlite==")) for one in found)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--python", "two"], "is no version"),
        (["--machine", "riscv"], "neither"),
        (["--max-size", "60Q"], "is no size"),
        (["--out"], "needs a value"),
        (["--colour"], "no option"),
        ([], "--out DIR is missing"),
        (["--dry-run", "nothing_here"], "no problem 'nothing_here'"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], says: str) -> None:
    done = wheels(*arguments)
    assert done.returncode == 2 and says in done.stderr
    assert done.stderr.count("error:") == 1


def test_real_wheels_for_another_python_fit_the_limit_or_are_refused(tmp_path: Path) -> None:
    small = ["--have", "numpy", "--have", "rich", "--have", "safetensors", "--have", "pygments",
             "--have", "markdown-it-py", "--without", "torchao", "float8_weight_only"]  # fmt: skip
    done = wheels("--out", str(tmp_path / "a"), "--python", "3.12", "--max-size", "5M", *small)
    assert done.returncode == 0, done.stderr
    found = {one.name: one for one in read_wheels(tmp_path / "a")}
    assert set(found) == {"msgspec", "nvtx", "mdurl"}
    assert "cp312" in found["msgspec"].path.name and "x86_64" in found["msgspec"].path.name
    done = wheels("--out", str(tmp_path / "b"), "--python", "3.12", "--max-size", "20K", *small)
    assert done.returncode == 1 and "20480 are allowed" in done.stderr
    assert list((tmp_path / "b").iterdir()) == []


def test_what_exists_for_no_such_machine_is_named(tmp_path: Path) -> None:
    small = ["--have", "numpy", "--have", "rich", "--have", "safetensors", "--have", "pygments",
             "--have", "markdown-it-py", "--have", "mdurl", "--have", "nvtx"]  # fmt: skip
    done = wheels("--out", str(tmp_path), "--python", "3.1", *small, "--without", "torchao",
                  "float8_weight_only")  # fmt: skip
    assert done.returncode == 3 and "msgspec==" in done.stderr and "--without" in done.stderr
    assert list(tmp_path.iterdir()) == [] and sys.version_info >= (3, 11)
