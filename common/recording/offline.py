"""How does a machine with torch but no network get the rest? A venv on top, from wheels.

The environment sees everything of the Python that runs this, torch first of all, and adds what
that one lacks; what is there is never replaced. Each variant's library version goes into a folder
of its own, as set-up does with a network. Standard library and that Python's own pip only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import PreconditionError, UsageError
from common.recording.environment import package_version

# Without these no problem's process starts; numpy and torch are for the machine to have.
NEEDED = ("torch", "numpy", "msgspec", "nvtx", "safetensors", "rich")
WHEEL = re.compile(
    r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[A-Za-z0-9._!+]+)(-\d\w*)?-[^-]+-[^-]+-.+"
)
# Never on top of the machine's own: they belong to its torch.
WITH_TORCH = re.compile(r"torch|triton|pytorch-triton|nvidia-.+")
PARENT = "worklog-parent.pth"
STAMP = "worklog-wheels"


@dataclass(frozen=True)
class Wheel:
    path: Path
    name: str  # normalised
    version: str


def missing_packages() -> list[str]:
    return [name for name in NEEDED if package_version(name) is None]


def require_packages() -> None:
    """Raises PreconditionError that says what to carry to a machine without a network."""
    missing = missing_packages()
    if "torch" in missing:
        raise PreconditionError("torch is not installed here; run ./run.sh setup")
    if missing:
        raise PreconditionError(
            f"{', '.join(missing)} not installed beside this torch; gather wheels with "
            "docker/wheels.sh where there is a network and add --wheels DIR, or run ./run.sh setup"
        )


def read_wheels(folder: Path) -> list[Wheel]:
    """The wheels of a folder. Raises UsageError where there are none."""
    if not folder.is_dir():
        raise UsageError(f"--wheels {folder} is no folder; make one with docker/wheels.sh")
    found = []
    for path in sorted(folder.glob("*.whl")):
        match = WHEEL.fullmatch(path.stem)
        if match is None:
            raise UsageError(f"{path.name} is no name of a wheel; gather it again")
        found.append(Wheel(path, normal(match["name"]), match["version"]))
    if not found:
        raise UsageError(f"--wheels {folder} holds no wheels; fill it with docker/wheels.sh")
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def divide(
    wheels: Sequence[Wheel], pinned: Iterable[str], here: Mapping[str, str | None]
) -> tuple[dict[str, Wheel], list[Wheel], list[str]]:
    """(pinned variant package -> wheel, wheels for everybody, what is left alone and why).

    `here`: what the machine's Python has of each wheel's package.
    """
    variants, everybody, left = {}, [], []
    by_pin = {f"{normal(p.partition('==')[0])}=={p.partition('==')[2]}": p for p in pinned}
    for wheel in wheels:
        pin = by_pin.get(f"{wheel.name}=={wheel.version}")
        if pin is not None:
            variants[pin] = wheel
        elif WITH_TORCH.fullmatch(wheel.name):
            left.append(f"{wheel.path.name}: the machine's own torch brings it")
        elif here.get(wheel.name) is not None:
            left.append(f"{wheel.path.name}: {here[wheel.name]} is there")
        else:
            everybody.append(wheel)
    return variants, everybody, left


def make_environment(folder: Path, wheels_folder: Path, pinned: Sequence[str]) -> list[str]:
    """Make (or keep) the environment in `folder`; returns what was left alone, and why.

    Raises PreconditionError for a Python without torch, venv or pip, and for a full disk.
    """
    wheels = read_wheels(wheels_folder)
    if package_version("torch") is None:
        raise PreconditionError(
            f"{sys.executable} has no torch; start worklog with the Python that has it"
        )
    here = {wheel.name: package_version(wheel.name) for wheel in wheels}
    variants, everybody, left = divide(wheels, pinned, here)
    wanted = fingerprint(wheels)
    stamp = folder / STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return left
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], "make an environment")
    site = Path(
        sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    )
    # A .pth line that is code: the folders may hold .pth files of their own.
    lines = [f"import site; site.addsitedir({place!r})" for place in parent_places()]
    (site / PARENT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for wheel in everybody:
        left += _install(wheel, site)
    for pin, wheel in variants.items():
        target = folder / "variants" / pin.replace("==", "-")
        part = target.with_name(target.name + ".part")
        trouble = _install(wheel, part)
        if not trouble:
            part.rename(target)
        left += trouble
    stamp.write_text(wanted, encoding="utf-8")
    return left


def fingerprint(wheels: Sequence[Wheel]) -> str:
    parts = [sys.executable, sys.version]
    parts += [f"{wheel.path.name} {wheel.path.stat().st_size}" for wheel in wheels]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def parent_places() -> list[str]:
    """Folders in which the Python that runs this finds its packages, itself perhaps a venv."""
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    kept = [p for p in dict.fromkeys(places) if p.endswith(("site-packages", "dist-packages"))]
    return [place for place in kept if os.path.isdir(place)]


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def _install(wheel: Wheel, target: Path) -> list[str]:
    """Install one wheel; a wheel for another machine is left out and said so."""
    command = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install",
        "--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target",
        str(target), "--upgrade", str(wheel.path),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return []
    if "No space left" in said:
        raise PreconditionError(f"the disk is full while installing {wheel.path.name}; free some")
    if "No module named pip" in said:
        raise PreconditionError(
            f"{sys.executable} has no pip to install wheels with; add it: python3 -m ensurepip"
        )
    reason = (
        "it is for another Python or machine" if "not a supported wheel" in said else last(said)
    )
    return [f"{wheel.path.name} was not installed: {reason}"]


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise PreconditionError(
            f"this Python cannot {what} ({last(done.stdout + done.stderr)}); install its venv "
            "package (on Debian or Ubuntu: apt-get install python3-venv)"
        )


def last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"
