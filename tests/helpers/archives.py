"""Archives that try to leave the folder they are unpacked into: one table for whatever unpacks.

    @pytest.mark.parametrize("name", HOSTILE_ARCHIVES)
    def test_nothing_leaves_the_folder(tmp_path, name):
        archive = write_archive(name, tmp_path / "in")
        before = outside(tmp_path)
        with pytest.raises(UsageError): unpack(archive, tmp_path / "out")
        assert outside(tmp_path) == before

Each is a tar (gzipped) or zip with one member that must be refused, beside a harmless manifest.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

HARMLESS = "run/manifest.json"


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for info, data in ((tarfile.TarInfo(HARMLESS), b"{}"), *members):
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return _tar((info, b"x" if kind == tarfile.REGTYPE else b""))


def _through(kind: bytes, target: str) -> bytes:
    """A link in the archive, and then a file by way of it."""
    link, behind = tarfile.TarInfo("run/link"), tarfile.TarInfo("run/link/escaped")
    link.type, link.linkname = kind, target
    return _tar((link, b""), (behind, b"x"))


def _zip(name: str, mode: int = 0o100644, data: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(HARMLESS, "{}")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


HOSTILE_ARCHIVES: dict[str, Callable[[], bytes]] = {
    "tar, upwards": lambda: _member("../escaped"),
    "tar, upwards from within": lambda: _member("run/../../escaped"),
    "tar, absolute": lambda: _member("/tmp/worklog-escaped"),
    "tar, upwards with backslashes": lambda: _member("..\\escaped"),
    "tar, symbolic link outside": lambda: _member("run/link", tarfile.SYMTYPE, "../../escaped"),
    "tar, absolute symbolic link": lambda: _member("run/link", tarfile.SYMTYPE, "/etc/passwd"),
    "tar, hard link outside": lambda: _member("run/link", tarfile.LNKTYPE, "../escaped"),
    "tar, through a symbolic link": lambda: _through(tarfile.SYMTYPE, "../.."),
    "tar, a device": lambda: _member("run/null", tarfile.CHRTYPE),
    "tar, a pipe": lambda: _member("run/pipe", tarfile.FIFOTYPE),
    "tar, setuid": lambda: _member("run/program", mode=0o4755),
    "tar, a name with a line break": lambda: _member("run/a\nb"),
    "tar, an escape sequence": lambda: _member("run/\x1b[2Jx"),
    "tar, the same name twice": lambda: _tar((tarfile.TarInfo(HARMLESS), b"[]")),
    "tar, a name of 5,000 letters": lambda: _member("run/" + "x" * 5_000),
    "zip, upwards": lambda: _zip("../escaped"),
    "zip, absolute": lambda: _zip("/tmp/worklog-escaped"),
    "zip, a symbolic link": lambda: _zip("run/link", 0o120777, b"../../escaped"),
    "zip, a bomb": lambda: _zip("run/zeros", data=bytes(200 << 20)),
}


def write_archive(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("archive.zip" if name.startswith("zip") else "archive.tar.gz")
    path.write_bytes(HOSTILE_ARCHIVES[name]())
    return path


def outside(root: Path, allowed: str = "out") -> set[str]:
    """Everything below `root` but what is in the folder that may be written to, and the one place
    that an absolute name of the table leads to."""
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.relative_to(root).parts[0] != allowed
    }
    return found | ({"/tmp/worklog-escaped"} if Path("/tmp/worklog-escaped").exists() else set())
