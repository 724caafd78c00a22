"""Survivors dealt out to several processes, so that all have equally many batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed

__all__ = ["Dealer", "plan_moves"]


def plan_moves(waiting: Sequence[int], count: int) -> list[tuple[int, int, int]]:
    """Who gives whom how many, so that each process has `count`: (giver, taker, examples).

    waiting: what each process has, together enough. A process gives only what it has above `count`.

    >>> plan_moves([5, 0, 4], 3)
    [(0, 1, 2), (2, 1, 1)]
    """
    moves = []
    surplus = [(place, have - count) for place, have in enumerate(waiting) if have > count]
    for taker, have in enumerate(waiting):
        lacks = count - have
        while lacks > 0:
            giver, extra = surplus.pop(0)
            moved = min(extra, lacks)
            moves.append((giver, taker, moved))
            lacks -= moved
            if extra > moved:
                surplus.insert(0, (giver, extra - moved))
    return moves


class Dealer:
    """This process among those that filter together; it alone where there are no others.

    joint: with the other processes of torch.distributed, through a gloo group of their own, so that
    no exchange comes between those of the model.
    """

    def __init__(self, *, joint: bool) -> None:
        self._group: Any = None
        self.rank, self.processes = 0, 1
        if joint and torch.distributed.is_available() and torch.distributed.is_initialized():
            self._group = torch.distributed.new_group(backend="gloo")
            self.rank = torch.distributed.get_rank()
            self.processes = torch.distributed.get_world_size()

    def exchange(self, waiting: int, finished: bool) -> tuple[list[int], bool]:
        """What waits in each process, and whether all have read their candidates."""
        if self._group is None:
            return [waiting], finished
        mine = torch.tensor([waiting, int(finished)])
        every = [torch.empty_like(mine) for _ in range(self.processes)]
        torch.distributed.all_gather(every, mine, group=self._group)
        counts, flags = torch.stack(every).T.tolist()
        return counts, all(flags)

    def deal(self, pending: list[Any], waiting: list[int], count: int) -> list[Any]:
        """This process's `count` examples; they leave `pending`, and `waiting` is brought up.

        pending: this process's own examples, in order. waiting: as `exchange` gave it.
        """
        moves = plan_moves(waiting, count)
        given = sum(moved for giver, _, moved in moves if giver == self.rank)
        own, away = pending[:count], pending[count : count + given]
        del pending[: count + given]
        for place, have in enumerate(waiting):
            waiting[place] = max(0, have - count)
        for giver, _, moved in moves:
            waiting[giver] -= moved
        if not moves:
            return own
        offered: list[Any] = [None] * self.processes
        torch.distributed.all_gather_object(offered, away, group=self._group)
        for giver, taker, moved in moves:
            taken, offered[giver] = offered[giver][:moved], offered[giver][moved:]
            if taker == self.rank:
                own += taken
        return own
