"""In what state was the GPU while something was measured? Clocks, throttling, power: read only.

`nvidia-smi` is asked once a second, in text, into a file beside each step; the file is summarised
after the step. Nothing here sets a clock, a power limit or a mode. Field names changed with the
driver (clocks_throttle_reasons became clocks_event_reasons), and a driver that does not know one
field answers nothing at all: so the fields are tried first, from the most to the least.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from common.recording.process_tree import interrupts_held

_COMMON = ("timestamp", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw",
           "utilization.gpu", "memory.used")  # fmt: skip
FIELD_SETS: tuple[tuple[str, ...], ...] = (
    (*_COMMON, "clocks_event_reasons.active"),
    (*_COMMON, "clocks_throttle_reasons.active"),
    ("timestamp", "clocks.sm", "clocks.mem"),
)
# NVML's nvmlClocksEventReasons; idle and the application's own setting are no throttling.
REASONS = {
    0x1: "idle", 0x2: "application clocks", 0x4: "power cap", 0x8: "hardware slowdown",
    0x10: "sync boost", 0x20: "thermal (software)", 0x40: "thermal (hardware)",
    0x80: "power brake", 0x100: "display clocks",
}  # fmt: skip
NO_THROTTLING = 0x1 | 0x2 | 0x100
ASK_SECONDS = 20.0
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
NAMES = {
    "clocks.sm": "sm_clock_mhz", "clocks.mem": "memory_clock_mhz",
    "temperature.gpu": "temperature_c", "power.draw": "power_w",
    "utilization.gpu": "utilization_percent", "memory.used": "memory_used_mib",
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One line of nvidia-smi. None: this GPU or driver does not say ([N/A], [Not Supported])."""

    values: dict[str, float | None]
    reasons: int | None


def parse_sample(line: str, fields: Sequence[str]) -> Sample | None:
    """One line of `--format=csv,noheader`, with or without units; None for any other text."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(fields) or not re.match(r"\d{4}/\d\d/\d\d \d\d:", cells[0]):
        return None
    table = dict(zip(fields, cells, strict=True))
    values: dict[str, float | None] = {}
    for field, name in NAMES.items():
        if field in table:
            found = NUMBER.match(table[field])
            values[name] = float(found.group(0)) if found else None
    mask = next((table[field] for field in fields if field.endswith("reasons.active")), "")
    return Sample(values, int(mask, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", mask) else None)


def parse_samples(text: str, fields: Sequence[str]) -> list[Sample]:
    return [
        sample for line in text.splitlines() if (sample := parse_sample(line, fields)) is not None
    ]


def reason_names(mask: int) -> list[str]:
    """What held the clocks down; bits that nobody has named yet are shown as numbers."""
    names = [name for bit, name in REASONS.items() if mask & bit]
    rest = mask & ~sum(REASONS)
    return [*names, *([hex(rest)] if rest else [])]


def summarise_samples(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """[minimum, median, maximum] of each value, and in how many samples which reason held."""
    if not samples:
        return None
    summary: dict[str, Any] = {"samples": len(samples)}
    for name in NAMES.values():
        known = [v for sample in samples if (v := sample.values.get(name)) is not None]
        if known:
            summary[name] = [min(known), statistics.median(known), max(known)]
    masks = [sample.reasons for sample in samples if sample.reasons is not None]
    counts: dict[str, int] = {}
    for mask in masks:
        for name in reason_names(mask):
            counts[name] = counts.get(name, 0) + 1
    summary["reasons"] = counts
    # None where no sample says: unknown is not the same as none.
    summary["throttled_samples"] = (
        sum(bool(mask & ~NO_THROTTLING) for mask in masks) if masks else None
    )
    return summary


def smi_command(fields: Sequence[str], every_ms: int | None = None) -> list[str]:
    # The GPU that a program here sees as its first.
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    command.append(f"--id={gpu}")
    return command if every_ms is None else [*command, f"--loop-ms={every_ms}"]


def known_fields() -> tuple[str, ...]:
    """The largest set of fields that this driver answers; empty without nvidia-smi or a GPU."""
    if shutil.which("nvidia-smi") is None:
        return ()
    for fields in FIELD_SETS:
        try:
            done = subprocess.run(
                smi_command(fields), check=False, capture_output=True, text=True,
                errors="replace", timeout=ASK_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return ()
        # A field that is none: exit code 2, and the reason on stdout, where rows would stand.
        if done.returncode == 0 and parse_samples(done.stdout, fields):
            return fields
    return ()


class Sampler:
    """`with Sampler(path, fields) as sampler`: one line a second; then `sampler.summary`."""

    def __init__(self, path: Path, fields: Sequence[str], every_ms: int = 1000) -> None:
        self.path, self.fields, self.every_ms = path, tuple(fields), every_ms
        self.summary: dict[str, Any] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sampler:
        if self.fields:
            try:
                with self.path.open("wb") as stream, interrupts_held():
                    self._process = subprocess.Popen(
                        smi_command(self.fields, self.every_ms), stdin=subprocess.DEVNULL,
                        stdout=stream, stderr=subprocess.DEVNULL, start_new_session=True,
                    )  # fmt: skip
            except OSError:
                self._process = None  # clocks are context: a step goes on without them
            except BaseException:  # interrupted: no __exit__ follows
                self._end()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        self._end()
        text = self.path.read_text(encoding="utf-8", errors="replace")
        self.summary = summarise_samples(parse_samples(text, self.fields))

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
