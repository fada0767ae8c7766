"""How is a long array of JSON events read in pieces, and what is left of it when it is damaged?

The array is cut between two events every half mebibyte or so and each piece is decoded by msgspec
into typed structs. A piece of JSON only decodes when it was cut at a boundary (a parser's state
depends on nothing but what it has read), so a wrong cut shows as an error and is moved. A piece
that does not decode is mended (control characters, NaN, inf, text that is not UTF-8) or else read
event by event: what is intact is kept, the rest is counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from common.errors import UsageError
from common.traces.model import UNKNOWN, Caution

PIECE_BYTES = 1 << 19
PATIENCE_BYTES = 1 << 26  # how large one event may be before it is taken for a damaged one
MOST_ARRAYS_TRIED = 16  # of the name "traceEvents" within what precedes the events
_KEYS = b"ph|name|cat|ts|pid|tid|args|id|dur|bp|s|tts|tdur"
_BETWEEN = re.compile(rb'\}\s*,(?=\s*\{\s*"(?:' + _KEYS + rb')"\s*:)')
_ARRAY = re.compile(rb'"traceEvents"\s*:\s*\[')
_FIRST = re.compile(rb"\S")
_EVENT = re.compile(rb'\s*\{\s*"(?:' + _KEYS + rb')"\s*:')
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_NO_NUMBER = re.compile(rb"([:,\[]\s*)([+-]?(?:nan|inf(?:inity)?))(?=\s*[,}\]])", re.IGNORECASE)
_SPACES = bytes.maketrans(b"\n\r\t", b"   ")
# Behind a broken event the next one may stand behind rubbish, or without its comma.
_BETWEEN_TEXT = re.compile(
    # Rubbish may hold a brace, but not the beginning of an object.
    r'\}[\s,]*+(?:[^{}]|\{(?!\s*")){0,64}?[\s,]*+(?=\{\s*"(?:' + _KEYS.decode() + r')"\s*:)'
)
_EVENT_TEXT = re.compile(r'\{\s*"(?:' + _KEYS.decode() + r')"\s*:')
_STRING_OR_NO_NUMBER = re.compile(
    r'"(?:[^"\\]|\\.)*"|[+-]?\b(?:nan|inf(?:inity)?)\b', re.IGNORECASE | re.DOTALL
)
_MAYBE_NO_NUMBER = re.compile(r"[:,\[\s][+-]?(?:nan|inf)", re.IGNORECASE)
_GAP = re.compile(r"[,\s]*")
_LENIENT = json.JSONDecoder(strict=False, parse_float=str, parse_constant=str)


class Arguments(msgspec.Struct, gc=False, frozen=True):
    """The few arguments of an event that are needed, as Kineto orders them: quickest to find."""

    external: int | str = msgspec.field(default=UNKNOWN, name="External id")
    external_2021: int | str = msgspec.field(default=UNKNOWN, name="external id")
    device: int | str | None = None
    stream: int | str | None = None
    correlation: int = UNKNOWN
    bytes: int = UNKNOWN
    graph_node: int = msgspec.field(default=UNKNOWN, name="graph node id")
    allocated: int | None = msgspec.field(default=None, name="Bytes")
    device_type: int | None = msgspec.field(default=None, name="Device Type")
    device_id: int | None = msgspec.field(default=None, name="Device Id")
    total_allocated: int = msgspec.field(default=UNKNOWN, name="Total Allocated")
    total_reserved: int = msgspec.field(default=UNKNOWN, name="Total Reserved")


NO_ARGUMENTS = Arguments()
NO_TIME = msgspec.Raw(b"")


class Event(msgspec.Struct, gc=False):
    """One Chrome trace event; times stay text until they are exact integers.

    The fields stand as Kineto orders them, where they are found at once.
    """

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: int | str | None = None
    tid: int | str | None = None
    ts: msgspec.Raw = NO_TIME
    dur: msgspec.Raw = NO_TIME
    args: Arguments = NO_ARGUMENTS


class EventStream:
    """Iterates over lists of events. After that, `meta` holds the other keys of the file."""

    def __init__(self, blocks: Iterable[bytes], name: str) -> None:
        self.meta: dict[str, Any] = {}
        self.lost: Counter[str] = Counter()
        self.ends_early = False
        self._name = name
        self._blocks = iter(blocks)
        self._decoder = msgspec.json.Decoder(list[Event])
        self._listed = False
        self._after: bytes | None = None  # what follows the array, once its end was seen

    def __iter__(self) -> Iterator[list[Event]]:
        held = self._open_array()
        wanted = PIECE_BYTES
        for block in self._blocks:
            size = len(held) + len(block)
            if size < wanted:
                held += block
                continue
            text, rest = self._cut(held, block)
            found = None if text is None else self._piece(text, rest, size < PATIENCE_BYTES)
            if found is None:
                held += block
                wanted = 2 * size  # one event is larger than a piece: look again at twice that
                continue
            events, held = found
            wanted = max(PIECE_BYTES, 2 * len(held) if len(held) > PIECE_BYTES else 0)
            yield events
            del found, events, text  # the next ones take their place in the cache
            if self._after is not None:
                break
        if self._after is None:
            yield self._last(held)
        self._close_array()

    # The file around the array

    def _open_array(self) -> bytes:
        """Read up to the array's bracket; returns what was read behind it."""
        held, searched, tries = bytearray(), 0, 0
        for block in self._blocks:
            held += block if held else block.removeprefix(b"\xef\xbb\xbf")
            begins = _FIRST.search(held)
            if begins is None:
                continue
            if begins[0] == b"[":
                self._listed = True
                return bytes(held[begins.end() :])
            if begins[0] != b"{":
                break
            for match in _ARRAY.finditer(held, max(0, searched - 64)):
                # Only at the outermost level does closing the array and the object make JSON.
                tries += 1
                if tries > MOST_ARRAYS_TRIED:
                    break
                meta = _object(bytes(held[: match.end()]) + b"]}")
                if meta is not None and meta.get("traceEvents") == []:
                    self.meta = meta
                    return bytes(held[match.end() :])
            searched = len(held)
            if tries and searched > PATIENCE_BYTES:
                break
        return self._array_by_its_name(bytes(held))

    def _array_by_its_name(self, held: bytes) -> bytes:
        """What is behind the first array of the right name, where what precedes it is no JSON.

        Raises UsageError when there is none, or when the file is JSON and has no such array.
        """
        is_json = _is_json(held)
        match = None if is_json or not held.lstrip().startswith(b"{") else _ARRAY.search(held)
        if match is not None and _EVENT.match(held, match.end()):
            self.lost["head"] += 1
            return held[match.end() :]
        kind = "JSON without a list of trace events" if is_json else "no readable JSON trace"
        raise UsageError(
            f"{self._name} is {kind}; give a file that torch.profiler's export_chrome_trace wrote"
        )

    def _close_array(self) -> None:
        if self._after is None:
            self.ends_early = True
            return
        if self._listed:
            return
        rest = self._after + b"".join(self._blocks)
        meta = _object(b"{" + rest.lstrip().removeprefix(b","))
        if meta is None:
            self.lost["metadata"] += 1
        else:
            self.meta = {**meta, **self.meta}

    # One piece of the array

    def _cut(self, held: bytes, block: bytes) -> tuple[bytes | None, bytes]:
        """(the events up to the last that seems complete, as a list; what follows them).

        (None, …) when there is no boundary. Looks at the end first, and copies the text once.
        """
        window = 1 << 13
        while True:
            last = None
            for match in _BETWEEN.finditer(block, max(0, len(block) - window)):
                last = match
            if last is not None:
                parts = (b"[", held, memoryview(block)[: last.start() + 1], b"]")
                return b"".join(parts), block[last.end() :]
            if window >= len(block):
                return self._cut(b"", held + block) if held else (None, block)
            window *= 8

    def _piece(self, text: bytes, rest: bytes, patient: bool) -> tuple[list[Event], bytes] | None:
        """(events, bytes to go on with) of a list's text; None if it was cut within an event."""
        for mend in (False, True):
            tried = _mended(text[1:-1]) if mend else text
            try:
                found = self._decode(tried, rest) if tried is not None else None
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                # The bracket that was put behind it closed a list inside of an event.
                if patient and "truncated" in str(error):
                    return None
                continue
            if found is not None:
                self.lost["mended"] += mend
                return found, rest
        return self._one_by_one(text[1:-1], rest)

    def _last(self, piece: bytes) -> list[Event]:
        found = self._piece(b"[" + piece + b"]", b"", patient=False)
        if found is None or not found[1]:
            return found[0] if found else []
        if self._after is None and found[1].strip(b", \t\r\n"):
            self.lost["cut"] += 1
        return found[0]

    def _decode(self, text: bytes, following: bytes) -> list[Event]:
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError as error:
            trailing = _TRAILING.search(str(error))
            if trailing is None:
                raise
            end = int(trailing[1]) - 1  # the message counts from one
            found = self._decoder.decode(text[:end])
            self._after = text[end:-1] + (b"," + following if following else b"")
            return found

    def _one_by_one(self, piece: bytes, rest: bytes) -> tuple[list[Event], bytes]:
        """Every event that can be read of a piece that does not decode as a whole.

        What cannot be read to the end of the piece is returned to be looked at once more.
        """
        text = piece.decode("utf-8", "replace")
        if _MAYBE_NO_NUMBER.search(text):  # the substitution looks at every string: seldom needed
            text = _STRING_OR_NO_NUMBER.sub(_quoted, text)
        found: list[Event] = []
        at = 0
        while True:
            at = _GAP.match(text, at).end()  # type: ignore[union-attr]
            if at == len(text):
                return found, rest
            if text[at] == "]":
                self._after = _bytes(text[at + 1 :]) + (b"," + rest if rest else b"")
                return found, b""
            try:
                value, at = _LENIENT.raw_decode(text, at)
            except (ValueError, RecursionError):
                following = _next_event(text, at)
                if following is None:
                    return found, _bytes(text[at:]) + (b"," + rest if rest else b"")
                self.lost["unreadable"] += 1
                at = following
                continue
            event = _coerced(value)
            if event is None:
                self.lost["unreadable"] += 1
            else:
                found.append(event)


def _mended(piece: bytes) -> bytes | None:
    """The list of a piece's events with what commonly breaks JSON made harmless, None if nothing.

    The quotes that are put around a NaN break the JSON if that stood within a string, so a mended
    piece that decodes was mended in the right places only.
    """
    mended = _CONTROL.sub(lambda m: b"\\u%04x" % m[0][0], piece).translate(_SPACES)
    mended = _NO_NUMBER.sub(rb'\1"\2"', mended)
    try:
        mended.decode("utf-8")
    except UnicodeDecodeError:
        mended = mended.decode("utf-8", "replace").encode()
    return b"[" + mended + b"]" if mended != piece else None


def _next_event(text: str, at: int) -> int | None:
    """Where to go on behind what cannot be read: the next event that begins.

    Behind an event that is broken that is the one after it, for its arguments may look like an
    event; behind rubbish between two events it is the one that follows.
    """
    if _EVENT_TEXT.match(text, at):
        boundary = _BETWEEN_TEXT.search(text, at)
        return None if boundary is None else boundary.end()
    begins = _EVENT_TEXT.search(text, at + 1)
    return None if begins is None else begins.start()


def _bytes(text: str) -> bytes:
    """UTF-8 of what a lenient reader has read: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace")


def _quoted(match: re.Match[str]) -> str:
    """A NaN in quotes; a string as it is."""
    return match[0] if match[0].startswith('"') else f'"{match[0]}"'


def _coerced(found: Any) -> Event | None:
    """An event of the fields that have the right type, the others unknown; None if it is none."""
    if not isinstance(found, dict) or not isinstance(found.get("ph"), str):
        return None
    args = found.get("args")
    known: dict[str, Any] = {}
    for key, value in (args if isinstance(args, dict) else {}).items():
        field = _ARGUMENT_FIELDS.get(key)
        if field is None or isinstance(value, bool):
            continue
        if isinstance(value, int) or (isinstance(value, str) and field in _OR_TEXT):
            known[field] = value
    ids = {
        key: value if isinstance(value, int | str) and not isinstance(value, bool) else None
        for key in ("pid", "tid")
        for value in [found.get(key)]
    }
    return Event(
        ph=found["ph"],
        name=str(found.get("name", "")),
        cat=str(found.get("cat", "")),
        ts=msgspec.Raw(_bytes(str(found.get("ts", "")))),
        dur=msgspec.Raw(_bytes(str(found.get("dur", "")))),
        args=Arguments(**known),
        **ids,
    )


_ARGUMENT_FIELDS = {f.encode_name: f.name for f in msgspec.structs.fields(Arguments)}
_OR_TEXT = frozenset({"device", "stream", "external", "external_2021"})


def _object(text: bytes) -> dict[str, Any] | None:
    """A JSON object read strictly or, if it only has odd characters or numbers, leniently."""
    for load in (
        msgspec.json.decode,
        lambda t: json.loads(t.decode("utf-8", "replace"), strict=False),
    ):
        try:
            found = load(text)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            continue
        return found if isinstance(found, dict) else None
    return None


def _is_json(text: bytes) -> bool:
    return text.lstrip()[:1] == b"{" and _object(text) is not None


def cautions(stream: EventStream, events: int, damage: str | None) -> list[Caution]:
    """What the reader of the file should know about how it was read."""
    found = []
    cut = stream.lost["cut"]
    if damage or stream.ends_early:
        why = damage or "it ends early"
        lost = ", the last one is cut off" if cut else ""
        found.append(
            Caution(
                "truncated", max(cut, 1), f"{why}: {events} events before that are intact{lost}"
            )
        )
    elif cut:
        found.append(Caution("unreadable", cut, f"{cut} events are no readable JSON"))
    broken = stream.lost["unreadable"]
    if broken:
        found.append(Caution("unreadable", broken, f"{broken} events are no readable JSON"))
    if stream.lost["mended"]:
        count = stream.lost["mended"]
        found.append(
            Caution(
                "mended", count,
                f"{count} pieces of the file held control characters, NaN, inf or text that is not "
                "UTF-8; they were read with those made harmless",
            )
        )  # fmt: skip
    if stream.lost["head"]:
        found.append(Caution("metadata", 1, "what precedes the events is not readable"))
    if stream.lost["metadata"]:
        found.append(Caution("metadata", 1, "what follows the events is not readable"))
    return found
