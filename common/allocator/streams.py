"""When is a block that several streams used free again? Events, and captures that forbid them."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque

from common.allocator.blocks import Block, Pool, PoolId
from common.allocator.capture_order import CaptureOrder, Node
from common.allocator.driver import Driver
from common.allocator.expandable import ExpandableStore
from common.allocator.settings import Settings
from common.errors import UsageError


class StreamStore(ExpandableStore):
    """`ExpandableStore` that also knows which streams use a block.

    How far the GPU has come is not modelled: `finish_stream` says so.
    """

    def __init__(
        self,
        driver: Driver,
        settings: Settings | None = None,
        device: int = 0,
        max_entries: int | None = None,
    ) -> None:
        super().__init__(driver, settings, device, max_entries)
        # Pool and streams of each capture that is underway; None: whatever stream.
        self.captures: list[tuple[PoolId, set[int] | None]] = []
        self.order = CaptureOrder()
        self._queues: dict[int, deque[tuple[int, Block]]] = {}  # cuda_events
        self._deferred: dict[int, tuple[Block, Node | None]] = {}  # deferred_blocks
        self._captured_uses: dict[int, set[int]] = {}  # block_to_cudagraph_stream_uses
        self._ticket = 0
        self._finished: dict[int, int] = {}

    def record_stream(self, address: int, stream: int) -> None:
        """The program also uses the block on `stream`: its memory is not free before that is done.

        Models `CUDACachingAllocator.cpp: recordStream`.
        """
        block = self.live.get(address)
        if block is None:
            raise UsageError(f"no block at {address:#x} is in use; pass what malloc returned")
        if stream == block.home.stream:
            return
        if block.stream_uses is None:
            block.stream_uses = set()
        block.stream_uses.add(stream)
        if self.captures:
            self._captured_uses.setdefault(id(block), set()).add(stream)

    def finish_stream(self, stream: int) -> None:
        """The GPU has done all that was given to `stream` so far (its events report success)."""
        self._finished[stream] = self._ticket

    def launch(self, stream: int) -> None:
        """A kernel on a stream. Only graph_capture_record_stream_reuse asks for their order."""
        if self._captures_stream(stream):
            self.order.launch(stream)

    def wait(self, stream: int, on: int) -> None:
        """`stream` waits for an event of the stream `on`; within a capture it joins the capture."""
        for _, streams in self.captures:
            if streams is not None and on in streams:
                streams.add(stream)
                self.order.wait(stream, on)

    def _captures_stream(self, stream: int) -> bool:
        return any(streams is None or stream in streams for _, streams in self.captures)

    @abstractmethod
    def _free_block(self, block: Block) -> None:
        """Put a block back into its pool, now that no stream uses it (model.py)."""

    def _wait_for_streams(self, block: Block) -> None:
        """Free later. Models the end of `CUDACachingAllocator.cpp: free`: events outside a capture;
        within one they are forbidden, so the block waits for the end of all captures, or with
        graph_capture_record_stream_reuse until the graph's order says that it is safe.
        """
        self.waiting[id(block)] = block
        if not self.captures:
            self._insert_events(block)
            return
        marks: Node | None = None
        if self.settings.graph_capture_record_stream_reuse:
            streams = [block.home.stream, *sorted(block.stream_uses or ())]
            if all(self._captures_stream(stream) for stream in streams):
                marks = self.order.mark(streams)
        self._deferred[id(block)] = (block, marks)

    def _insert_events(self, block: Block) -> None:
        """One event on each stream that uses the block. Models `insert_events`."""
        uses, block.stream_uses = block.stream_uses or set(), None
        for stream in sorted(uses):
            self._ticket += 1
            block.events += 1
            self._queues.setdefault(stream, deque()).append((self._ticket, block))

    def insert_deferred_events(self) -> None:
        """After the captures: events for the uses outside them; those within are surely over.

        Models `insert_events_deferred_until_no_capture` and `remove_cudagraph_stream_uses`.
        """
        deferred, self._deferred = self._deferred, {}
        for block, _ in deferred.values():
            captured = self._captured_uses.pop(id(block), set())
            block.stream_uses = (block.stream_uses or set()) - captured
            self._insert_events(block)
            if block.events == 0:
                self._free_block(block)

    def _process_events(self) -> None:
        """Free what streams are done with, first come first served per stream.

        Models `CUDACachingAllocator.cpp: process_events`.
        """
        self.insert_deferred_events()
        for stream in list(self._queues):
            queue, finished = self._queues[stream], self._finished.get(stream, 0)
            while queue and queue[0][0] <= finished:
                self._end_event(queue.popleft()[1])
            if not queue:
                del self._queues[stream]

    def _synchronise(self, pool: Pool | None = None) -> None:
        """Wait for all events (of one pool). Models `synchronize_and_free_events`."""
        self.synchronised += 1
        self.insert_deferred_events()
        for stream in list(self._queues):
            kept: deque[tuple[int, Block]] = deque()
            for ticket, block in self._queues[stream]:
                if pool is not None and block.home.pool is not pool:
                    kept.append((ticket, block))
                else:
                    self._end_event(block)
            self._queues[stream] = kept
            if not kept:
                del self._queues[stream]

    def _end_event(self, block: Block) -> None:
        block.events -= 1
        if block.events == 0:
            self._free_block(block)

    def _free_safe_blocks(self, stream: int) -> None:
        """Within a capture, what the graph's order makes safe to use again on `stream`.

        Models `CUDACachingAllocator.cpp: free_safe_blocks_in_capture`.
        """
        for key, (block, marks) in list(self._deferred.items()):
            if marks and block.home.stream == stream and self.order.after(stream, marks):
                del self._deferred[key]
                block.stream_uses = None
                self._free_block(block)
