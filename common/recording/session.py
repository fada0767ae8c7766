"""What has a recording done so far? A folder with facts and a journal that a kill cannot spoil.

    <out>/<UTC>-<revision7>/
        session.json     schema, what was asked, on what machine, with what; written once
        journal.jsonl    one line per event, on the disk before the next thing is done
        floors.json      copy bandwidth and matrix rates of this very device, if they were measured
        steps/<NN>-<problem>-<step>[-<preset>]/
            log.txt  clocks.csv  runs/<problem>/<device>/<run>/…  slices beside what they are of

A session is never renamed or rewritten: what a reader finds is what happened, also after a kill.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.recording.run_folder import UNFINISHED, ensure_writable, read_json, write_json

SCHEMA = "worklog.record/1"
# recorded: what the step is for is on the disk. started: a command that records nothing was run
# (a rehearsal of what needs a GPU). The others say why there is less.
STATES = ("recorded", "started", "failed", "timed out", "out of memory", "interrupted", "killed",
          "not possible", "not started")  # fmt: skip
RUN_NAME = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class Session:
    folder: Path

    @staticmethod
    def create(out: Path, facts: dict[str, Any]) -> Session:
        ensure_writable(out)
        now = datetime.now(UTC)
        stem = f"{now:%Y%m%dT%H%M%SZ}-{facts['revision'][:7]}"
        for attempt in range(100):
            folder = out / (stem if attempt == 0 else f"{stem}.{attempt}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                continue
        else:
            raise UsageError(f"{out} holds a hundred recordings of this second; choose another")
        (folder / "steps").mkdir()
        started = now.isoformat(timespec="seconds")
        name = folder.name
        write_json(
            folder / "session.json",
            {"schema": SCHEMA, "session": name, "started": started, **facts},
        )
        return Session(folder)

    @property
    def facts(self) -> dict[str, Any]:
        found = read_json(self.folder / "session.json")
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            stated = found.get("schema") if isinstance(found, dict) else None
            raise UsageError(
                f"{self.folder} is of {stated or 'no version'}, this worklog reads {SCHEMA}; "
                "use the version of worklog that recorded it"
            )
        return found

    def note(self, event: str, **facts: Any) -> None:
        """One line of the journal, on the disk when this returns."""
        line = {"event": event, "at": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        data = (json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n").encode()
        place = os.open(self.folder / "journal.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            while data:
                data = data[os.write(place, data) :]
            os.fsync(place)
        finally:
            os.close(place)

    def events(self) -> list[dict[str, Any]]:
        """Every whole line; one that a kill or a full disk cut off is passed over."""
        path = self.folder / "journal.jsonl"
        found = []
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                found.append(event)
        return found

    def step_folder(self, number: int, problem: str, step: str, preset: str | None) -> Path:
        words = [f"{number:02}", problem, step, *([preset] if preset else [])]
        folder = self.folder / "steps" / "-".join(words)
        (folder / "runs").mkdir(parents=True)
        return folder

    def document(self) -> dict[str, Any]:
        """record.json: the facts, and what became of every step. Derived from what is on disk."""
        steps: dict[str, dict[str, Any]] = {}
        notes: list[str] = []
        for event in self.events():
            kept = {k: v for k, v in event.items() if k not in ("event", "at")}
            if event["event"] == "start":
                # Until its end is written, all that is known is that it began.
                state = {"state": "killed", "reason": "the recording ended while this step ran"}
                steps[event["folder"]] = {**kept, "started": event["at"], **state}
            elif event["event"] == "end":
                known = steps.setdefault(event["folder"], {})
                known.pop("reason", None)
                known.update(kept)
            elif event["event"] == "skip":
                steps[f"{event['problem']}/{event['step']}/{len(steps)}"] = kept
            elif event["event"] == "note":
                notes.append(str(event["says"]))
        listed = list(steps.values())
        for step in listed:
            if "folder" in step:
                step["runs"] = [
                    str(path.relative_to(self.folder)) for path in self.runs(step["folder"])
                ]
        floors = self.folder / "floors.json"
        return {
            **self.facts,
            "steps": listed,
            "notes": notes,
            "floors": read_json(floors) if floors.exists() else None,
        }

    def runs(self, step_folder: str) -> list[Path]:
        """Run folders that a step left, finished or not."""
        found = (self.folder / step_folder / "runs").glob("*/*/*/manifest.json")
        return sorted(
            path.parent for path in found
            if RUN_NAME.fullmatch(path.parent.name.removesuffix(UNFINISHED))
        )  # fmt: skip


def open_session(folder: Path) -> Session:
    """A session on disk, also one that was killed. Raises UsageError for anything else."""
    if not (folder / "session.json").is_file():
        raise UsageError(f"{folder} is no recording; give its archive or the folder of a session")
    session = Session(folder)
    _ = session.facts
    return session
