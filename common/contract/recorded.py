"""What was recorded of a problem elsewhere and brought here? `recorded/<device>/record-*.json`.

One file per session, written by `worklog import`: the machine, the versions, this problem's steps
with what became of each, and which run folders beside it they left. A run that was killed is among
them: it holds what was measured until then, and its folder's name says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UsageError

SCHEMA = "worklog.record/1"
PREFIX = "record-"


@dataclass(frozen=True)
class Recording:
    """One session's steps of one problem. `runs`: step folder -> run folders that are here."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def session(self) -> str:
        return str(self.facts["session"])

    @property
    def device(self) -> str:
        return str(self.facts["device"]["slug"])

    @property
    def versions(self) -> dict[str, str | None]:
        """torch and triton as they were installed in the session."""
        return dict(self.facts["versions"])

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.facts["steps"])

    def runs(self) -> list[Path]:
        """Run folders of all steps, in the order in which they were recorded."""
        names = [name for step in self.steps for name in step.get("run_folders", [])]
        return [self.path.parent / name for name in names]


def recordings(folder: Path) -> list[Recording]:
    """The sessions below a problem's folder, the earliest first. UsageError names a broken file."""
    found = []
    for path in folder.glob(f"recorded/*/{PREFIX}*.json"):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts["schema"] != SCHEMA:
                raise UsageError(
                    f"{path} is of {facts['schema']}, this worklog reads {SCHEMA}; import it anew"
                )
            recording = Recording(path, facts)
            _ = recording.session, recording.device, recording.versions, recording.runs()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path} lacks or misuses {error}; import its recording anew"
            ) from error
        found.append(recording)
    return sorted(found, key=lambda one: (one.session, one.device))
