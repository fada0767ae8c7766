"""How does one get a large Nsight Systems export? Writes one with the tables of real exports.

    python tests/benchmarks/generate_nsys.py 1000000 out.sqlite [--seed 1]

For every kernel there is the call that launched it; copies and NVTX ranges come between. Tables
have all the columns of real exports, because skipping those that are not needed costs time too.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_NS = 36_699_783_646
PROCESS = 0x1257A << 24
DEVICES, STREAMS = 2, (7, 15)
KERNELS_PER_RANGE, KERNELS_PER_COPY = 40, 50
KERNEL_COLUMNS = (
    "start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL, contextId INTEGER "
    "NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER, globalPid "
    "INTEGER, demangledName INTEGER NOT NULL, shortName INTEGER NOT NULL, mangledName INTEGER, "
    "launchType INTEGER, cacheConfig INTEGER, registersPerThread INTEGER NOT NULL, gridX INTEGER "
    "NOT NULL, gridY INTEGER NOT NULL, gridZ INTEGER NOT NULL, blockX INTEGER NOT NULL, blockY "
    "INTEGER NOT NULL, blockZ INTEGER NOT NULL, staticSharedMemory INTEGER NOT NULL, "
    "dynamicSharedMemory INTEGER NOT NULL, localMemoryPerThread INTEGER NOT NULL, localMemoryTotal "
    "INTEGER NOT NULL, gridId INTEGER NOT NULL, sharedMemoryExecuted INTEGER, graphNodeId INTEGER, "
    "sharedMemoryLimitConfig INTEGER"
)
COPY_COLUMNS = (
    "start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL, contextId INTEGER "
    "NOT NULL, greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER, globalPid "
    "INTEGER, bytes INTEGER NOT NULL, copyKind INTEGER NOT NULL, srcKind INTEGER, dstKind INTEGER, "
    "graphNodeId INTEGER"
)
CALL_COLUMNS = (
    "start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER NOT NULL, globalTid INTEGER, "
    "correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL, callchainId "
    "INTEGER"
)
NVTX_COLUMNS = (
    "start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER, category "
    "INTEGER, color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER, textId INTEGER, "
    "domainId INTEGER"
)
KERNEL_TABLE, COPY_TABLE = "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_MEMCPY"
CALL_TABLE = "CUPTI_ACTIVITY_KIND_RUNTIME"
LAUNCH, COPY_CALL, SYNCHRONISE, FIRST_KERNEL, NAMES = 1, 2, 3, 10, 150


def rows(kernels: int, seed: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(table, row) in the order of time."""
    random_ = random.Random(seed)
    host = START_NS
    device = [START_NS] * (DEVICES * len(STREAMS))
    thread, correlation, began = PROCESS | 0x257A, 0, host
    for number in range(kernels):
        correlation += 1
        at = random_.randrange(len(device)) if number % 7 == 0 else 0
        gpu, stream = divmod(at, len(STREAMS))
        call = random_.randrange(2_000, 9_000)
        yield CALL_TABLE, (host, host + call, 0, thread, correlation, LAUNCH, 0, None)
        begin = max(device[at] + random_.randrange(900), host + call)
        device[at] = begin + random_.randrange(1_000, 90_000)
        where = (gpu, 1, 0, STREAMS[stream], correlation, PROCESS)
        name = FIRST_KERNEL + random_.randrange(NAMES)
        shape = (1, 1, 40, random_.randrange(1, 4096), 1, 1, 128, 1, 1, 0, 0, 0, 205258752)
        yield (
            KERNEL_TABLE,
            (begin, device[at], *where, name, name + NAMES, name, *shape, number, 32768, None, 0),
        )
        host += call + random_.randrange(500, 4_000)
        if number % KERNELS_PER_COPY == 0:
            correlation += 1
            yield CALL_TABLE, (host, host + 9_000, 0, thread, correlation, COPY_CALL, 0, None)
            host += 10_000
            begin, device[0] = max(device[0], host), max(device[0], host) + 12_000
            where = (0, 1, 0, STREAMS[0], correlation, PROCESS)
            yield COPY_TABLE, (begin, device[0], *where, 1 << 20, 1, 0, 2, None)
        if number % KERNELS_PER_RANGE == KERNELS_PER_RANGE - 1:
            correlation += 1
            wait = max(max(device) - host, 0) + 4_000
            yield CALL_TABLE, (host, host + wait, 0, thread, correlation, SYNCHRONISE, 0, None)
            host += wait
            text = f"layer {number // KERNELS_PER_RANGE % 64}"
            yield (
                "NVTX_EVENTS",
                (began, host, 59, None, None, None, text, thread, None, None, 0),
            )
            began = host


def write_export(path: Path, kernels: int, seed: int = 1) -> None:
    """Write a database with `kernels` kernels and what belongs to them."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("BEGIN")
    widths: dict[str, int] = {}
    for table, columns in (
        (KERNEL_TABLE, KERNEL_COLUMNS),
        (COPY_TABLE, COPY_COLUMNS),
        (CALL_TABLE, CALL_COLUMNS),
        ("NVTX_EVENTS", NVTX_COLUMNS),
        ("StringIds", "id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL"),
        ("META_DATA_EXPORT", "name TEXT, value TEXT"),
        ("TARGET_INFO_GPU", "id INTEGER, name TEXT, smCount INTEGER"),
    ):
        database.execute(f"CREATE TABLE {table} ({columns})")
        widths[table] = columns.count(",") + 1
    texts = [(1, "cudaLaunchKernel_v7000"), (2, "cudaMemcpyAsync_v3020")]
    texts += [(SYNCHRONISE, "cudaStreamSynchronize_v3020")]
    for number in range(NAMES):
        full = f"void at::native::vectorized_elementwise_kernel<4, Functor{number}<float>>(int)"
        texts += [(FIRST_KERNEL + number, full), (FIRST_KERNEL + NAMES + number, f"k{number}")]
    database.executemany("INSERT INTO StringIds VALUES (?, ?)", texts)
    database.execute("INSERT INTO META_DATA_EXPORT VALUES ('EXPORT_SCHEMA_VERSION', '3.11.0')")
    gpus = [(number, "NVIDIA H100 80GB HBM3", 132) for number in range(DEVICES)]
    database.executemany("INSERT INTO TARGET_INFO_GPU VALUES (?, ?, ?)", gpus)
    held: dict[str, list[tuple[Any, ...]]] = {}
    for table, row in rows(kernels, seed):
        batch = held.setdefault(table, [])
        batch.append(row)
        if len(batch) == 10_000:
            _insert(database, table, widths[table], batch)
            batch.clear()
    for table, batch in held.items():
        _insert(database, table, widths[table], batch)
    database.execute("COMMIT")
    database.close()


def _insert(
    database: sqlite3.Connection, table: str, width: int, batch: list[tuple[Any, ...]]
) -> None:
    database.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * width)})", batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kernels", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.out.unlink(missing_ok=True)
    write_export(given.out, given.kernels, given.seed)


if __name__ == "__main__":
    main()
