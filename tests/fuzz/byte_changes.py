"""What happens to the bytes of a file on the way: flips, cuts, holes, copies, foreign pieces."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable

_FOREIGN = (
    b"\0", b"\xff", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\x1b[2J", b"}, {",
    b'"ph":', b"NaN", b"\x1f\x8b", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"e999", b"-", b".", b"u.",
    b"\x80\x04", b"c", b"R", b"SQLite format 3\0", b"NVR\0", b'"ID","Process ID"',
)  # fmt: skip
_LENGTHS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flip(draw: random.Random, data: bytearray) -> str:
    count = draw.choice((1, 1, 1, 2, 5, 40))
    for _ in range(count):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return f"{count} bits flipped"


def overwrite(draw: random.Random, data: bytearray) -> str:
    count = draw.choice((1, 1, 2, 8))
    for _ in range(count):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return f"{count} bytes overwritten"


def cut(draw: random.Random, data: bytearray) -> str:
    at = draw.randrange(len(data))
    del data[at:]
    return f"cut at {at}"


def hole(draw: random.Random, data: bytearray) -> str:
    start = draw.randrange(len(data))
    size = draw.choice((1, 2, 7, 64, 512))
    del data[start : start + size]
    return f"{size} bytes lost at {start}"


def zeroed(draw: random.Random, data: bytearray) -> str:
    start = draw.randrange(len(data))
    size = min(draw.choice((1, 16, 512, 4096)), len(data) - start)
    data[start : start + size] = bytes(size)
    return f"{size} zeros at {start}"


def foreign(draw: random.Random, data: bytearray) -> str:
    at, piece = draw.randrange(len(data) + 1), draw.choice(_FOREIGN)
    data[at:at] = piece * draw.choice((1, 1, 1, 3, 200))
    return f"{piece!r} put in at {at}"


def repeated(draw: random.Random, data: bytearray) -> str:
    start = draw.randrange(len(data))
    piece = bytes(data[start : start + draw.choice((1, 8, 100, 1000))])
    times = draw.choice((1, 1, 2, 20))
    data[start:start] = piece * times
    return f"{len(piece)} bytes at {start} repeated {times} times"


def exchanged(draw: random.Random, data: bytearray) -> str:
    size = draw.choice((1, 4, 32, 256))
    one, two = (draw.randrange(len(data)) for _ in range(2))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
    return f"{size} bytes at {one} and {two} exchanged"


def number(draw: random.Random, data: bytearray) -> str:
    """A length or offset of a binary format."""
    width, order = draw.choice((1, 2, 4, 8)), draw.choice("<>")
    value = draw.choice(_LENGTHS) & ((1 << (8 * width)) - 1)
    at = draw.randrange(max(1, len(data) - width))
    data[at : at + width] = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[width], value)
    return f"{value:#x} in {width} bytes at {at}"


CHANGES: tuple[Callable[[random.Random, bytearray], str], ...] = (
    flip, flip, overwrite, cut, hole, zeroed, foreign, foreign, repeated, exchanged, number,
)  # fmt: skip


def damaged(draw: random.Random, data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The bytes after one to three accidents, and what they were."""
    held = bytearray(data)
    said = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if not held:
            break
        said.append(draw.choice(CHANGES)(draw, held))
    return bytes(held), tuple(said)


# gzip around a file


def packed(draw: random.Random, data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The same content in a gzip file that is in order: one member or several, padded or not."""
    way = draw.choice(("one", "stored", "members", "empty members", "padded", "named"))
    if way == "one":
        return gzip.compress(data, 1, mtime=0), ("gzipped",)
    if way == "stored":
        return gzip.compress(data, 0, mtime=0), ("gzipped without compression",)
    if way == "named":
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        body = packer.compress(data) + packer.flush()
        end = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
        return b"\x1f\x8b\x08\x08\0\0\0\0\0\xff../../etc/x\0" + body + end, ("gzipped with a name",)
    if way == "padded":
        return gzip.compress(data, 1, mtime=0) + bytes(draw.randrange(1, 600)), ("gzipped, padded",)
    parts = sorted(draw.randrange(len(data) + 1) for _ in range(draw.randrange(1, 4)))
    pieces = [data[a:b] for a, b in zip([0, *parts], [*parts, len(data)], strict=True)]
    if way == "empty members":
        pieces = [piece for part in pieces for piece in (b"", part)]
    members = b"".join(gzip.compress(piece, 1, mtime=0) for piece in pieces)
    return members, (f"gzipped in {len(pieces)} members",)


def broken_gzip(draw: random.Random, data: bytes) -> tuple[bytes, tuple[str, ...], bytes | None]:
    """(file, what was done, what can be unpacked of it); None where only zlib could say."""
    whole = gzip.compress(data, draw.choice((1, 6)), mtime=0)
    if draw.random() < 0.5:
        at = draw.randrange(1, len(whole))
        inflater = zlib.decompressobj(wbits=31)
        try:
            readable = inflater.decompress(whole[:at]) + inflater.flush()
        except zlib.error:
            readable = b""
        return whole[:at], (f"gzip stream cut at {at}",), readable
    held, said = damaged(draw, whole)
    return held, ("in the gzip stream", *said), None
