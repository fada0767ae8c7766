"""How do rows reach the ranks that they are for? All-to-all with uneven splits, in 1 or 2 steps.

`exchange` sends `counts[p]` consecutive rows to each member p of a group and returns what arrived,
in the order of the senders, with the counts. Flat: one exchange among all. Hierarchical: first
within the node to the peer with the receiver's place, then between nodes among those of one place;
fewer and larger messages, every row moves twice. Both return the same rows in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """A process group that this rank is in: its members in order, and this rank's place."""

    handle: dist.ProcessGroup
    members: tuple[int, ...]
    place: int

    @property
    def size(self) -> int:
        return len(self.members)


def make_group(groups: list[list[int]], rank: int, patience: timedelta) -> Group:
    """Make all `groups` (every rank must, in the same order) and return the one with `rank`.

    `patience` is how long a member waits for the others; new groups do not inherit it, and the
    library's own is half an hour.
    """
    mine = None
    for members in groups:
        handle = dist.new_group(members, timeout=patience)
        if rank in members:
            mine = Group(handle, tuple(members), members.index(rank))
    assert mine is not None, "the plan puts every rank into one group"
    return mine


@dataclass(frozen=True)
class Exchange:
    """All-to-all within `whole`; hierarchical where `node` and `across` are given."""

    whole: Group
    node: Group | None = None
    across: Group | None = None

    def __call__(self, rows: Tensor, counts: list[int]) -> tuple[Tensor, list[int]]:
        if self.node is None or self.across is None:
            received = _small(torch.tensor(counts).view(-1, 1), self.whole)[:, 0].tolist()
            return _all_to_all(rows, counts, received, self.whole), received
        return self._in_two_steps(rows, counts)

    def _in_two_steps(self, rows: Tensor, counts: list[int]) -> tuple[Tensor, list[int]]:
        assert self.node and self.across
        nodes, places = self.across.size, self.node.size
        table = torch.tensor(counts).view(nodes, places)  # by the receiver's node and place
        rows = _reorder(rows, table.t())
        inner = _small(table.t().contiguous(), self.node)  # by sender's place and receiver's node
        rows = _all_to_all(rows, table.sum(0).tolist(), inner.sum(1).tolist(), self.node)
        # Sorted by (sender's place, receiver's node); the nodes must be the outer order now.
        rows = _reorder(rows, inner.t())
        outer = _small(inner.t().contiguous(), self.across)  # by sender's node and place
        rows = _all_to_all(rows, inner.sum(0).tolist(), outer.sum(1).tolist(), self.across)
        return rows, outer.flatten().tolist()


def make_exchange(
    groups: list[list[int]], rank: int, per_node: int | None, patience: timedelta
) -> Exchange:
    """The exchange among these groups; hierarchical with `per_node` consecutive members a node."""
    whole = make_group(groups, rank, patience)
    if per_node is None:
        return Exchange(whole)
    nodes = [g[i : i + per_node] for g in groups for i in range(0, len(g), per_node)]
    across = [g[i::per_node] for g in groups for i in range(per_node)]
    inner, outer = (make_group(several, rank, patience) for several in (nodes, across))
    return Exchange(whole, inner, outer)


def _reorder(rows: Tensor, table: Tensor) -> Tensor:
    """Blocks of rows into the row-major order of `table`, whose entries are the blocks' sizes.

    The blocks lie in the row-major order of the table's transpose.
    """
    outer, inner = table.shape
    sizes = table.t().reshape(-1).tolist()
    blocks = torch.split(rows, sizes)
    return torch.cat([blocks[j * outer + i] for i in range(outer) for j in range(inner)])


def _small(table: Tensor, group: Group) -> Tensor:
    """One row of a small table of counts to each member; the rows that arrived, by sender."""
    out = torch.empty_like(table)
    dist.all_to_all_single(out, table.contiguous(), group=group.handle)
    return out


def _all_to_all(rows: Tensor, send: list[int], receive: list[int], group: Group) -> Tensor:
    out = rows.new_empty((sum(receive), *rows.shape[1:]))
    dist.all_to_all_single(out, rows.contiguous(), receive, send, group=group.handle)
    return out


def gather_rows(rows: Tensor, group: Group) -> tuple[Tensor, list[int]]:
    """The rows of all members, which may have different numbers of them, and those numbers."""
    if group.size == 1:
        return rows, [rows.shape[0]]
    numbers = [torch.empty(1, dtype=torch.int64) for _ in group.members]
    dist.all_gather(numbers, torch.tensor([rows.shape[0]]), group=group.handle)
    counts = [int(number) for number in numbers]
    # Gathering wants equal shapes, so the shorter ones are padded.
    longest = max(counts)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: rows.shape[0]] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded, group=group.handle)
    return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]), counts
