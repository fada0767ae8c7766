"""How are the bytes of a file read, gzipped or not, whole or cut off?

Blocks come one by one, so that a large file never lies in memory as a whole. A gzip stream that
ends early or is damaged gives every byte before the damage, and says so in `damage`.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common.errors import UsageError

GZIP = b"\x1f\x8b"
# Real recordings unpack to 4-30 times their size; zlib's limit is 1,032 times.
MAX_RATIO = 500
RATIO_CHECKED_FROM_BYTES = 64 << 20
_COMPRESSED = 1 << 16


def refuse_bomb(path: Path, packed_bytes: int, unpacked_bytes: int) -> None:
    """Raises UsageError for a small archive that unpacks to more than any recording does."""
    if unpacked_bytes > RATIO_CHECKED_FROM_BYTES and unpacked_bytes > MAX_RATIO * packed_bytes:
        raise UsageError(
            f"{path} unpacks to more than {unpacked_bytes >> 20} MiB from {packed_bytes} bytes, "
            f"over {MAX_RATIO} times as much, which no recording does; record or copy it again"
        )


def open_file(path: Path) -> IO[bytes]:
    """The file, opened for reading. Raises UsageError in one line for what is no readable file."""
    try:
        # Without waiting: a pipe that nobody writes into would be opened for ever.
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; give the path of a profiler's file") from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder; give the path of a file in it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{path} cannot be read ({reason}); check its permissions or copy it again"
        ) from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise UsageError(f"{path} is a pipe or a device, and is read twice; copy it into a file")
    return stream


class ByteSource:
    """The bytes of one file in blocks, gunzipped when its content is gzipped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None  # why the bytes end early, once they were read

    def head(self, size: int = 4096) -> bytes:
        """The first bytes, gunzipped. Raises UsageError for an empty file."""
        found = b""
        for block in self.blocks(size):
            found += block
            if len(found) >= size:
                break
        self.damage = None
        if not found:
            raise UsageError(f"{self.path} holds nothing; record or copy it again")
        return found[:size]

    def blocks(self, size: int) -> Iterator[bytes]:
        """Non-empty blocks of at least `size` bytes where there are as many."""
        with open_file(self.path) as stream:
            try:
                start = stream.read(2)
                stream.seek(0)
                yield from self._gunzipped(stream, size) if start == GZIP else _plain(stream, size)
            except OSError as error:
                raise UsageError(
                    f"{self.path} cannot be read ({error.strerror or error}); copy it again"
                ) from error

    def _gunzipped(self, stream: IO[bytes], size: int) -> Iterator[bytes]:
        held: list[bytes] = []
        length = total = 0
        packed = os.fstat(stream.fileno()).st_size
        for piece in self._inflated(stream):
            held.append(piece)
            length += len(piece)
            total += len(piece)
            refuse_bomb(self.path, packed, total)
            if length >= size:
                yield b"".join(held)
                held, length = [], 0
        if length:
            yield b"".join(held)

    def _inflated(self, stream: IO[bytes]) -> Iterator[bytes]:
        inflater = zlib.decompressobj(wbits=31)
        begun = False
        while data := stream.read(_COMPRESSED):
            while data:
                if inflater.eof:  # the next member of a file of several
                    data = data.lstrip(b"\0")
                    if not data.startswith(GZIP):
                        if data:
                            self.damage = "bytes after the end of its gzip stream were ignored"
                        return
                    inflater = zlib.decompressobj(wbits=31)
                before = inflater.copy()
                try:
                    piece = inflater.decompress(data)
                except zlib.error:
                    self.damage = "its gzip stream is damaged"
                    yield _until_damage(before, data)
                    return
                begun = True
                if piece:
                    yield piece
                data = inflater.unused_data
        if begun and not inflater.eof:
            self.damage = "its gzip stream ends early"
            if rest := inflater.flush():
                yield rest


def _until_damage(inflater: zlib._Decompress, data: bytes) -> bytes:
    """What can be inflated before the damage: byte by byte, as a failed call returns nothing."""
    found = []
    for at in range(len(data)):
        try:
            found.append(inflater.decompress(data[at : at + 1]))
        except zlib.error:
            break
    return b"".join(found)


def _plain(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while block := stream.read(size):
        yield block


def sha256_of(path: Path) -> str:
    """Of the file as it is, packed or not: what a slice of it says it comes from."""
    import hashlib  # slow to load, and no comparison needs it

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def unpacked(path: Path, suffix: str) -> Iterator[Path]:
    """The file itself, or a gunzipped copy in a temporary folder while the context lasts.

    Raises UsageError for a gzip stream that is damaged: a database with a hole is no database.
    """
    with open_file(path) as stream:
        gzipped = stream.read(2) == GZIP
    if not gzipped:
        yield path
        return
    import tempfile  # rarely needed, and slow to load

    with tempfile.TemporaryDirectory(prefix="worklog-") as folder:
        copy = Path(folder) / f"unpacked{suffix}"
        source = ByteSource(path)
        with copy.open("wb") as target:
            for block in source.blocks(1 << 22):
                target.write(block)
        if source.damage and "after the end" not in source.damage:
            raise UsageError(f"{path} cannot be unpacked: {source.damage}; copy it again")
        yield copy
