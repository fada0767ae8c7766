"""What bytes does a profiler's file hold, gzipped or not, whole or cut short?

A file that ends too early is still evidence: what could be unpacked is returned with a warning.
A file that is none, or a small archive that unpacks to more than any recording, is an error.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from common.errors import UsageError
from common.traces.byte_source import refuse_bomb

GZIP_MAGIC = b"\x1f\x8b"
# A stated guess: the largest snapshots that people report are about 1 GB.
MAX_UNPACKED_BYTES = 4 << 30
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RawFile:
    """The unpacked bytes; `cut` when a gzip stream ended early or broke off."""

    data: bytes
    cut: bool = False
    warnings: tuple[str, ...] = ()


def read_raw(path: Path, kind: str) -> RawFile:
    """The bytes of `path`, gunzipped if they are gzipped.

    `kind` names what was expected ("an ncu report"). Raises UsageError, one line, for a missing
    file, a directory, an empty file, and an archive of which nothing can be unpacked.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist; give the path of {kind}")
    if not path.is_file():
        raise UsageError(f"{path} is no file; give the path of {kind}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); check its rights") from error
    if not data:
        raise UsageError(f"{path} is empty; record or copy {kind} again")
    if data[:2] != GZIP_MAGIC:
        return RawFile(data)
    return _unpack(path, data, kind)


def _unpack(path: Path, data: bytes, kind: str) -> RawFile:
    out: list[bytes] = []
    size, rest, trouble = 0, memoryview(data), ""
    while len(rest) and not trouble:
        if bytes(rest[:2]) != GZIP_MAGIC:
            break  # gzip(1) ignores what follows the last member (padding of tapes), and so do we
        member = zlib.decompressobj(wbits=31)
        feed: bytes | memoryview = rest
        while not member.eof and not trouble:
            try:
                piece = member.decompress(feed, _CHUNK_BYTES)
            except zlib.error as error:
                trouble = str(error)
                break
            out.append(piece)
            size += len(piece)
            refuse_bomb(path, len(data), size)
            if size > MAX_UNPACKED_BYTES:
                raise UsageError(
                    f"{path} unpacks to more than {size >> 20} MiB, which no recording of this "
                    f"kind does; give {kind}"
                )
            feed = member.unconsumed_tail
            if not feed and not member.eof and not piece:
                trouble = "the gzip stream ends early"
        rest = memoryview(member.unused_data)
    unpacked = b"".join(out)
    if not unpacked:
        reason = trouble or "the archive holds nothing"
        raise UsageError(f"{path} cannot be unpacked ({reason}); record or copy {kind} again")
    if not trouble:
        return RawFile(unpacked)
    warning = f"the gzip stream is damaged ({trouble}): only its first {size} bytes were read"
    return RawFile(unpacked, True, (warning,))
