"""Pickles that would do more than build data, each in its smallest form."""

from __future__ import annotations

import os
import pickle
from typing import Any

MARKER = "opened-by-a-pickle"


class Runs:
    """Unpickles by calling something."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.reduced = (call, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def within(inner: bytes) -> bytes:
    """A snapshot whose settings are the instructions `inner`."""
    return b"\x80\x04}(\x8c\x08segments]\x8c\x0ddevice_traces]\x8c\x12allocator_settings" + (
        inner + b"u."
    )


HOSTILE = {
    "os.system by REDUCE": pickle.dumps({"segments": Runs(os.system, f"touch {MARKER}")}),
    "protocol 0": pickle.dumps({"segments": Runs(os.system, f"touch {MARKER}")}, protocol=0),
    "protocol 2": pickle.dumps({"segments": Runs(os.system, f"touch {MARKER}")}, protocol=2),
    "builtins.eval": within(b"cbuiltins\neval\n\x8c\x011\x85R"),
    "builtins.set": within(b"cbuiltins\nset\n)R"),
    "collections.OrderedDict": within(b"ccollections\nOrderedDict\n)R"),
    "copyreg._reconstructor": within(b"ccopyreg\n_reconstructor\n)R"),
    "STACK_GLOBAL": within(b"\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R"),
    "INST": within(b"(S'ls'\nios\nsystem\n"),
    "OBJ": within(b"(cos\nsystem\n\x8c\x02lso"),
    "NEWOBJ": within(b"cbuiltins\nobject\n)\x81"),
    "NEWOBJ_EX": within(b"cbuiltins\nobject\n)}\x92"),
    "BUILD": within(b"}}b"),
    "persistent id": within(b"Pfile\n"),
    "binary persistent id": within(b"\x8c\x04fileQ"),
    "extension code 1": within(b"\x82\x01"),
    "extension code 2": within(b"\x83\x01\x00"),
    "extension code 4": within(b"\x84\x01\x00\x00\x00"),
    "out-of-band buffer": within(b"\x97"),
    "read-only buffer": within(b"\x98"),
    "a global that is never called": within(b"cos\nsystem\n"),
    "memo slot at 2 GB": within(b"Nr\xff\xff\xff\x7f"),
    "memo slot as text": within(b"Np99999999999999999999999\n"),
    "chain of tuples as a key": within(b"}(" + b")" + b"\x85" * 200_000 + b"K\x01u"),
    "chain of pairs": within(b")" + b"K\x01\x86" * 200_000),
    "chain of frozen sets": within(b"(" * 200_000 + b"\x91" * 200_000),
}
