"""How does one get a large memory snapshot? Writes one as torch 2.13 would after a long service.

    python tests/benchmarks/generate_snapshot.py 1000000 out.pickle [--side b] [--seed 1]

The program loads weights, captures graphs (four into one shared pool, each of them a phase of its
own; one into a pool of its own) and then serves: prefill and decode steps on two streams of the
default pool, some blocks used on the other stream too, a few kept. Addresses and segments are those
of the allocator's model. Stacks are shared as in real files: one list of frames per allocation and
one per freed block (its two events share it), of a few hundred distinct frames in 200 distinct
stacks, most of them C++; `--depth` is their mean length (the real files that tests read have 11 to
66). Side b is the same program with a larger context: other blocks lie at its peak.
"""

from __future__ import annotations

import argparse
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.allocator.blocks import Frames
from common.allocator.driver import SimulatedDriver
from common.allocator.graphs import Graph, PoolIds
from common.allocator.model import CachingAllocator
from common.allocator.segments import TraceEntry
from common.allocator.snapshot_file import Annotation, snapshot

KIB, MIB = 1 << 10, 1 << 20
START_US = 1_783_874_495_913_271
STACKS, SITES, LAYERS, SIDE_STREAM, CAPTURE_STREAM = 200, 60, 32, 7, 9
CAPTURED_BATCHES = (8, 4, 2, 1)
Frame = dict[str, Any]


def stacks_of(seed: int, depth: int) -> list[tuple[Frame, ...]]:
    """Distinct stacks, innermost frame first: gathering, C++, an operator, Python, interpreter."""
    random_ = random.Random(seed)
    head = [_cpp(name) for name in ("torch::unwind::unwind()", "torch::CapturedTraceback::gather")]
    inner = [_cpp(f"at::native::kernel_{number}(at::Tensor const&)") for number in range(90)]
    python = [
        {"name": f"forward_{number}", "filename": f"/home/user/model/layer_{number % 9}.py",
         "line": 10 + number}
        for number in range(SITES)
    ]  # fmt: skip
    module = {
        "name": "_call_impl",
        "filename": "/usr/lib/python3.11/site-packages/torch/nn/modules/module.py",
        "line": 1786,
    }
    loop = [_cpp(name) for name in ("_PyEval_EvalFrameDefault", "_PyFunction_Vectorcall", "??")]
    found = []
    for number in range(STACKS):
        length = max(8, int(random_.gauss(depth, depth / 4)))
        operator = _cpp(f"at::_ops::operator_{number % 40}::call(at::Tensor const&)")
        body = [*random_.sample(inner, k=min(len(inner), length // 3)), operator]
        user = [python[(number + step) % SITES] for step in range(1 + length // 8)]
        rest = [frame for own in user for frame in (own, module, *loop)]
        fill = [loop[at % len(loop)] for at in range(max(0, length - 2 - len(body) - len(rest)))]
        found.append((*head, *body, *rest, *fill))
    return found


def _cpp(name: str) -> Frame:
    return {"name": name, "filename": "??", "line": 0}


class _Service:
    """The program; `allocator.history` is what it did."""

    def __init__(self, seed: int, context: int) -> None:
        self.allocator = CachingAllocator(SimulatedDriver(1 << 42))
        self.random = random.Random(seed)
        self.context = context
        self.kept: list[int] = []
        self.annotations: list[Annotation] = []

    def run(self, events: int) -> None:
        self._load()
        self._capture()
        while len(self.allocator.history) < events:
            self._step()

    def _take(self, size: int, stream: int = 0) -> int:
        # The model keeps whatever it is given as frames: here the number of the stack.
        mark: Frames = ({"stack": self.random.randrange(STACKS)},)
        return self.allocator.malloc(size, stream, mark)

    def _load(self) -> None:
        self.allocator.metadata = "load"
        for _ in range(LAYERS):
            for size in (16 * MIB, 4 * MIB, 56 * MIB, 8 * KIB):
                self._take(size)

    def _capture(self) -> None:
        ids = PoolIds()
        shared = ids.handle()
        for batch in CAPTURED_BATCHES:
            self.allocator.metadata = f"capture {batch}"
            with Graph(self.allocator, ids).capture(CAPTURE_STREAM, shared):
                self._forward(batch, CAPTURE_STREAM)
        self.allocator.metadata = "capture alone"
        with Graph(self.allocator, ids).capture(CAPTURE_STREAM):
            self._forward(16, CAPTURE_STREAM)

    def _step(self) -> None:
        long = self.random.random() < 0.1
        name = "prefill" if long else "decode"
        self._mark(name, "START")
        self.allocator.metadata = name if long else ""
        self._forward(self.context if long else self.random.randrange(1, 33), 0)
        self._mark(name, "END")
        self.allocator.finish_stream(SIDE_STREAM)
        if self.random.random() < 0.3:
            self.kept.append(self._take(self.random.choice((512, 300 * KIB, 3 * MIB))))
        if len(self.kept) > 200:
            self.allocator.free(self.kept.pop(self.random.randrange(200)))

    def _mark(self, name: str, stage: str) -> None:
        self.annotations.append((0, START_US + 3 * self.allocator.clock_us, name, stage))

    def _forward(self, tokens: int, stream: int) -> None:
        allocator = self.allocator
        hidden = self._take(tokens * 8 * KIB, stream)
        for _ in range(LAYERS):
            normal = self._take(tokens * 8 * KIB, stream)
            wide = self._take(tokens * 28 * KIB, stream)
            scratch = self._take(self.random.choice((512, 1024, 40 * KIB)), stream)
            if not stream and self.random.random() < 0.05:
                other = self._take(2 * MIB, SIDE_STREAM)
                allocator.record_stream(other, 0)
                allocator.free(other)
            allocator.free(normal)
            out = self._take(tokens * 8 * KIB, stream)
            for address in (wide, scratch, hidden):
                allocator.free(address)
            hidden = out
        allocator.finish_stream(0)
        allocator.free(hidden)


def _stack_number(frames: object) -> int:
    return frames[0]["stack"] if isinstance(frames, tuple) and frames else -1


def _copied(text: str) -> str:
    return text[:1] + text[1:]


def _rows(history: list[TraceEntry], stacks: list[tuple[Frame, ...]]) -> Iterator[dict[str, Any]]:
    """The history as the file has it: the two events of a freed block share one list of frames."""
    freed: dict[int, list[Frame]] = {}
    for action, address, size, stream, pool, time, frames, metadata in history:
        number = _stack_number(frames)
        row: dict[str, Any] = {
            "action": action, "addr": address, "size": size, "stream": stream,
            "time_us": START_US + 3 * time,
            # Texts that C++ made anew for each event, so that a pickle holds each of them.
            "compile_context": _copied("N/A"), "user_metadata": _copied(metadata),
            "pool_id": (pool[0], pool[1]),
        }  # fmt: skip
        if number >= 0:
            if action == "free_completed" and address in freed:
                row["frames"] = freed.pop(address)
            else:
                at = number if action == "alloc" else (number * 7 + 1) % len(stacks)
                row["frames"] = list(stacks[at])
                if action == "free_requested":
                    freed[address] = row["frames"]
        yield row


def write_snapshot(
    path: Path, events: int, side: str = "a", seed: int = 1, depth: int = 32
) -> dict[str, int]:
    """Write a snapshot with `events` events; returns what it holds."""
    service = _Service(seed, context=512 if side == "a" else 768)
    service.run(events)
    stacks = stacks_of(seed, depth)
    history = list(service.allocator.history)
    service.allocator.history.clear()
    value = snapshot(service.allocator, annotations=service.annotations)
    for segment in value["segments"]:
        for held in (segment, *segment["blocks"]):
            number = _stack_number(tuple(held["frames"]))
            held["frames"] = list(stacks[number]) if number >= 0 else []
    value["device_traces"] = [list(_rows(history, stacks))]
    with path.open("wb") as stream:
        pickle.dump(value, stream, protocol=4)
    pools = {tuple(row["segment_pool_id"]) for row in value["segments"]}
    return {
        "events": len(history),
        "segments": len(value["segments"]),
        "pools": len(pools),
        "bytes": path.stat().st_size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("events", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--side", choices=("a", "b"), default="a")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--depth", type=int, default=32, help="mean number of frames of a stack")
    given = parser.parse_args()
    found = write_snapshot(given.path, given.events, given.side, given.seed, given.depth)
    print(", ".join(f"{count} {name}" for name, count in found.items()))


if __name__ == "__main__":
    main()
