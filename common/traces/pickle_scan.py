"""Does a pickle hold instructions that do more than build data? Looks at each, and builds nothing.

Refused by name, also where they could do no harm: instructions that import, call or set state, that
name a persistent object, an extension code or an out-of-band buffer. A memo slot far beyond the
file (the C unpickler would make a table that long: 34 GB for a file of 20 bytes) and long chains of
tuples or sets within one another (hashing them recurses in C and ends the process) are refused too.

A large file is scanned from two places at once, on two cores. Where instructions begin is only
known from the start, so the second place is a guess; it counts when the scan of the first half
arrives at exactly that byte. From there on both would see the same instructions.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass

from common.traces.side_by_side import begun

# Tuples that hold more than two plain numbers. A snapshot has none, or one per compiled region;
# hashing a chain of about 30,000 within one another would end the process.
MAX_NESTED_TUPLES = 10_000
# A quarter of a second of scanning; a process of its own costs a hundredth.
WORTH_A_PROCESS_BYTES = 32 << 20

_REFUSED = frozenset(
    {
        *("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"),
        *("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"),
    }
)
_NESTING = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", "EMPTY_SET"})
_OPCODES = {op.code.encode("latin-1")[0]: op for op in pickletools.opcodes}
# Bytes of the length that stands before an argument, by pickletools' codes for "taken from it".
_LENGTH_BYTES = {-2: 1, -3: 4, -4: 4, -5: 8}
_UP_TO_NEWLINE = -1
# Runs of instructions that need no look: one match instead of a turn of the loop each, which makes
# the scan about ten times as fast. First a whole list of known frames, the most of a snapshot; two
# numbers and \x86 are a pool id; the last are short texts, which events carry. No quantifier is
# possessive: before Python 3.11.5 such a match could end within an argument. Each has a limit
# instead, for the memory that a greedy match takes for each turn.
_SHORT_TEXTS = b"|".join(rb"\x%02x.{%d}" % (size, size) for size in range(24))
_HARMLESS_RUN = re.compile(
    rb"(?s:\]\x94\((?:j....|h.){0,4096}e|[\x94(}\]ueaNs\x88\x89)0]|h.|j...."
    rb"|(?:K.|M..|J....){2}\x86|K.|M..|J....|G.{8}|q.|\x8a(?:\x05.{5}|\x06.{6}|\x07.{7}|\x04.{4}"
    rb"|\x08.{8})|\x95.{8}|\x8c(?:" + _SHORT_TEXTS + rb")){0,4096}"
)


# Where torch's snapshots begin a dictionary: probably not within the argument of an instruction.
_PROBABLE_START = b"}\x94("


class PickleRefused(Exception):
    """This pickle would do more than build data. The message says what."""


class PickleCut(Exception):
    """The pickle ends, or breaks off, before it is complete: `whole_bytes` are whole instructions.

    Nobody may look further: a length that goes beyond the file is allocated by some unpicklers.
    """

    def __init__(self, message: str, whole_bytes: int = 0) -> None:
        super().__init__(message)
        self.whole_bytes = whole_bytes


@dataclass(frozen=True)
class _Scanned:
    """Instructions were looked at up to byte `at`, the end of the pickle if `ended`."""

    at: int
    nested: int
    ended: bool


def scan(data: bytes) -> None:
    """Returns if the pickle may be opened.

    Raises PickleRefused when it would do more than build data, PickleCut where it breaks off.
    """
    guess = -1
    if len(data) >= WORTH_A_PROCESS_BYTES:
        guess = data.find(_PROBABLE_START, len(data) // 2)
    _scan_from_two_places(data, guess if guess > 0 else len(data))


def _scan_from_two_places(data: bytes, half: int) -> None:
    """The second place is `half`; the end for one place alone."""
    end = len(data)
    with begun(lambda: _looked_at(data, half, end), worthwhile=half < end) as second_half:
        done = _looked_at(data, 0, half)
        if not done.ended:
            rest = second_half() if done.at == half < end else _looked_at(data, done.at, end)
            _check_nesting(done.nested + rest.nested)
            done = rest
    if not done.ended:
        raise PickleCut(f"it ends after {end} bytes without its end mark", end)


def _looked_at(data: bytes, start: int, end: int) -> _Scanned:
    """From the instruction at `start` to the first that begins at `end` or behind it."""
    at, nested = start, 0
    harmless_run = _HARMLESS_RUN.match
    while at < end:
        run = harmless_run(data, at, end)
        if run is not None and run.end() > at:
            at = run.end()
            continue
        op = _OPCODES.get(data[at])
        if op is None:
            raise PickleCut(f"byte {at} is no pickle instruction", at)
        if op.name == "STOP":
            return _Scanned(at, nested, True)
        if op.name in _REFUSED:
            raise PickleRefused(f"it uses {op.name} at byte {at}, and snapshots hold only data")
        if op.name in _NESTING:
            nested += 1
            _check_nesting(nested)
        at = _behind_argument(data, op, at + 1)
    return _Scanned(at, nested, False)


def _check_nesting(nested: int) -> None:
    if nested > MAX_NESTED_TUPLES:
        raise PickleRefused(f"it holds more than {MAX_NESTED_TUPLES} nested tuples or sets")


def _behind_argument(data: bytes, op: pickletools.OpcodeInfo, at: int) -> int:
    """Where the next instruction stands, `at` being the first byte behind this one."""
    if op.arg is None:
        return at
    size = op.arg.n
    if size == _UP_TO_NEWLINE:
        behind = data.find(b"\n", at) + 1
        if not behind:
            raise PickleCut(f"it ends within the instruction at byte {at - 1}", at - 1)
        slot = data[at : behind - 1] if op.name == "PUT" else b""
    elif size >= 0:
        behind = at + size
        number = int.from_bytes(data[at:behind], "little")
        slot = str(number).encode() if op.name == "LONG_BINPUT" else b""
    else:
        width = _LENGTH_BYTES[size]
        behind = at + width + int.from_bytes(data[at : at + width], "little")
        slot = b""
    if slot and (len(slot) > 19 or not slot.isdigit() or int(slot) > len(data)):
        raise PickleRefused("it names a memo slot beyond the end of the file")
    if behind > len(data):
        raise PickleCut(f"it ends within an instruction after {len(data)} bytes", at - 1)
    return behind
