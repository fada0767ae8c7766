"""On what machine, with what software, was this measured? Facts only, and none that name a person.

Everything here goes into a manifest that may be published: no host name, no user name, no path.
A fact that cannot be read is None, never a guess.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from common.memory import memory_total_bytes

GPU_FIELDS = (
    "name,driver_version,memory.total,compute_cap,clocks.sm,clocks.mem,clocks.max.sm,"
    "power.limit,temperature.gpu,clocks_event_reasons.active"
)
# What is asked where the driver does not know one of the above: it then answers nothing at all,
# and a GPU must not become invisible by that.
LEAST_GPU_FIELDS = "name,driver_version,memory.total"
# An absolute path of two or more parts, also inside quotes; not the slashes of a URL or a fraction.
PLACE = re.compile(r"(?<![\w.:/~])~?(?:/[^\s/'\"`:,;()<>|]+)+/(?=[^\s/'\"`:,;()<>|]*)")


@dataclass(frozen=True)
class Machine:
    cpu: str | None
    logical_cpus: int | None
    usable_cpus: int
    l2_bytes: int | None
    l3_bytes: int | None
    memory_bytes: int | None
    virtual: bool | None
    kernel: str
    transparent_huge_pages: str | None
    gpus: tuple[dict[str, str], ...]


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _cpuinfo(field: str) -> str | None:
    match = re.search(rf"^{field}\s*:\s*(.+)$", _read("/proc/cpuinfo") or "", re.MULTILINE)
    return match.group(1).strip() if match else None


def cache_bytes(level: int) -> int | None:
    """Size of one cache of this level of the first CPU, from sysfs; None where it does not say."""
    for index in range(8):
        folder = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        if _read(f"{folder}/level") == str(level) and _read(f"{folder}/type") != "Instruction":
            match = re.fullmatch(r"(\d+)([KMG]?)", _read(f"{folder}/size") or "")
            if match:
                return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30}[match.group(2)]
    return None


def gpu_facts() -> tuple[dict[str, str], ...]:
    """One dictionary per NVIDIA GPU as `nvidia-smi` prints it; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return ()
    for fields in (GPU_FIELDS, LEAST_GPU_FIELDS):
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        rows = [line.split(", ") for line in done.stdout.splitlines() if line.strip()]
        return tuple(dict(zip(fields.split(","), row, strict=False)) for row in rows)
    return ()


def without_places(text: str) -> str:
    """`text` with folders cut from absolute paths: what a failed process says names its user."""
    home = str(Path.home())
    return PLACE.sub("…/", text.replace(home, "~") if len(home) > 1 else text)


def read_machine() -> Machine:
    huge_pages = re.search(r"\[(\w+)\]", _read("/sys/kernel/mm/transparent_hugepage/enabled") or "")
    flags = _cpuinfo("flags")
    # The rest of the release names its builder, not its behaviour.
    release = ".".join(platform.release().split(".")[:2])
    return Machine(
        cpu=_cpuinfo("model name"),
        logical_cpus=os.cpu_count(),
        usable_cpus=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        l2_bytes=cache_bytes(2),
        l3_bytes=cache_bytes(3),
        memory_bytes=memory_total_bytes(),
        virtual=None if flags is None else "hypervisor" in flags.split(),
        kernel=f"{platform.system()} {release} {platform.machine()}",
        transparent_huge_pages=huge_pages.group(1) if huge_pages else None,
        gpus=gpu_facts(),
    )


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def device_slug(machine: Machine, device: str) -> str:
    """Folder name of the device that was measured, e.g. `nvidia-h200` or `cpu-amd-epyc-2c`."""
    if device == "cuda" and machine.gpus:
        return slug(machine.gpus[0]["name"])
    name = re.sub(r"\(r\)|\(tm\)|processor|cpu|@.*", " ", (machine.cpu or "unknown").lower())
    return f"cpu-{slug(name) or 'unknown'}-{machine.usable_cpus}c"


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def compiler_version() -> str | None:
    """First line of the C++ compiler that Inductor will call on a CPU; None without one."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        path = shutil.which(name) if name else None
        if path:
            try:
                done = subprocess.run(
                    [path, "--version"], check=False, capture_output=True, text=True, timeout=20
                )
            except (OSError, subprocess.SubprocessError):
                continue  # a broken one; the next may work
            return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None
    return None


def revision(root: Path) -> tuple[str, bool | None]:
    """(commit, has uncommitted changes) of the tree; handed in by WORKLOG_REVISION in an image."""
    given = os.environ.get("WORKLOG_REVISION")
    if given:
        return given, None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head, bool(_git(root, "status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return "unknown", None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=True
    ).stdout.strip()


def machine_facts(machine: Machine) -> dict[str, Any]:
    return asdict(machine)
