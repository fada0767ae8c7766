"""How does evidence come home? Into `problems/*/recorded/<device>/`, whole runs or none.

Everything is unpacked and read before anything is written: a hostile or strange archive changes
nothing. Runs that are there already are left as they are. What was measured until a kill, and the
whole files of a damaged archive, are imported and said to be that.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.contract.problem import problem_names, root
from common.contract.recorded import PREFIX
from common.errors import UsageError, WorklogError
from common.recording.archive import Unpacked, unpack
from common.recording.environment import slug
from common.recording.run_folder import UNFINISHED, open_run, read_json, write_json
from common.recording.session import RUN_NAME, open_session
from common.report.summary import build_summary

LONGEST_DEVICE = 80
# Of a run: its logs name places of the machine and say nothing that a figure needs.
NOT_EVIDENCE = ("logs",)


@dataclass
class Imported:
    """What is here now. `warnings`: what could not be brought, and why."""

    runs: list[Path] = field(default_factory=list)
    records: list[Path] = field(default_factory=list)
    already: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not self.warnings


def import_evidence(sources: Sequence[Path], into: Path | None = None) -> Imported:
    """Import one recording: its archive's parts, or its session folder. `into`: another checkout.

    Raises UsageError for what is no recording, is hostile, or is a rehearsal for the real tree.
    """
    target = into or root()
    if not (target / "problems").is_dir():
        raise UsageError(f"{target} has no problems folder; give a checkout")
    found = _read(sources)
    record = found.record
    try:
        device, session = str(record["device"]["slug"]), str(record["session"])
        rehearsal, steps = bool(record["rehearsal"]), list(record["steps"])
        named = [(str(step["problem"]), str(step["step"])) for step in steps]
    except (KeyError, TypeError) as error:
        raise UsageError(f"{sources[0]}: its record lacks {error}; record it anew") from error
    if slug(device) != device or not 0 < len(device) <= LONGEST_DEVICE or not _is_name(session):
        raise UsageError(f"{sources[0]} names a device or session that is none; do not use it")
    if rehearsal and into is None:
        raise UsageError(
            f"{sources[0]} is a rehearsal: it proves the way, it is no evidence; to look at it, "
            "import it into a copy of the checkout with --into DIR"
        )
    imported = Imported(warnings=list(found.warnings))
    known = _problems(target)
    for name in sorted({problem for problem, _ in named} - set(known)):
        imported.warnings.append(f"there is no problem {name} here; its steps were left out")
    for name in sorted({problem for problem, _ in named} & set(known)):
        place = target / "problems" / name / "recorded" / device
        place.mkdir(parents=True, exist_ok=True)
        own = [step for step in steps if step["problem"] == name]
        _import_problem(found, place, name, own, imported)
    return imported


def _problems(target: Path) -> list[str]:
    if target == root():
        return problem_names()
    return sorted(path.parent.name for path in (target / "problems").glob("*/problem.toml"))


def _is_name(text: str) -> bool:
    return re.fullmatch(r"\d{8}T\d{6}Z-[A-Za-z0-9._+-]{1,60}", text) is not None


def _read(sources: Sequence[Path]) -> Unpacked:
    if len(sources) == 1 and sources[0].is_dir():
        session = open_session(sources[0])
        files = {
            path.relative_to(session.folder).as_posix(): path.read_bytes()
            for path in _session_files(session.folder)
        }
        return Unpacked(session.document(), files)
    for path in sources:
        if not path.is_file():
            raise UsageError(f"{path} is no archive; give the .tar.gz files of one recording")
    return unpack(sources)


def _session_files(folder: Path) -> list[Path]:
    from common.recording.archive import RAW

    return [
        path
        for place, _, names in os.walk(folder / "steps")
        for name in names
        if not (path := Path(place) / name).is_symlink() and not name.endswith(RAW)
    ]


def _import_problem(
    found: Unpacked, place: Path, name: str, steps: list[dict[str, Any]], imported: Imported
) -> None:
    """The runs of one problem's steps, then the file that lists them."""
    record = found.record
    own = []
    taken: set[str] = set()
    with tempfile.TemporaryDirectory(dir=place, prefix=".import-") as staging:
        for step in steps:
            folders = []
            for run in step.get("runs", ()):
                final = place / _free_name(str(run).split("/")[-1], taken)
                brought = _import_run(found, str(run), name, Path(staging), final, imported)
                if brought is not None:
                    folders.append(brought.name)
            own.append({**step, "run_folders": folders})
    path = place / f"{PREFIX}{record['session']}.json"
    document = {**{k: v for k, v in record.items() if k != "steps"}, "steps": own}
    if found.lost:
        document["lost"] = found.lost
    if path.exists():
        document = _merged(read_json(path), document)
    write_json(path, document)
    imported.records.append(path)


def _free_name(name: str, taken: set[str]) -> str:
    """Two steps of one second give their runs one name; here they lie side by side."""
    stem = name.removesuffix(UNFINISHED)
    ending = name.removeprefix(stem)
    found, number = name, 0
    while found in taken:
        number += 1
        found = f"{stem}.{number}{ending}"
    taken.add(found)
    return found


def _merged(before: Mapping[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A part that comes later brings the runs that were missing; nothing known is dropped."""
    known = {step.get("folder"): step for step in before.get("steps", [])}
    for step in now["steps"]:
        earlier = known.get(step.get("folder"), {}).get("run_folders", [])
        step["run_folders"] = sorted({*earlier, *step["run_folders"]})
    return now


def _import_run(
    found: Unpacked, run: str, problem: str, staging: Path, final: Path, imported: Imported
) -> Path | None:
    """One run folder into its place. None where it has lost its manifest."""
    parts = run.split("/")
    name = parts[-1]
    if len(parts) < 3 or parts[-3] != problem or not RUN_NAME.fullmatch(
        name.removesuffix(UNFINISHED)
    ):  # fmt: skip
        imported.warnings.append(f"{run} is no run of {problem}; left out")
        return None
    files = {
        path.removeprefix(run + "/"): data
        for path, data in found.files.items()
        if path.startswith(run + "/") and path.removeprefix(run + "/").split("/")[0]
        not in NOT_EVIDENCE
    }  # fmt: skip
    folder = staging / final.name
    for relative, data in files.items():
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    try:
        read = open_run(folder)
        if read.manifest["problem"] != problem:
            raise UsageError(f"its manifest is of {read.manifest['problem']}")
        write_json(folder / "summary.json", build_summary(read))
    except (WorklogError, KeyError) as error:
        imported.warnings.append(f"run {name} of {problem} cannot be read ({error}); left out")
        shutil.rmtree(folder, ignore_errors=True)
        return None
    if final.exists():
        _meet(final, folder, imported)
        return final
    folder.rename(final)
    imported.runs.append(final)
    return final


def _meet(final: Path, folder: Path, imported: Imported) -> None:
    """A run that is here already: the same, a damaged copy that is now made whole, or another."""
    here, brought = _contents(final), _contents(folder)
    if here == brought:
        imported.already.append(final)
    elif here.items() <= brought.items():
        old = folder.with_name(folder.name + ".old")
        final.rename(old)
        folder.rename(final)
        imported.runs.append(final)
    elif brought.items() <= here.items():
        imported.already.append(final)
    else:
        imported.warnings.append(f"{final} is there with other contents; it was left as it is")


def _contents(folder: Path) -> dict[str, bytes]:
    """Its files; the summary is derived from the others."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "summary.json"
    }
