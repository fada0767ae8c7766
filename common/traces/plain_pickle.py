"""How is a pickle opened when nobody knows who wrote it? As data only: every global is refused.

A pickle is a program. This one may only build dictionaries, lists, tuples, numbers and texts.
Three walls, because the C unpickler has more ways in than `find_class`:

1. Before anything is built the instructions are scanned: those that import, call or set state, that
   name a persistent object, an extension code or an out-of-band buffer, are refused by name, also
   where they could do no harm. A memo slot far beyond the file (the C unpickler would make a table
   that long: 34 GB for a file of 20 bytes) and long chains of tuples or sets within one another
   (hashing them recurses in C and ends the process) are refused as well.
2. `find_class` and `persistent_load` refuse, should the scan ever miss one.
3. Whatever else the unpickler raises becomes one line.

Deeply nested lists are harmless: nothing here or in the reader walks down what it does not know.
"""

from __future__ import annotations

import contextlib
import gc
import io
import pickle
import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Tuples that hold more than two plain numbers. A snapshot has none, or one per compiled region;
# hashing a chain of about 30,000 within one another would end the process.
MAX_NESTED_TUPLES = 10_000
# Closing what a cut file left open runs in Python, about 2 us per instruction.
MAX_SALVAGE_BYTES = 256 << 20

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
# PROTO since protocol 2; before it a pickled dictionary or list begins with "(", "}" or "]".
_FIRST = (b"\x80", b"(", b"}", b"]")

# Runs of instructions that need no look: one match instead of a turn of the loop each, which makes
# the scan about ten times as fast. First a whole list of known frames, the most of a snapshot; two
# numbers and \x86 are a pool id; the last are short texts, which events carry.
_SHORT_TEXTS = b"|".join(rb"\x%02x.{%d}" % (size, size) for size in range(24))
_HARMLESS_RUN = re.compile(
    rb"(?s:\]\x94\((?:j....|h.)*+e|[\x94(}\]ueaNs\x88\x89)0]|h.|j...."
    rb"|(?:K.|M..|J....){2}\x86|K.|M..|J....|G.{8}|q.|\x8a(?:\x05.{5}|\x06.{6}|\x07.{7}|\x04.{4}"
    rb"|\x08.{8})|\x95.{8}|\x8c(?:" + _SHORT_TEXTS + rb"))*+"
)


class PickleRefused(Exception):
    """This pickle would do more than build data. The message says what."""


class PickleCut(Exception):
    """The pickle ends, or breaks off, before it is complete."""


@dataclass(frozen=True)
class Plain:
    """What the pickle built; `cut` says why it is not all of it, "" when it is."""

    value: object
    cut: str = ""


def load_plain(data: bytes) -> Plain:
    """The data of a pickle, or of the readable beginning of a damaged one.

    Raises PickleRefused when it would do more than build data, PickleCut when nothing of it can be
    read.
    """
    if data[:1] not in _FIRST:
        raise PickleCut("it does not begin like one")
    with garbage_collector_off():
        try:
            _scan(data)
            return Plain(_Refusing(io.BytesIO(data)).load())
        except PickleCut as cut:
            return Plain(_salvage(data, str(cut)), str(cut))
        except PickleRefused:
            raise
        except MemoryError as error:
            raise PickleRefused("it needs more memory than there is") from error
        except Exception as error:  # the C unpickler raises nearly anything on a damaged file
            reason = f"it cannot be decoded ({type(error).__name__})"
            return Plain(_salvage(data, reason), reason)


def _scan(data: bytes) -> None:
    """Wall 1. Builds nothing. PickleCut where the pickle breaks off."""
    at, end, nested = 0, len(data), 0
    harmless_run = _HARMLESS_RUN.match
    while at < end:
        run = harmless_run(data, at)
        if run is not None and run.end() > at:
            at = run.end()
            continue
        op = _OPCODES.get(data[at])
        if op is None:
            raise PickleCut(f"byte {at} is no pickle instruction")
        if op.name == "STOP":
            return
        if op.name in _REFUSED:
            raise PickleRefused(f"it uses {op.name} at byte {at}, and snapshots hold only data")
        if op.name in _NESTING:
            nested += 1
            if nested > MAX_NESTED_TUPLES:
                raise PickleRefused(f"it holds more than {MAX_NESTED_TUPLES} nested tuples or sets")
        at = _behind_argument(data, op, at + 1)
    raise PickleCut(f"it ends after {end} bytes without its end mark")


def _behind_argument(data: bytes, op: pickletools.OpcodeInfo, at: int) -> int:
    """Where the next instruction stands, `at` being the first byte behind this one."""
    if op.arg is None:
        return at
    size = op.arg.n
    if size == _UP_TO_NEWLINE:
        behind = data.find(b"\n", at) + 1
        if not behind:
            raise PickleCut(f"it ends within the instruction at byte {at - 1}")
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
        raise PickleCut(f"it ends within an instruction after {len(data)} bytes")
    return behind


class _Refusing(pickle.Unpickler):
    """Wall 2."""

    def find_class(self, module: str, name: str) -> Any:
        raise PickleRefused(f"it asks for {module}.{name}, and snapshots hold only data")

    def persistent_load(self, pid: Any) -> Any:
        raise PickleRefused("it asks for a persistent object, and snapshots hold only data")


def _salvage(data: bytes, reason: str) -> object:
    """What a damaged pickle built until it broke off, with every open container closed.

    Only the unpickler of the standard library that is written in Python shows its stack.
    """
    base: Any = getattr(pickle, "_Unpickler", None)
    if base is None or len(data) > MAX_SALVAGE_BYTES:
        raise PickleCut(reason)
    reader: Any = type(
        "_RefusingInPython",
        (base,),
        {"find_class": _Refusing.find_class, "persistent_load": _Refusing.persistent_load},
    )(io.BytesIO(data))
    try:
        reader.load()
    except PickleRefused:
        raise
    except MemoryError as error:
        raise PickleRefused("it needs more memory than there is") from error
    except Exception:  # expected: this is where it breaks off
        pass
    open_stacks = [*getattr(reader, "metastack", []), getattr(reader, "stack", [])]
    while len(open_stacks) > 1:
        items, outer = open_stacks.pop(), open_stacks[-1]
        if not outer:
            continue
        _close(outer[-1], items)
    if not open_stacks or not open_stacks[0]:
        raise PickleCut(reason)
    found: object = open_stacks[0][0]
    return found


def _close(container: object, items: list[Any]) -> None:
    """Put what was waiting on the stack into the container that it was meant for.

    Keys and values alternate under a dictionary; what follows a list in place of a key is the one
    element of a list that is written without a mark.
    """
    if isinstance(container, list):
        container.extend(items)
    elif isinstance(container, dict):
        rest = iter(items)
        last: object = None
        for key in rest:
            if isinstance(key, str):
                last = container[key] = next(rest, None)
            elif isinstance(last, list):
                last.append(key)


@contextlib.contextmanager
def garbage_collector_off() -> Iterator[None]:
    """Building millions of containers with the collector on costs as much again. To be held until
    most of them are gone: the first collection afterwards walks all that are left."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
