"""Who asked for this memory? A stack trace reduced to what stays the same between two runs.

Kept: the outermost ATen operator and the user's own Python frames, innermost first, each as
"file.py:function", with its line beside. Dropped: the allocator's and interpreter's C++ frames,
PyTorch's and Python's own modules, folders (they name people), addresses and the hashes in the
names of generated files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# More frames tell a caller's callers apart, which splits rows that a reader sees as one.
KEPT_FRAMES = 5
# A stated guess: so many lists of equal length with the same frames in three places are compared
# with a new one. More would make a file of many alike stacks slow.
MAX_ALIKE = 12

_OPERATOR = re.compile(r"at::_ops::(\w+)::call\(")
# Inside an installation of Python: torch's own modules, and the standard library.
_TORCH = re.compile(r"(^|/)(site-packages|dist-packages)/(torch|functorch|triton)/")
_STANDARD_LIBRARY = re.compile(
    r"(^|/)(lib(64)?/python\d[\d.]*/(?!(site|dist)-packages/)|Lib/(?!site-packages/))"
)
_GENERATED = re.compile(r"torchinductor|torch_compile_debug|/ipykernel_|<eval_with_key>")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class Stack:
    """`frames` are the user's, innermost first; `operator` is e.g. "aten::linear".

    `lines` are those of the frames (0: unknown). They tell two calls in one function apart and are
    no part of `label`, since any edit above a call moves it.
    """

    frames: tuple[str, ...]
    operator: str | None = None
    lines: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The signature as one text, the key of a row: equal in two runs of one program."""
        parts = ([self.operator] if self.operator else []) + list(self.frames)
        return " < ".join(parts) if parts else "no named frames"


class StackTable:
    """Numbers distinct stacks. Frames are shared objects in a snapshot: each is read once, and a
    list of the same frames as an earlier one is known without looking into them.

    `spend` is told how many frames are walked, so that a file cannot make few bytes look like
    endless stacks. Objects are told by their id: they must live as long as the table is used.
    """

    def __init__(self, spend: Callable[[int], None]) -> None:
        self.stacks: list[Stack] = []
        self._spend = spend
        self._number: dict[Stack, int] = {}
        self._by_list: dict[int, int] = {}
        self._alike: dict[tuple[int, int, int, int], list[tuple[list[Any], int]]] = {}
        self._tags: dict[int, tuple[str, str, int]] = {}
        self._plain: set[int] = set()

    def numbers(self, column: Iterable[object]) -> NDArray[np.int64]:
        """`number` of each. What neighbours share (the two events of a free) is found once."""
        found: list[int] = []
        add, known_list = found.append, self._by_list.get
        last: object = None
        number = self.number(last)
        for frames in column:
            if frames is not last:
                last = frames
                known = known_list(id(frames))
                number = self.number(frames) if known is None else known
            add(number)
        return np.array(found, dtype=np.int64)

    def number(self, frames: object) -> int:
        """Index of this stack in `stacks`; -1 when there are no frames."""
        if not isinstance(frames, list) or not frames:
            return -1
        known = self._by_list.get(id(frames))
        if known is None:
            self._spend(len(frames))
            known = self._by_list[id(frames)] = self._look_up(frames)
        return known

    def _look_up(self, frames: list[Any]) -> int:
        count = len(frames)
        middle = count >> 1
        place = count, id(frames[middle]), id(frames[middle >> 1]), id(frames[-1])
        alike = self._alike.setdefault(place, [])
        for other, number in alike:
            # Mostly a comparison of addresses. `other` is flat, so this cannot go deep.
            if frames == other:
                return number
        stack = self._reduce(frames)
        number = self._number.setdefault(stack, len(self.stacks))
        if number == len(self.stacks):
            self.stacks.append(stack)
        if len(alike) < MAX_ALIKE and self._plain.issuperset(map(id, frames)):
            alike.append((frames, number))
        return number

    def _reduce(self, frames: list[object]) -> Stack:
        operator: str | None = None
        own: list[tuple[str, int]] = []
        inner: list[
            tuple[str, int]
        ] = []  # torch's Python frames: shown when there is nothing better
        for frame in frames:
            kind, tag, line = self._tag(frame)
            if kind == "operator" and not own and not inner:
                operator = tag  # the last one before the first Python frame is the outermost
            elif kind == "own" and len(own) < KEPT_FRAMES:
                own.append((tag, line))
            elif kind == "inner" and len(inner) < KEPT_FRAMES:
                inner.append((tag, line))
        kept = own or inner
        return Stack(tuple(tag for tag, _ in kept), operator, tuple(line for _, line in kept))

    def _tag(self, frame: object) -> tuple[str, str, int]:
        known = self._tags.get(id(frame))
        if known is None:
            known = self._tags[id(frame)] = (*classify(frame), _line(frame))
            if type(frame) is dict and set(map(type, frame.values())) <= {str, int}:
                self._plain.add(id(frame))
        return known


def _line(frame: object) -> int:
    line = frame.get("line") if isinstance(frame, dict) else None
    return line if type(line) is int and 0 <= line < 1 << 31 else 0


def classify(frame: object) -> tuple[str, str]:
    """What one frame is ("operator", "own", "inner" or "dropped") and how it is shown."""
    if not isinstance(frame, dict):
        return "dropped", ""
    name, file = frame.get("name"), frame.get("filename")
    if not isinstance(name, str) or not isinstance(file, str):
        return "dropped", ""
    found = _OPERATOR.match(name)
    if found:
        return "operator", f"aten::{found[1]}"
    path = file.replace("\\", "/")
    generated = bool(_GENERATED.search(path))
    if not (path.endswith(".py") or path.startswith("<") or generated):
        return "dropped", ""
    base = "<generated>" if generated else path.rsplit("/", 1)[-1]
    shown = _ADDRESS.sub("0x", f"{base}:{name}")
    if path.startswith("<frozen"):
        return "dropped", ""
    inner = not generated and (_TORCH.search(path) or _STANDARD_LIBRARY.search(path))
    return ("inner" if inner else "own"), shown


def size_class(size: int) -> str:
    """The size rounded up to a power of two, as text: small changes of a shape stay in one class.

    "<= 2 MiB" holds sizes over 1 MiB up to 2 MiB. The smallest class is the allocator's block of
    512 bytes.
    """
    limit = 512
    while limit < size:
        limit *= 2
    for unit, text in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if limit >= unit:
            return f"<= {limit // unit} {text}"
    return f"<= {limit} B"
