"""Where does a run live, and can it be trusted? One folder per run, never overwritten.

    <out>/<problem>/<device>/<UTC>-<revision7>-<preset>/
        manifest.json   what was asked, on what, with what; status
        samples.jsonl   one line per repetition in measured order, flushed as measured
        checks.json     the correctness record of every variant
        summary.json    derived from the others alone (`common.report.summary`)
        traces/         what the profilers wrote

While it is written its name ends in `.unfinished`; only a run that came to its end is renamed. So
a run that was killed keeps every sample it had flushed and can never be taken for a finished one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import RawIOBase
from pathlib import Path
from typing import Any

from common.errors import PreconditionError, UsageError
from common.recording.abandoned import HIDDEN, locked_if_possible, remove_abandoned

SCHEMA = "worklog.run/1"
UNFINISHED = ".unfinished"
SMALLEST_FREE_BYTES = 64 << 20


def write_json(path: Path, document: object) -> None:
    """Write a document atomically, readable and ending in a line break."""
    write_text(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write atomically: a reader (or a crash) sees the old file or the new one, never half."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def check_regular(path: Path) -> None:
    """Raises UsageError for what would be waited for or read for ever, and for a link that leads
    nowhere: a folder may come from somebody else. What is not there at all is fine."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            raise UsageError(
                f"{path} is a link that leads nowhere; take the run again from where it was made"
            ) from error
        return
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"{path} is a pipe, a device or a folder; take the run again from where it was made"
        )


def read_json(path: Path) -> Any:
    check_regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; give the folder of a run") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); take the run again from where it was made"
        ) from error


def ensure_writable(folder: Path) -> None:
    """Fail before the work, not after it: `folder` can be made, written to, and has room."""
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"x")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PreconditionError(full_disk_message(folder)) from error
        raise UsageError(
            f"cannot write to {folder} ({error.strerror}); choose another folder with --out"
        ) from error
    import shutil  # slow to load, and who reads a run needs none of it

    free = shutil.disk_usage(folder).free
    if free < SMALLEST_FREE_BYTES:
        raise PreconditionError(full_disk_message(folder))


def full_disk_message(folder: Path | str) -> str:
    return (
        f"the disk of {folder} is full (a run wants {SMALLEST_FREE_BYTES >> 20} MiB); "
        "free some space or choose another folder with --out"
    )


def _renamed(made: Path, parent: Path, stem: str) -> Path:
    """The folder under the first free name of this second."""
    for attempt in range(100):
        name = stem if attempt == 0 else f"{stem}.{attempt}"
        folder = parent / (name + UNFINISHED)
        if (parent / name).exists():
            continue
        try:
            made.rename(folder)  # never onto another run: that has a manifest and is not empty
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            continue
        return folder
    raise UsageError(f"{parent} holds a hundred runs of this second; choose another --out")


@dataclass
class RunWriter:
    """A run being made. Use `create`, then `add_sample` and friends, then `finish`."""

    folder: Path
    manifest: dict[str, Any]
    _samples: RawIOBase | None = None

    @staticmethod
    def create(parent: Path, revision: str, preset: str, manifest: dict[str, Any]) -> RunWriter:
        """Make `<UTC>-<revision7>-<preset>.unfinished` under `parent`, a new one in any case."""
        import secrets  # as above
        import shutil

        ensure_writable(parent)
        remove_abandoned(parent)
        now = datetime.now(UTC)
        # A revision that is handed in may be a branch's name with slashes in it.
        short = re.sub(r"[^A-Za-z0-9._+-]", "-", revision[:7])
        stem = f"{now:%Y%m%dT%H%M%SZ}-{short}-{preset}"
        document = {"schema": SCHEMA, "started": now.isoformat(timespec="seconds"), **manifest}
        document["status"] = "unfinished"
        # Made under a hidden name and renamed once its manifest is in it: a run that is killed
        # here leaves no folder that is none.
        made = parent / f"{HIDDEN}{os.getpid()}-{secrets.token_hex(4)}"
        made.mkdir()
        try:
            with locked_if_possible(made):
                write_json(made / "manifest.json", document)
                return RunWriter(_renamed(made, parent, stem), document)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    def add_sample(self, line: dict[str, Any]) -> None:
        """Append one sample and hand it to the kernel at once: SIGKILL can no longer take it."""
        if self._samples is None:
            # Unbuffered: one write per line, and nothing left to flush when the disk is full.
            self._samples = (self.folder / "samples.jsonl").open("ab", buffering=0)
        left = memoryview((json.dumps(line, separators=(",", ":")) + "\n").encode())
        while left:
            left = left[self._samples.write(left) or 0 :]

    def update(self, **facts: Any) -> None:
        self.manifest = {**self.manifest, **facts}
        write_json(self.folder / "manifest.json", self.manifest)

    def finish(self) -> Path:
        """Close, mark finished, rename; returns the final folder."""
        self.close()
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        self.update(status="finished", finished=ended)
        stem = self.folder.name.removesuffix(UNFINISHED)
        for attempt in range(100):
            final = self.folder.with_name(stem if attempt == 0 else f"{stem}.{attempt}")
            try:
                self.folder.rename(final)
            except OSError as error:
                # Another run of this second was finished since this one began.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                continue
            self.folder = final
            return final
        raise UsageError(f"{self.folder} cannot be renamed; choose another --out")

    def close(self) -> None:
        if self._samples is not None:
            os.fsync(self._samples.fileno())
            self._samples.close()
            self._samples = None


@dataclass(frozen=True)
class Run:
    """A run on disk. `finished` is False for one that was killed; its samples are still there."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def finished(self) -> bool:
        return self.manifest.get("status") == "finished" and not self.folder.name.endswith(
            UNFINISHED
        )

    def samples(self) -> list[dict[str, Any]]:
        return list(read_samples(self.folder / "samples.jsonl"))


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Every complete line; a last line cut off by a kill is no sample."""
    check_regular(path)
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                sample = json.loads(line)
                if not isinstance(sample, dict):
                    raise ValueError("no object")
            except (ValueError, RecursionError) as error:
                raise UsageError(
                    f"{path}:{number} is no sample ({error}); the file was changed after the run, "
                    "take it again from where it was made"
                ) from error
            yield sample


def open_run(folder: Path) -> Run:
    """Read a run folder. Raises UsageError for anything that is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the folder of a run")
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jsonl"):  # whoever reads one of them may rely on it
            check_regular(path)
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise UsageError(f"{folder}/manifest.json is no {SCHEMA}; give the folder of a run")
    return Run(folder, manifest)
