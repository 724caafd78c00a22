"""Deciding: which candidates are run forward, and which of those are trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from secondary_learners.errors import UnknownNameError
from secondary_learners.filtering.decisions import BatchFilter
from secondary_learners.trainers.buffer import Buffer
from secondary_learners.trainers.layout import Layout
from secondary_learners.trainers.rows import Rows

__all__ = ["Decider", "Forwards", "Pass", "Position"]

Forwards = Literal["auto", "again", "same"]
_WAYS = ("auto", "again", "same")


@dataclass(frozen=True)
class Position:
    """Where a run stands: step `step` of `total`; whether it is the `last` of an epoch or the run.

    left: whether rows are padded on the left.
    """

    step: int
    total: int
    last: bool = False
    left: bool = False


@dataclass(frozen=True)
class Pass:
    """How a forward pass of training is made.

    losses: of rows, with the graph stored or not: the loss of each [rows]. flops: that training on
    rows takes. can_store: whether these losses are those to back-propagate from.
    """

    losses: Callable[[Rows, bool], Tensor]
    flops: Callable[[Rows], float]
    can_store: bool


class Decider:
    """Asks a filter about candidates, and runs those whose loss it needs in full batches.

    size: of a batch. forwards, hold: as of `FilteredTrainer`.
    """

    def __init__(self, filter: BatchFilter, *, size: int, forwards: Forwards, hold: int) -> None:
        if forwards not in _WAYS:
            raise UnknownNameError("way of forward passes", str(forwards), _WAYS, "forwards='auto'")
        self.filter = filter
        self._size, self._forwards, self._hold = size, forwards, hold
        self._admitted = Buffer()  # what the filter let pass and has not yet decided on
        self._shares: deque[tuple[int, int]] = deque(maxlen=16)  # (kept, run) of recent batches

    def decide(self, rows: Rows, kept: Buffer, forward: Pass, at: Position) -> None:
        """Add to `kept` what is to be trained on: of `rows`, and of rows admitted before."""
        admitted = self.filter.admit(*rows.tokens, step=at.step, total=at.total)
        self._admitted.add(rows.select(admitted))
        if not self.filter.needs_losses:
            for part in self._admitted.take(len(self._admitted)):
                kept.add(part)
            return
        while len(self._admitted) >= self._size or (len(self._admitted) and at.last):
            taken = self._admitted.take(min(self._size, len(self._admitted)))
            batch = Rows.joined(taken, left=at.left)
            store = forward.can_store and self._stores(kept)
            losses = forward.losses(batch, store)
            flags = self.filter.keep(losses.detach().double().cpu().numpy(), *batch.tokens)
            self._shares.append((int(flags.sum()), len(flags)))
            if store:
                batch = batch.with_losses(losses, forward.flops(batch))
            kept.add(batch.select(flags))

    def _stores(self, kept: Buffer) -> bool:
        """Whether the next forward pass stores its activations; see `FilteredTrainer`."""
        if self._forwards == "again" or kept.held >= self._hold:
            return False
        trained = sum(kept for kept, _ in self._shares)
        run = sum(run for _, run in self._shares)
        return self._forwards == "same" or 3 * trained > 2 * run

    def state_dict(self) -> dict[str, Any]:
        return {
            "filter": self.filter.state_dict(),
            "admitted": self._admitted.state_dict(),
            "shares": list(self._shares),
        }

    def load_state_dict(
        self, state: Mapping[str, Any], layout: Layout, device: torch.device
    ) -> None:
        self.filter.load_state_dict(state["filter"])
        self._admitted.load_state_dict(state["admitted"], layout, device)
        self._shares.extend(state["shares"])
