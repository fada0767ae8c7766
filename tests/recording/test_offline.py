"""Does a machine with torch but no network get what it lacks, and keep what it has?"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from common.errors import PreconditionError, UsageError
from common.recording.environment import package_version
from common.recording.offline import (
    NEEDED,
    divide,
    make_environment,
    missing_packages,
    python_of,
    read_wheels,
    require_packages,
)


def wheel(folder: Path, name: str, version: str, tags: str = "py3-none-any") -> Path:
    """A real wheel of one module that holds its version."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: {tags}\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = folder / f"{module}-{version}-{tags}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(inside, text)
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(folder, "carried-thing", "1.5")
    wheel(folder, "fakelib", "0.13.0")
    wheel(folder, "fakelib", "0.14.1")
    wheel(folder, "numpy", "0.0.1")  # the machine has its own
    wheel(folder, "torch", "0.0.1")
    wheel(folder, "elsewhere", "2.0", "cp37-cp37m-win32")
    return folder


def test_wheels_are_divided_by_who_needs_them(wheels: Path) -> None:
    pinned = ["fakelib==0.13.0", "fakelib==0.14.1"]
    here = {"numpy": "2.4.6", "torch": "2.11.0"}
    variants, everybody, left = divide(read_wheels(wheels), pinned, here)
    assert sorted(variants) == pinned
    assert [one.name for one in everybody] == ["carried-thing", "elsewhere"]
    assert any("numpy" in text and "2.4.6 is there" in text for text in left)
    assert any("torch" in text for text in left)


def test_the_environment_sees_the_machines_torch_and_adds_the_rest(
    wheels: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "offline"
    left = make_environment(folder, wheels, ["fakelib==0.13.0", "fakelib==0.14.1"])
    assert any("elsewhere" in text and "another Python or machine" in text for text in left)
    program = (
        "import carried_thing, sys, importlib.util, importlib.metadata as m\n"
        "print(carried_thing.VERSION, m.version('torch'), m.version('numpy'))\n"
        "print(importlib.util.find_spec('torch').origin)\n"
    )
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python_of(folder)), "-P", "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=clean)
    assert done.returncode == 0, done.stderr
    # Also where this very Python is a venv itself: its packages are seen, not its base's.
    versions = [package_version("torch"), package_version("numpy")]
    assert done.stdout.split()[:3] == ["1.5", *map(str, versions)]
    assert sorted(p.name for p in (folder / "variants").iterdir()) == [
        "fakelib-0.13.0", "fakelib-0.14.1",
    ]  # fmt: skip
    text = (folder / "variants" / "fakelib-0.13.0" / "fakelib.py").read_text()
    assert "0.13.0" in text
    stamp = (folder / "worklog-wheels").stat().st_mtime_ns
    make_environment(folder, wheels, ["fakelib==0.13.0", "fakelib==0.14.1"])
    assert (folder / "worklog-wheels").stat().st_mtime_ns == stamp  # made once


def test_a_folder_without_wheels_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no folder; make one with docker/wheels.sh"):
        read_wheels(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no wheels"):
        read_wheels(tmp_path)
    (tmp_path / "strange.whl").write_bytes(b"")
    with pytest.raises(UsageError, match="no name of a wheel"):
        read_wheels(tmp_path)


def test_what_is_missing_beside_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_packages() == []
    monkeypatch.setattr(
        "common.recording.offline.package_version",
        lambda name: None if name in ("nvtx", "msgspec") else "1",
    )
    with pytest.raises(PreconditionError, match=r"msgspec, nvtx not installed .* --wheels DIR"):
        require_packages()
    assert set(NEEDED) >= {"torch", "nvtx"}


def test_the_command_needs_nothing_but_the_standard_library_to_start(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "common.cli", "record"],  # -S: no installed packages
        check=False, capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 3 and "torch is not installed" in done.stderr
    assert "Traceback" not in done.stderr
