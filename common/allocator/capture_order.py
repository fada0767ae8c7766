"""Within a capture: has everything that used a block happened before what comes next on a stream?

A graph's nodes are ordered by their edges only. Here a node is a set of counters, one per stream:
how much of that stream lies before it. A stream's ends are the nodes that its next node will
depend on: one, or several after it was made to wait for another stream.
"""

from __future__ import annotations

from collections.abc import Iterable

Node = dict[int, int]


class CaptureOrder:
    """The order of the nodes captured so far, for graph_capture_record_stream_reuse."""

    def __init__(self) -> None:
        self._ends: dict[int, list[Node]] = {}

    def launch(self, stream: int) -> Node:
        """A node on `stream`: it comes after all ends of the stream and is then its only end."""
        node: Node = {}
        for end in self._ends.get(stream, ()):
            for other, count in end.items():
                node[other] = max(node.get(other, 0), count)
        node[stream] = node.get(stream, 0) + 1
        self._ends[stream] = [node]
        return node

    def wait(self, stream: int, on: int) -> None:
        """What comes next on `stream` comes after what is on the stream `on` now."""
        ends = self._ends.setdefault(stream, [])
        ends.extend(end for end in self._ends.get(on, ()) if end not in ends)

    def mark(self, streams: Iterable[int]) -> Node:
        """An empty node on each stream; all of them together as one set of counters.

        Models `CUDACachingAllocator.cpp: insert_free_marker`.
        """
        return {stream: self.launch(stream)[stream] for stream in streams}

    def after(self, stream: int, marks: Node) -> bool:
        """Whether every end of `stream` comes after every mark.

        Models `CUDACachingAllocator.cpp: get_freeable_empty_nodes`.
        """
        ends = self._ends.get(stream, [])
        return bool(ends) and all(
            end.get(other, 0) >= count for end in ends for other, count in marks.items()
        )
