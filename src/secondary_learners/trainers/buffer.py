"""Rows that wait, in order, for their batch to be full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secondary_learners.trainers.layout import Layout
from secondary_learners.trainers.rows import Column, Rows

__all__ = ["Buffer"]


class Buffer:
    """Examples, in order, that do not yet fill a batch."""

    def __init__(self, parts: Sequence[Rows] = ()) -> None:
        self._parts = [part for part in parts if len(part)]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def held(self) -> int:
        """How many forward passes are kept in memory."""
        return sum(part.losses is not None for part in self._parts)

    @property
    def held_examples(self) -> int:
        """How many examples wait with the graph of their forward pass."""
        return sum(len(part) for part in self._parts if part.losses is not None)

    def add(self, rows: Rows) -> None:
        if len(rows):
            self._parts.append(rows)

    def take(self, count: int) -> list[Rows]:
        """The first `count` examples, which leave; no graph of a forward pass stays behind."""
        taken = []
        while count:
            first = self._parts.pop(0)
            taken.append(first.part(0, count))
            if len(first) > count:
                self._parts.insert(0, first.part(count, len(first)))
            count -= len(taken[-1])
        self.release()
        return taken

    def release(self) -> None:
        """Forget the forward passes: their examples are run again when they are trained on."""
        self._parts = [part.detached() for part in self._parts]

    def state_dict(self) -> list[dict[str, Any]]:
        return [
            {name: _copied(value) for name, value in part.columns.items()} for part in self._parts
        ]

    def load_state_dict(
        self, state: Sequence[dict[str, Any]], layout: Layout, device: torch.device
    ) -> None:
        self._parts = [
            Rows(
                {
                    name: value.to(device) if isinstance(value, Tensor) else list(value)
                    for name, value in part.items()
                },
                layout,
            )
            for part in state
        ]


def _copied(value: Column) -> Column:
    return value.detach().cpu().clone() if isinstance(value, Tensor) else list(value)
