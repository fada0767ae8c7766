"""How many events per second does the allocator's model take? In seconds of this process's CPU.

    python tests/benchmarks/bench_allocator.py [SNAPSHOT …] [--events 300000] [--rounds 5]

Streams: "layers" (what a model's forward does: nested lives, few sizes), "mixed" (random sizes and
lives, a few hundred blocks at a time), and the history of each recorded snapshot, again and again.
An event is one entry of the history that the model writes (alloc, free_requested, free_completed,
segment_*), a call one malloc or free. Not a test: nothing here passes or fails. CPU seconds, not
wall seconds, because the machine may be shared; the best of the rounds, because other work on a
shared core only ever adds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

from common.allocator.driver import SimulatedDriver
from common.allocator.layer_stack import Stack, forward
from common.allocator.model import CachingAllocator
from common.allocator.steps import release, run
from common.allocator.validate import validate
from common.traces.memory_snapshot import read_memory_snapshot

KIB, MIB = 1 << 10, 1 << 20
SIZES = (512, 4 * KIB, 60_000, 512 * KIB, 3 * MIB, 12 * MIB, 40 * MIB)


def layers(calls: int, recording: bool) -> CachingAllocator:
    allocator = _made(recording)
    stack = Stack(layers=32)
    done, batch = 0, 1
    while done < calls:
        release(run(forward(stack, batch, "streamed"), allocator), allocator)
        done += 4 * stack.layers + 4
        batch = batch % 512 + 7
    return allocator


def mixed(calls: int, recording: bool) -> CachingAllocator:
    allocator, chosen = _made(recording), random.Random(1)
    sizes = [chosen.choice(SIZES) for _ in range(calls // 2)]
    picks = [chosen.randrange(300) for _ in sizes]
    live: list[int] = []
    for size, pick in zip(sizes, picks, strict=True):
        live.append(allocator.malloc(size))
        if len(live) > 300:
            allocator.free(live.pop(pick))
    for address in live:
        allocator.free(address)
    return allocator


def _made(recording: bool) -> CachingAllocator:
    return CachingAllocator(SimulatedDriver(1 << 40), max_entries=None if recording else 0)


def best(rounds: int, work: Callable[[], object]) -> float:
    """The least CPU seconds of the rounds."""
    costs: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        costs.append(time.process_time() - start)
    return min(costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("snapshots", nargs="*", type=Path)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(
        f"{'stream':34} {'events':>8} {'CPU s':>7} {'events/s':>9} {'calls/s':>9} "
        f"{'silent calls/s':>14}"
    )
    for name, stream in (("layers", layers), ("mixed", mixed)):
        calls = given.events * 2 // 3
        events = len(stream(calls, True).history)
        cost = best(given.rounds, lambda s=stream, n=calls: s(n, True))  # type: ignore[misc]
        silent = best(given.rounds, lambda s=stream, n=calls: s(n, False))  # type: ignore[misc]
        print(
            f"{name:34} {events:8} {cost:7.3f} {events / cost:9.0f} {calls / cost:9.0f} "
            f"{calls / silent:14.0f}"
        )
    for path in given.snapshots:
        snapshot = read_memory_snapshot(path)
        events = sum(len(rows) for rows in snapshot.events.values())
        cost = best(given.rounds, lambda s=snapshot: validate(s))  # type: ignore[misc]
        print(f"validate {path.name:25} {events:8} {cost:7.3f} {events / cost:9.0f}")


if __name__ == "__main__":
    main()
