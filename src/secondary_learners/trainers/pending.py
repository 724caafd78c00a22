"""Examples that wait for their batch: rows of collated batches, cut out and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.predictors import Flags, Ids

__all__ = ["Padding", "Pending", "Rows"]


@dataclass(frozen=True)
class Padding:
    """How rows of different lengths are made equal: the token id, and on which side."""

    token: int = 0
    side: str = "right"


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a collated batch: `columns` [rows, ...] by name, `main` naming the token ids.

    losses: each row's loss [rows], still attached to the graph of its forward pass; else None.
    flops: the operations that training on the whole batch of that forward pass takes.
    """

    columns: dict[str, Tensor]
    main: str = "input_ids"
    losses: Tensor | None = None
    flops: float = 0.0

    @classmethod
    def of(cls, batch: Mapping[str, Any], main: str = "input_ids") -> Rows:
        """The rows of a batch; raises SecondaryLearnersError unless every value has one of each."""
        if not isinstance(batch.get(main), Tensor):
            raise SecondaryLearnersError(
                f"a batch has no tensor {main!r}; it has {', '.join(batch) or 'nothing'}. "
                "Try a data collator that makes padded tensors."
            )
        count = len(batch[main])
        for name, value in batch.items():
            if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != count:
                raise SecondaryLearnersError(
                    f"{name!r} of a batch does not have one row for each of its {count} examples. "
                    "Try it without packing or padding-free batches: a filter needs to tell "
                    "examples apart."
                )
        return cls(dict(batch), main)

    def __len__(self) -> int:
        return len(self.columns[self.main])

    @property
    def tokens(self) -> tuple[Ids, Flags]:
        """Token ids and attention mask [rows, length], as arrays."""
        ids = self.columns[self.main].cpu().numpy().astype(np.int64, copy=False)
        if "attention_mask" not in self.columns:
            return ids, np.ones(ids.shape, np.bool_)
        return ids, self.columns["attention_mask"].cpu().numpy().astype(np.bool_, copy=False)

    def select(self, flags: Flags) -> Rows:
        """The rows where `flags` [rows] is true, without the columns that are now all padding."""
        if flags.all():
            return self
        places = torch.from_numpy(flags.nonzero()[0]).to(self.columns[self.main].device)
        return Rows(
            {name: value[places] for name, value in self.columns.items()},
            self.main,
            None if self.losses is None else self.losses[places],
            self.flops,
        ).trimmed()

    def part(self, begin: int, end: int) -> Rows:
        """Rows `begin` to `end`."""
        if begin == 0 and end >= len(self):
            return self
        columns = {name: value[begin:end] for name, value in self.columns.items()}
        losses = None if self.losses is None else self.losses[begin:end]
        return Rows(columns, self.main, losses, self.flops)

    def trimmed(self) -> Rows:
        """Without columns at either end that are padding in every row."""
        mask = self.columns.get("attention_mask")
        if mask is None or not len(self):
            return self
        shown = mask.any(dim=0).nonzero()
        if not len(shown):
            return self
        begin, end = int(shown[0]), int(shown[-1]) + 1
        if end - begin == mask.shape[1]:
            return self
        columns = {
            name: value[:, begin:end] if self._is_sequence(value) else value
            for name, value in self.columns.items()
        }
        return Rows(columns, self.main, self.losses, self.flops)

    def _is_sequence(self, value: Tensor) -> bool:
        return value.ndim >= 2 and value.shape[1] == self.columns[self.main].shape[1]

    def detached(self) -> Rows:
        """Without the graph of the forward pass."""
        return self if self.losses is None else Rows(self.columns, self.main)

    @classmethod
    def joined(cls, parts: Sequence[Rows], padding: Padding) -> Rows:
        """All rows in order, padded to the longest, without their graphs."""
        if len(parts) == 1:
            return parts[0].detached()
        main = parts[0].main
        width = max(part.columns[main].shape[1] for part in parts)
        padded = [part._padded(width, padding) for part in parts]
        columns = {name: torch.cat([part[name] for part in padded]) for name in padded[0]}
        return cls(columns, main)

    def _padded(self, width: int, padding: Padding) -> dict[str, Tensor]:
        extra = width - self.columns[self.main].shape[1]
        if not extra:
            return self.columns
        if "attention_mask" not in self.columns:
            raise SecondaryLearnersError(
                "rows of different lengths do not fit in one batch without an 'attention_mask'. "
                "Try a data collator that makes one, or the same length for every example."
            )
        fills = {self.main: padding.token, "labels": -100}
        sides = (extra, 0) if padding.side == "left" else (0, extra)
        return {
            name: functional.pad(
                value, (*(0, 0) * (value.ndim - 2), *sides), value=fills.get(name, 0)
            )
            if self._is_sequence(value)
            else value
            for name, value in self.columns.items()
        }


class Pending:
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

    def state_dict(self) -> list[dict[str, Tensor]]:
        return [
            {name: value.detach().cpu().clone() for name, value in part.columns.items()}
            for part in self._parts
        ]

    def load_state_dict(
        self, state: Sequence[dict[str, Tensor]], main: str, device: torch.device
    ) -> None:
        self._parts = [
            Rows({name: value.to(device) for name, value in part.items()}, main) for part in state
        ]
