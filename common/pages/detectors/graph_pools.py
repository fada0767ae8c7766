"""Do CUDA graphs' private pools hold memory that nothing uses? (cuda_graph_memory)

Two marks in a memory snapshot. Pools of their own: every graph keeps the temporaries of its
capture, though graphs that are replayed one after the other could share the largest. A pool that
holds more than everything else: large temporaries (weights that were dequantised all at once) are
kept for the life of the graph.
"""

from __future__ import annotations

from common.pages.detectors.signature import Fact, Signature, share
from common.traces.memory_model import Holdings, pool_kind
from common.traces.memory_snapshot import MemorySnapshot

PROBLEM = "cuda_graph_memory"
WORKLOG = "problems/cuda_graph_memory/WORKLOG.md"
PRIVATE = ("private pool", "graph pool")
# Of all reserved memory; below it sharing pools is not worth anybody's time.
AVOIDABLE_SHARE = 0.10
HELD_SHARE = 0.50
SMALLEST_BYTES = 32 << 20  # less is one workspace of cuBLASLt


def find_private_pools(snapshot: MemorySnapshot) -> Signature | None:
    if not snapshot.segments_are_whole:
        return None
    for device in snapshot.devices:
        pools = {
            pool: held
            for pool, held in snapshot.pools(device).items()
            if pool_kind(pool) in PRIVATE and held.retained_bytes > 0
        }
        if pools:
            found = _of_device(snapshot.holdings(device=device), list(pools.values()), device)
            if found is not None:
                return found
    return None


def _of_device(all_pools: Holdings, private: list[Holdings], device: int) -> Signature | None:
    retained = [held.retained_bytes for held in private]
    avoidable, whole = sum(retained) - max(retained), all_pools.reserved_bytes
    facts = (
        Fact("private pools that hold memory", f"{len(private)} on device {device}"),
        Fact("reserved by them", _mib(sum(held.reserved_bytes for held in private))),
        Fact("of it used by no tensor at the dump", f"{_mib(sum(retained))}"),
        Fact("its share of all reserved memory", share(sum(retained), whole)),
    )
    if len(private) > 1 and avoidable >= max(AVOIDABLE_SHARE * whole, SMALLEST_BYTES):
        more = Fact("not needed if they shared one pool", _mib(avoidable))
        says = "each CUDA graph keeps a memory pool of its own for its temporaries"
        look = f"capture with one pool, on one stream, the largest size first; {WORKLOG}"
        return Signature(PROBLEM, "a-pool-per-graph", says, (*facts, more), look)
    if max(retained) >= max(HELD_SHARE * whole, SMALLEST_BYTES):
        says = "a CUDA graph's pool holds more memory than everything else uses"
        look = f"see what was live at the capture's peak: worklog show FILE; {WORKLOG}"
        return Signature(PROBLEM, "a-pool-that-holds-most", says, facts, look)
    return None


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
