"""How noisy is a pair of equal workers on a real machine? Records the A/A series beside this file.

Two worker processes run the same bf16 matrix-vector products over 75 MB of weights each (larger
than the machine's last-level cache, as in batch-1 decoding), one at a time, in a shuffled order
within each round. Neither is changed: whatever differs between their times is drift, interference
and page placement. Each pair of processes is new, because placement differs from one to the next
and stays for a process's life. A third process makes background load in some of the conditions.

    python tests/data/drift/record.py --out DIR [--only CONDITION]
"""

from __future__ import annotations

import argparse
import gc
import gzip
import mmap
import multiprocessing as mp
import os
import random
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

LAYERS = 4
IN_FEATURES = 4096
OUT_FEATURES = 2304  # 4 x 2304 x 4096 x 2 bytes = 75.5 MB
PASSES = 2  # one sample reads 151 MB
WARM_UP = 20
HEADER = "pair,round,a_first,a_ns,b_ns"


@dataclass(frozen=True)
class Condition:
    """One file: how many threads each worker has, what runs beside them, and how much of it."""

    name: str
    threads: int
    load: str | None  # None: nothing of ours; else a kind that `background` knows
    pairs: int = 5  # of processes, each pair new
    rounds: int = 600  # for each pair
    renew_every: int = 2  # rounds between two moves of the weights to fresh pages; 0: never


CONDITIONS = (
    Condition("quiet_1_thread", 1, None),
    Condition("bursts_1_thread", 1, "bursts"),
    Condition("quiet_2_threads", 2, None),
    Condition("shared_1_thread", 1, None, rounds=440),  # with other work on both cores
    Condition("kept_pages_1_thread", 1, None, pairs=10, rounds=120, renew_every=0),
)


def worker(pipe: Connection, threads: int) -> None:
    """Times one repetition for each request and answers with its duration in ns."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)

    def in_fresh_pages(weight: torch.Tensor) -> torch.Tensor:
        # An anonymous mapping of its own: the allocator would hand freed memory straight back.
        size_bytes = weight.numel() * weight.element_size()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        pages = mmap.mmap(-1, size_bytes, flags=flags)
        return torch.frombuffer(pages, dtype=torch.bfloat16).view_as(weight).copy_(weight)

    weights = [
        in_fresh_pages(
            torch.randn(OUT_FEATURES, IN_FEATURES, generator=generator).to(torch.bfloat16)
        )
        for _ in range(LAYERS)
    ]
    x = torch.randn(1, IN_FEATURES, generator=generator).to(torch.bfloat16)
    gc.disable()
    with torch.inference_mode():
        while (request := pipe.recv()) != "end":
            if request == "renew":
                # All new before any old is freed, so that none gets its own pages back.
                weights = [in_fresh_pages(weight) for weight in weights]
                for weight in weights:
                    F.linear(x, weight)
                pipe.send(0)
                continue
            start = time.perf_counter_ns()
            for weight in weights * PASSES:
                F.linear(x, weight)
            pipe.send(time.perf_counter_ns() - start)


def background(kind: str, seed: int) -> None:
    """Streams over 64 MB until it is ended: in random bursts, or periodically."""
    import numpy as np

    rng = random.Random(seed)
    block = np.ones(8_000_000)
    while True:
        busy_s = {"bursts": rng.expovariate(1 / 0.4), "periodic": 0.05}[kind]
        idle_s = {"bursts": rng.expovariate(1 / 0.8), "periodic": 0.20}[kind]
        end = time.perf_counter() + busy_s
        while time.perf_counter() < end:
            block *= 1.0
        time.sleep(idle_s)


def record_pair(pair: int, condition: Condition, seed: int) -> list[str]:
    """One pair of fresh processes: CSV lines, one for each round."""
    # The default is to spin: a worker that waits would take a core from the one that is timed.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    context = mp.get_context("spawn")
    rng = random.Random(seed)
    processes, pipes = [], []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=worker, args=(theirs, condition.threads), daemon=True)
        process.start()
        processes.append(process)
        pipes.append(ours)
    load = None
    if condition.load is not None:
        load = context.Process(target=background, args=(condition.load, seed), daemon=True)
        load.start()

    def ask(side: int, request: str) -> int:
        pipes[side].send(request)
        return int(pipes[side].recv())

    try:
        for _ in range(WARM_UP):
            ask(0, "time"), ask(1, "time")
        lines = []
        for number in range(condition.rounds):
            a_first = rng.random() < 0.5
            order = (0, 1) if a_first else (1, 0)
            if condition.renew_every and number % condition.renew_every == 0:
                # In the round's order: the side that is renewed last finds its weights cached, and
                # were that always the same one, it would be about 1 % faster.
                for side in order:
                    ask(side, "renew")
            took = {side: ask(side, "time") for side in order}
            lines.append(f"{pair},{number},{int(a_first)},{took[0]},{took[1]}")
    finally:
        for pipe in pipes:
            pipe.send("end")
        for process in processes:
            process.join(timeout=10)
        if load is not None:
            load.terminate()
            load.join()
    return lines


def main() -> None:
    """Writes one gzipped CSV file for each condition."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--only", action="append", help="name of a condition (may be repeated)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [c for c in CONDITIONS if arguments.only is None or c.name in arguments.only]
    for condition in chosen:
        lines = [HEADER]
        for pair in range(condition.pairs):
            seed = arguments.seed * 1000 + pair
            lines += record_pair(pair, condition, seed)
        text = "\n".join(lines) + "\n"
        path = arguments.out / f"{condition.name}.csv.gz"
        # No name and no time in the header: recording the same numbers gives the same bytes.
        with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
            packed.write(text.encode())
        print(f"{condition.name}: {len(lines) - 1} rounds, {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()
