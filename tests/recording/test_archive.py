"""Does all evidence travel, within the limit, and does nothing hostile or broken get in?"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import HOSTILE_ARCHIVES, outside, write_archive

from common.errors import UsageError
from common.recording.archive import LARGEST_FILE_BYTES, pack, unpack
from common.recording.session import Session, open_session

FACTS: dict[str, Any] = {
    "revision": "0123456789abcdef", "device": {"kind": "cuda", "slug": "nvidia-h200"},
    "rehearsal": False, "versions": {"torch": "2.11.0", "triton": "3.6.0"},
}  # fmt: skip
RUN = "20260102T030405Z-0123456-small"


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    made = Session.create(tmp_path / "out", FACTS)
    folder = made.step_folder(1, "spin", "verdict", "small")
    place = str(folder.relative_to(made.folder))
    made.note("start", folder=place, problem="spin", step="verdict", preset="small")
    run = folder / "runs" / "spin" / "nvidia-h200" / RUN
    (run / "traces" / "plain").mkdir(parents=True)
    (run / "manifest.json").write_text('{"schema": "worklog.run/1"}')
    (run / "samples.jsonl").write_bytes(noise(40_000, 1))
    (run / "traces" / "plain" / "trace.json.gz").write_bytes(noise(90_000, 2))
    (run / "traces" / "plain" / "nsys.sqlite").write_bytes(noise(500_000, 3))
    (run / "traces" / "plain" / "nsys.slice.sqlite.gz").write_bytes(noise(60_000, 4))
    (folder / "log.txt").write_text("error in /home/someone/secret/place.py, line 3\n")
    made.note("end", folder=place, state="recorded", seconds=1.5)
    return made


def test_what_was_recorded_arrives_byte_for_byte(session: Session, tmp_path: Path) -> None:
    packed = pack(session, tmp_path / "a", 16 << 20)
    (path,) = packed.parts
    found = unpack([path])
    assert found.record["steps"][0]["state"] == "recorded" and found.lost == []
    (run,) = found.record["steps"][0]["runs"]
    for name in ("samples.jsonl", "traces/plain/trace.json.gz"):
        assert found.files[f"{run}/{name}"] == (session.folder / run / name).read_bytes()
    # The raw report stays and is named with its size; its slice travels.
    assert not any(name.endswith(".sqlite") for name in found.files)
    assert [(n.rsplit("/")[-1], s) for n, s, _ in packed.left_out] == [("nsys.sqlite", 500_000)]
    assert found.record["left_out"][0][1] == 500_000


def test_an_archive_names_no_place_and_nobody(session: Session, tmp_path: Path) -> None:
    (path,) = pack(session, tmp_path / "a", 16 << 20).parts
    plain = gzip.decompress(path.read_bytes())
    assert b"/home/someone" not in plain and str(tmp_path).encode() not in plain
    with tarfile.open(path) as archive:
        assert {(m.uid, m.uname, m.mtime) for m in archive} == {(0, "", 0)}
    again = pack(session, tmp_path / "b", 16 << 20).parts[0]
    assert again.read_bytes() == path.read_bytes()


def test_parts_are_small_enough_and_each_is_of_use(session: Session, tmp_path: Path) -> None:
    limit = 170_000
    parts = pack(session, tmp_path / "a", limit).parts
    assert len(parts) >= 2 and all(part.stat().st_size <= limit for part in parts)
    whole = unpack(list(reversed(parts)))
    assert whole.warnings == [] and whole.lost == []
    for part in parts:
        alone = unpack([part])
        assert alone.record["session"] == session.facts["session"]
        assert any("was not given" in text for text in alone.warnings)
        assert alone.files.items() <= whole.files.items() and alone.files
    # Smaller again, and nothing of the old division stays behind.
    pack(session, tmp_path / "a", 16 << 20)
    assert [p.name for p in (tmp_path / "a").iterdir()] == [
        f"record-nvidia-h200-{session.facts['session']}.tar.gz"
    ]


def test_a_file_that_no_part_can_hold_is_left_out_and_said(
    session: Session, tmp_path: Path
) -> None:
    packed = pack(session, tmp_path / "a", 130_000)
    (left,) = [row for row in packed.left_out if row[0].endswith("trace.json.gz")]
    assert "larger than a file may be" in left[2]
    assert list(left) in unpack(list(packed.parts)).record["left_out"]


def test_a_full_disk_leaves_the_archive_that_was_there(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = pack(session, tmp_path / "a", 16 << 20).parts
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.recording.archive.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        pack(session, tmp_path / "a", 16 << 20)
    assert path.read_bytes() == before and list((tmp_path / "a").iterdir()) == [path]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.8, 0.97, 0.999])
def test_a_truncated_archive_gives_its_whole_files_or_says_no(
    session: Session, tmp_path: Path, share: float
) -> None:
    (path,) = pack(session, tmp_path / "a", 16 << 20).parts
    whole, data = unpack([path]), path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    try:
        found = unpack([path])
    except UsageError as error:
        assert share < 0.1 and "\n" not in str(error)
        return
    assert found.files.items() <= whole.files.items()
    assert len(found.lost) + len(found.files) == len(whole.files)
    if found.lost:
        assert "lost" in found.warnings[0]


def test_a_changed_byte_costs_one_file(session: Session, tmp_path: Path) -> None:
    (path,) = pack(session, tmp_path / "a", 16 << 20).parts
    members = read(path)
    name = next(n for n in members if n.endswith("samples.jsonl"))
    members[name] = b"x" + members[name][1:]
    write(path, members)
    found = unpack([path])
    assert found.lost == [name] and name not in found.files


def read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def write(
    path: Path, members: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] | None = None
) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if change is not None:
                change(entry)
            archive.addfile(entry, io.BytesIO(data) if entry.isreg() else None)


def announced(members: dict[str, bytes], **more: bytes) -> dict[str, bytes]:
    """The members with others that part.json announces too."""
    part = json.loads(members["part.json"])
    for name, data in more.items():
        part["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {**members, **more, "part.json": json.dumps(part).encode()}


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "steps/../../evil", "a//b", "./a", "a\\b", "a b", "steps/\x1b[31m",
     "-rf", "x" * 300, "a/" * 20 + "b"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_refuses_the_archive(
    session: Session, tmp_path: Path, name: str
) -> None:
    (path,) = pack(session, tmp_path / "a", 16 << 20).parts
    members = read(path)
    if name == "-rf":  # a plain name, but one that nobody announced
        write(path, {**members, name: b"x"})
    else:
        write(path, announced(members, **{name: b"x"}))
    with pytest.raises(UsageError, match="do not use it|no archive of a recording"):
        unpack([path])


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_links_and_devices_refuse_the_archive(
    session: Session, tmp_path: Path, kind: bytes
) -> None:
    (path,) = pack(session, tmp_path / "a", 16 << 20).parts

    def change(entry: tarfile.TarInfo) -> None:
        if entry.name.endswith("samples.jsonl"):
            entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 0

    write(path, read(path), change)
    with pytest.raises(UsageError, match="a link|no plain file"):
        unpack([path])


@pytest.mark.parametrize("name", HOSTILE_ARCHIVES)
def test_an_archive_of_somebody_hostile_is_refused_in_one_line_and_writes_nothing(
    name: str, tmp_path: Path
) -> None:
    archive = write_archive(name, tmp_path / "in")
    before = outside(tmp_path)
    with pytest.raises(UsageError) as refused:
        unpack([archive])
    assert "\n" not in str(refused.value) and "\x1b" not in str(refused.value)
    assert outside(tmp_path) == before


def test_other_versions_and_other_files_are_refused_with_the_next_action(
    session: Session, tmp_path: Path
) -> None:
    (path,) = pack(session, tmp_path / "a", 16 << 20).parts
    members = read(path)
    newer = json.loads(members["record.json"]) | {"schema": "worklog.record/2"}
    data = json.dumps(newer).encode()
    write(path, announced({**members}, **{"record.json": data}))
    with pytest.raises(UsageError, match=r"is of worklog.record/2, this worklog reads .*record/1"):
        unpack([path])
    part = json.loads(members["part.json"]) | {"schema": "worklog.record-part/9"}
    write(path, {**members, "part.json": json.dumps(part).encode()})
    with pytest.raises(UsageError, match="record-part/9"):
        unpack([path])
    for wrong in (b"", b"not an archive", gzip.compress(b"plain"), b"PK\x03\x04zip"):
        path.write_bytes(wrong)
        with pytest.raises(UsageError, match="no archive of a recording"):
            unpack([path])


def test_a_bomb_and_a_mixture_of_sessions_are_refused(session: Session, tmp_path: Path) -> None:
    (path,) = pack(session, tmp_path / "a", 16 << 20).parts
    bomb = tmp_path / "bomb.tar.gz"
    entry = tarfile.TarInfo("part.json")
    entry.size = LARGEST_FILE_BYTES + 1
    with gzip.open(bomb, "wb") as packed:
        packed.write(entry.tobuf())
    with pytest.raises(UsageError, match="do not use it"):
        unpack([bomb])
    other = Session.create(tmp_path / "other", FACTS | {"revision": "fedcba9876"})
    (second,) = pack(other, tmp_path / "b", 16 << 20).parts
    with pytest.raises(UsageError, match="another recording"):
        unpack([path, second])


def test_a_journal_that_was_cut_off_tells_what_happened_before(session: Session) -> None:
    journal = session.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"event":"start","fol')
    assert open_session(session.folder).document()["steps"][0]["state"] == "recorded"
    journal.write_bytes(journal.read_bytes().split(b"\n")[0] + b"\n")
    (step,) = session.document()["steps"]
    assert step["state"] == "killed" and len(step["runs"]) == 1
    (session.folder / "session.json").unlink()
    with pytest.raises(UsageError, match="no recording"):
        open_session(session.folder)
