"""How is a pickle opened when nobody knows who wrote it? As data only: every global is refused.

A pickle is a program. This one may only build dictionaries, lists, tuples, numbers and texts.
Three walls, because the C unpickler has more ways in than `find_class`:

1. Before anything is built the instructions are scanned (`pickle_scan`) and all that would do more
   than build data is refused by name.
2. `find_class` and `persistent_load` refuse, should the scan ever miss one.
3. Whatever else the unpickler raises becomes one line.

Deeply nested lists are harmless: nothing here or in the reader walks down what it does not know.
"""

from __future__ import annotations

import contextlib
import gc
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common.traces.pickle_scan import PickleCut, PickleRefused, scan

# Closing what a cut file left open runs in Python, about 2 us per instruction.
MAX_SALVAGE_BYTES = 256 << 20

# PROTO since protocol 2; before it a pickled dictionary or list begins with "(", "}" or "]".
_FIRST = (b"\x80", b"(", b"}", b"]")


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
            scan(data)
            return Plain(_Refusing(io.BytesIO(data)).load())
        except PickleCut as cut:
            return Plain(_salvage(data[: cut.whole_bytes], str(cut)), str(cut))
        except PickleRefused:
            raise
        except MemoryError as error:
            raise PickleRefused("it needs more memory than there is") from error
        except Exception as error:  # the C unpickler raises nearly anything on a damaged file
            reason = f"it cannot be decoded ({type(error).__name__})"
            return Plain(_salvage(data, reason), reason)


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
