"""How large is the last cache here, who else uses the CPUs, which CPU?

Read from Linux's /sys and /proc. Where these are missing the answer is None: unknown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_SYS_CPU = Path("/sys/devices/system/cpu")
_MULTIPLE = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level_cache_bytes(root: Path = _SYS_CPU, cpus: frozenset[int] | None = None) -> int | None:
    """The sum of the last-level caches of the CPUs that this process may use.

    The sum, because a buffer is shared out over threads, and each part may stay in its own cache: a
    server CPU has one such cache per group of cores. None if the machine does not say.
    """
    caches: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0) if cpus is None else cpus):
        last: tuple[int, str, int] | None = None
        for index in sorted((root / f"cpu{cpu}" / "cache").glob("index*")):
            level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
            bytes_ = _size_bytes(size)
            if level is None or bytes_ is None or kind == "Instruction":
                continue
            shared = f"level {level}, cpus {_read(index / 'shared_cpu_list') or cpu}"
            if last is None or int(level) > last[0]:
                last = (int(level), shared, bytes_)
        if last is not None:
            caches[last[1]] = last[2]
    return sum(caches.values()) or None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """The CPU's own name, such as "AMD EPYC 9654 96-Core Processor"."""
    match = re.search(r"^model name\s*:\s*(.+)$", _read(cpuinfo) or "", re.MULTILINE)
    return match[1].strip() if match else None


def cpu_seconds(stat: Path = Path("/proc/stat")) -> tuple[float, float] | None:
    """Seconds that all CPUs together were (busy, up) since boot; time taken by other guests of the
    host ("steal") counts as busy. None if the machine does not say."""
    match = re.match(r"cpu +((?:\d+ ){7}\d+)", _read(stat) or "")
    if match is None:
        return None
    # user nice system idle iowait irq softirq steal; what follows is counted in user already
    ticks = [int(field) for field in match[1].split()]
    per_s = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / per_s, sum(ticks) / per_s


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _size_bytes(text: str | None) -> int | None:
    match = re.fullmatch(r"(\d+)([KMG]?)", text or "")
    return int(match[1]) * _MULTIPLE[match[2]] if match else None
