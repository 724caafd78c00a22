"""Updating: when a batch is full over all processes, and the gradients of its mean loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from secondary_learners.trainers.rows import Rows

__all__ = ["Engine", "back_propagate", "plan_update", "shares"]


class Engine(Protocol):
    """What an update asks of the Trainer, of this process among `processes`."""

    @property
    def processes(self) -> int: ...

    def gather(self, values: Sequence[float]) -> Tensor:
        """The values of every process [processes, values] (float64)."""

    def loss(self, batch: Rows, total: float) -> Tensor:
        """The batch's part of the mean loss over terms of all processes that weigh `total`."""

    def stand_in(self, total: float, *, last: bool) -> None:
        """Compute a loss for nothing, as often as other processes compute theirs."""

    def counted(self, rows: Rows) -> Tensor:
        """What each row weighs in the mean [rows]: its terms, as the Trainer counts them, weighted.

        Without weights of examples a term weighs 1.
        """

    def terms(self, rows: Rows) -> Tensor:
        """The weighted terms of each row's loss [rows], as `Rows.losses` are means of terms."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a loss's gradients; `last`: those of the update are then all there."""

    def spend(self, flops: float) -> None:
        """Count operations of a backward pass."""


def plan_update(
    waiting: Sequence[int], held: Sequence[int], whole: int, *, last: bool
) -> list[int] | None:
    """How many examples each process gives to an update; None while there is none.

    waiting: examples that each process has chosen; held: those of them with their graph. whole: a
    batch of all processes and accumulation steps. last: of an epoch or of the run, when what is
    left is trained on. Where every graph is still there, 2/3 of a batch is enough, and all goes:
    what it left would need another pass, its weights having changed.
    """
    count, graphs = sum(waiting), list(waiting) == list(held)
    enough = 3 * count >= 2 * whole if graphs else count >= whole
    if not count or not (enough or last):
        return None
    return list(waiting) if graphs or last else shares(waiting, whole)


def back_propagate(taken: Sequence[Rows], engine: Engine, *, size: int, left: bool) -> float:
    """Add the gradients of this process's share of an update; its part of the logged loss.

    Rows with a graph are back-propagated from it, the others run in batches of `size`.
    """
    fresh = [part for part in taken if part.losses is None]
    batches: list[Rows] = []
    if fresh:
        joined = Rows.joined(fresh, left=left)
        batches = [joined.part(begin, begin + size) for begin in range(0, len(joined), size)]
    counted = sum(float(engine.counted(part).sum()) for part in taken)
    sums = engine.gather([counted, len(batches)])
    total, most = float(sums[:, 0].sum()), int(sums[:, 1].max())
    value = 0.0
    held = any(part.losses is not None for part in taken)
    for number in range(most):
        last = number == most - 1 and not held
        if number >= len(batches):
            engine.stand_in(total, last=last)
            continue
        loss = engine.loss(batches[number], total)
        engine.backward(loss, last=last)
        value += float(loss.detach())
    stored = [(part.losses * engine.terms(part)).sum() for part in taken if part.losses is not None]
    if stored:
        loss = torch.stack(stored).sum() * (engine.processes / (total or 1))
        engine.backward(loss, last=True)
        value += float(loss.detach())
        engine.spend(sum(part.flops for part in taken if part.losses is not None) * 2 / 3)
    return value


def shares(waiting: Sequence[int], whole: int) -> list[int]:
    """How many examples each process gives to a batch of `whole`, as evenly as they have them.

    >>> shares([9, 1, 4], 8)
    [4, 1, 3]
    """
    given = [0] * len(waiting)
    left = whole
    while left:
        open_ = [place for place, count in enumerate(waiting) if given[place] < count]
        each = max(
            1, min([left // len(open_), *(waiting[place] - given[place] for place in open_)])
        )
        for place in open_[:left]:
            given[place] += each
            left -= each
    return given
