"""How does evidence travel? As tar.gz parts, each of use by itself, made anew after every step.

Every part begins with `part.json`: the session, which part of how many, and each file with its size
and SHA-256; then `record.json`, then files. So a part that is missing or cut off costs what was in
it and nothing else. Raw profiler reports do not travel: their slices do.

Reading trusts nothing: only plain files under plain relative names, within stated limits, each
compared with its hash; anything else refuses the whole archive before a byte is written.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import UsageError
from common.recording.environment import without_places
from common.recording.session import SCHEMA, Session

PART_SCHEMA = "worklog.record-part/1"
LARGEST_FILE_BYTES = 64 << 20
LARGEST_TOTAL_BYTES = 512 << 20
MOST_FILES = 20_000
LOG_BYTES = 64 << 10
# A member costs a header and padding; the manifest's line about it as well.
MEMBER_BYTES = 1 << 10
FIRST_BYTES = 64 << 10
NAME = re.compile(r"[A-Za-z0-9._+-]+")
# What stays where it was recorded: `common.recording.slices` makes something smaller of them.
RAW = (".nsys-rep", ".sqlite", ".ncu-rep", ".ncu-repz", ".qdstrm", ".part")
HINT = "record or copy it again"


@dataclass(frozen=True)
class Packed:
    """The files of an archive, and what did not go into it: (path, bytes, why)."""

    parts: tuple[Path, ...]
    left_out: tuple[tuple[str, int, str], ...]


def pack(session: Session, target: Path, largest_bytes: int) -> Packed:
    """Write the session into `target` as one archive, or as parts of at most `largest_bytes`.

    Archives of the session that lie there are replaced, each at once; nothing else is touched.
    """
    document = session.document()
    device = document["device"]["slug"]
    files, left_out = _files(session)
    document["left_out"] = [list(row) for row in left_out]
    record = _json(document)
    room = largest_bytes - FIRST_BYTES - len(gzip.compress(record))
    groups: list[dict[str, bytes]] = [{}]
    used = 0
    for name, data in files.items():
        cost = len(zlib.compress(data, 6)) + MEMBER_BYTES
        if cost > room:
            left_out.append((name, len(data), f"larger than a file may be ({largest_bytes})"))
            continue
        if used + cost > room:
            groups.append({})
            used = 0
        groups[-1][name] = data
        used += cost
    document["left_out"] = [list(row) for row in left_out]
    record = _json(document)
    stem = f"record-{device}-{document['session']}"
    target.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, group in enumerate(groups, 1):
        ending = ".tar.gz" if len(groups) == 1 else f".part{number}of{len(groups)}.tar.gz"
        path = target / (stem + ending)
        written = {"record.json": record, **group}
        first = {
            "schema": PART_SCHEMA, "session": document["session"], "part": number,
            "parts": len(groups),
            "files": {
                name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in written.items()
            },
        }  # fmt: skip
        _write(path, {"part.json": _json(first), **written})
        parts.append(path)
    for old in target.glob(f"{stem}.*tar.gz"):
        if old not in parts:
            old.unlink()
    return Packed(tuple(parts), tuple(left_out))


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _write(path: Path, members: Mapping[str, bytes]) -> None:
    temporary = path.with_name(path.name + ".part")
    try:
        with (
            temporary.open("wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name, data in members.items():
                entry = tarfile.TarInfo(name)  # no owner, no time: nothing about who made it
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _files(session: Session) -> tuple[dict[str, bytes], list[tuple[str, int, str]]]:
    """What travels, in the order of the steps: small records of all steps first, then traces."""
    found: dict[str, bytes] = {}
    left_out: list[tuple[str, int, str]] = []
    paths = [
        Path(place) / name
        for place, _, names in os.walk(session.folder)  # follows no link to a folder
        for name in names
    ]
    for path in sorted(paths, key=_order):
        name = path.relative_to(session.folder).as_posix()
        if path.is_symlink() or not path.is_file() or name in ("session.json", "journal.jsonl"):
            continue
        size = path.stat().st_size
        if path.name.endswith(RAW) or path.with_name(path.stem + ".slice.csv.gz").exists():
            left_out.append((name, size, "raw report; its slice travels"))
        elif not _is_plain(name):
            left_out.append((name, size, "its name has characters that do not travel"))
        elif size > LARGEST_FILE_BYTES:
            left_out.append((name, size, f"larger than {LARGEST_FILE_BYTES} bytes"))
        elif path.suffix in (".log", ".txt"):
            words = path.read_bytes()[-LOG_BYTES:].decode("utf-8", "replace")
            found[name] = without_places(words).encode()
        else:
            found[name] = path.read_bytes()
    return found, left_out


def _order(path: Path) -> tuple[bool, str]:
    return ("traces" in path.parts, path.as_posix())


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        0 < len(name) <= 240
        and not name.startswith("/")
        and len(parts) <= 12
        and all(NAME.fullmatch(part) and part not in (".", "..") for part in parts)
        and "/".join(parts) == name
    )


@dataclass
class Unpacked:
    """What could be read. `lost`: files that a part announced and that are not whole."""

    record: dict[str, Any]
    files: dict[str, bytes]
    lost: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def unpack(paths: Sequence[Path]) -> Unpacked:
    """Read the parts of one session, in any order. Raises UsageError for what is none, or hostile.

    A part that is cut off or missing is a warning; the whole files of it are returned.
    """
    found: Unpacked | None = None
    session = ""
    seen: dict[int, int] = {}
    for path in paths:
        part, members, trouble = _read_part(path)
        if found is not None and part["session"] != session:
            raise UsageError(f"{path} is of another recording; import them one after the other")
        session = part["session"]
        whole = {name: data for name, data in members.items() if _matches(part, name, data)}
        lost = sorted(set(part["files"]) - set(whole))
        if found is None:
            found = Unpacked({}, {})
        if "record.json" in whole:
            found.record = _record(path, whole.pop("record.json"))
        found.files |= whole
        found.lost += lost
        seen[part["part"]] = part["parts"]
        if lost:
            why = trouble or "some of its files are not what was packed"
            found.warnings.append(f"{path.name}: {why}; lost: {len(lost)} of {len(part['files'])}")
    if found is None or not found.record:
        raise UsageError(f"{paths[0]} has lost its record.json; {HINT}")
    parts = max(seen.values())
    missing = [number for number in range(1, parts + 1) if number not in seen]
    if missing:
        listed = ", ".join(map(str, missing))
        found.warnings.append(f"part {listed} of {parts} was not given; give all parts together")
    return found


def _matches(part: Mapping[str, Any], name: str, data: bytes) -> bool:
    stated = part["files"].get(name)
    return (
        stated is not None
        and stated.get("bytes") == len(data)
        and stated.get("sha256") == hashlib.sha256(data).hexdigest()
    )


def _record(path: Path, data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
        schema = document["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: its record.json is none ({error}); {HINT}") from error
    if schema != SCHEMA:
        raise UsageError(
            f"{path} is of {schema}, this worklog reads {SCHEMA}; import it with the version of "
            "worklog that recorded it, or record anew with this one"
        )
    checked: dict[str, Any] = document
    return checked


def _read_part(path: Path) -> tuple[dict[str, Any], dict[str, bytes], str | None]:
    """(part.json, files by name, what is wrong with the rest of the archive)."""
    members: dict[str, bytes] = {}
    trouble: str | None = None
    total = 0
    try:
        for entry, data in _members(path):
            _check_member(path, entry, members)
            total += len(data)
            if total > LARGEST_TOTAL_BYTES or len(members) >= MOST_FILES:
                raise UsageError(f"{path} unpacks to more than any recording has; do not use it")
            members[entry.name] = data
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        if not members:
            raise UsageError(f"{path} is no archive of a recording ({error}); {HINT}") from error
        trouble = f"it is cut off or damaged ({error})"
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); {HINT}") from error
    try:
        part = json.loads(members.pop("part.json"))
        if part["schema"] != PART_SCHEMA:
            raise UsageError(
                f"{path} is of {part['schema']}, this worklog reads {PART_SCHEMA}; import it with "
                "the version of worklog that recorded it"
            )
        if not isinstance(part["files"], dict) or not all(map(_is_plain, part["files"])):
            raise ValueError("its list of files is none")
        numbers = int(part["part"]), int(part["parts"])
        if not 1 <= numbers[0] <= numbers[1] <= 1000 or not NAME.fullmatch(part["session"]):
            raise ValueError("its part or session is none")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is no archive of a recording ({error}); {HINT}") from error
    strange = sorted(set(members) - set(part["files"]))
    if strange:
        raise UsageError(f"{path} holds {strange[0]!r}, which it does not announce; do not use it")
    return part, members, trouble


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    # As a stream, member by member: what was read before a break stays.
    with tarfile.open(path, mode="r|gz") as archive:
        for entry in archive:
            if not entry.isreg():
                yield entry, b""
                continue
            if entry.size > LARGEST_FILE_BYTES:
                raise UsageError(f"{path} holds a file of {entry.size} bytes; do not use it")
            stream = archive.extractfile(entry)
            data = stream.read() if stream is not None else b""
            if len(data) != entry.size:
                raise EOFError("the end of the archive is missing")
            yield entry, data


def _check_member(path: Path, entry: tarfile.TarInfo, known: Mapping[str, bytes]) -> None:
    if not entry.isreg():
        kind = "a link" if entry.issym() or entry.islnk() else "no plain file"
        raise UsageError(f"{path} holds {entry.name!r}, {kind}; do not use it")
    if not _is_plain(entry.name):
        raise UsageError(f"{path} holds {entry.name!r}, a name that leads elsewhere; do not use it")
    if entry.name in known:
        raise UsageError(f"{path} holds {entry.name!r} twice; do not use it")
