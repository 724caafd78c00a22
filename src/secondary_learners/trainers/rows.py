"""Rows of collated batches, cut out and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.predictors import Flags, Ids
from secondary_learners.trainers.layout import Layout, Role

__all__ = ["Column", "Rows"]

# A list holds what no tensor can, such as strings.
Column = Tensor | list[Any]
_NOWHERE = 2**31 - 1  # a position outside of its row, however wide that becomes


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a collated batch: `columns` [rows, ...] by name, and what they are.

    losses: each row's loss [rows], still attached to the graph of its forward pass; else None.
    flops: the operations that training on the whole batch of that forward pass takes.
    """

    columns: dict[str, Column]
    layout: Layout = field(default_factory=Layout)
    losses: Tensor | None = None
    flops: float = 0.0

    @classmethod
    def of(cls, batch: Mapping[str, Any], layout: Layout) -> Rows:
        """The rows of a batch.

        Raises SecondaryLearnersError unless every column has one value for each row and it is
        known how it runs.
        """
        main = batch.get(layout.main)
        if not isinstance(main, Tensor):
            raise SecondaryLearnersError(
                f"a batch has no tensor {layout.main!r}; it has {', '.join(batch) or 'nothing'}. "
                "Try a data collator that makes padded tensors."
            )
        for name, value in batch.items():
            sized = isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.ndim)
            if not sized or len(value) != len(main):
                raise SecondaryLearnersError(
                    f"{name!r} of a batch does not have one row for each of its {len(main)} "
                    "examples. Try it without packing or padding-free batches: a filter needs to "
                    "tell examples apart."
                )
            if isinstance(value, Tensor):
                layout.role(name, value)
        columns = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in batch.items()
        }
        return cls(columns, layout)

    def __len__(self) -> int:
        return len(self.columns[self.layout.main])

    @property
    def main(self) -> Tensor:
        value = self.columns[self.layout.main]
        assert isinstance(value, Tensor)
        return value

    @property
    def has_tokens(self) -> bool:
        """Whether the main input is token ids, rather than pixels or sounds."""
        return self.layout.main == "input_ids"

    @property
    def encodes_targets(self) -> bool:
        """Whether a decoder's input is made from the labels."""
        labels = self.columns.get("labels")
        return (
            isinstance(labels, Tensor)
            and "decoder_input_ids" not in self.columns
            and self.layout.role("labels", labels) is Role.TARGETS
        )

    @property
    def tokens(self) -> tuple[Ids, Flags]:
        """Token ids and attention mask [rows, length], as arrays; of no length without tokens."""
        if not self.has_tokens:
            return np.empty((len(self), 0), np.int64), np.empty((len(self), 0), np.bool_)
        ids = self.main.flatten(1).cpu().numpy().astype(np.int64, copy=False)
        mask = self._mask()
        if mask is None:
            return ids, np.ones(ids.shape, np.bool_)
        return ids, mask.flatten(1).cpu().numpy().astype(np.bool_, copy=False)

    @property
    def left_padded(self) -> bool | None:
        """Whether padding is on the left; None where no row has any."""
        mask = self._mask()
        if mask is None or bool(mask.all()):
            return None
        return not bool(mask[..., 0].all())

    def _mask(self) -> Tensor | None:
        mask = self.columns.get("attention_mask")
        if not isinstance(mask, Tensor):
            return None
        return mask if self.layout.role("attention_mask", mask) is Role.TOKENS else None

    def with_losses(self, losses: Tensor, flops: float) -> Rows:
        return replace(self, losses=losses, flops=flops)

    def detached(self) -> Rows:
        """Without the graph of the forward pass."""
        return self if self.losses is None else Rows(self.columns, self.layout)

    def select(self, flags: Flags) -> Rows:
        """The rows where `flags` [rows] is true, without what is now padding in every one."""
        if flags.all():
            return self
        places = flags.nonzero()[0]
        index = torch.from_numpy(places).to(self.main.device)
        columns: dict[str, Column] = {
            name: value[index] if isinstance(value, Tensor) else [value[p] for p in places]
            for name, value in self.columns.items()
        }
        losses = None if self.losses is None else self.losses[index]
        return replace(self, columns=columns, losses=losses)._trimmed()

    def part(self, begin: int, end: int) -> Rows:
        """Rows `begin` to `end`, without what is padding in every one of them."""
        if begin == 0 and end >= len(self):
            return self
        columns: dict[str, Column] = {n: value[begin:end] for n, value in self.columns.items()}
        losses = None if self.losses is None else self.losses[begin:end]
        return replace(self, columns=columns, losses=losses)._trimmed()

    def _trimmed(self) -> Rows:
        """Tokens without padding at both ends, targets without it at the right."""
        columns = dict(self.columns)
        mask = self._mask()
        if mask is not None and len(self):
            shown = mask.flatten(0, -2).any(dim=0).nonzero()
            if len(shown):
                self._cut(columns, Role.TOKENS, int(shown[0]), int(shown[-1]) + 1)
        labels = columns.get("labels")
        if isinstance(labels, Tensor) and self.layout.role("labels", labels) is Role.TARGETS:
            shown = (labels != self.layout.fill("labels")).any(dim=0).nonzero()
            if len(shown):
                self._cut(columns, Role.TARGETS, 0, int(shown[-1]) + 1)
        return replace(self, columns=columns)

    def _width(self, role: Role) -> int | None:
        """The length of the columns of a role; None where there are none."""
        for name, value in self.columns.items():
            if isinstance(value, Tensor) and self.layout.role(name, value) is role:
                return int(value.shape[self.layout.axes(name)[0]])
        return None

    def _cut(self, columns: dict[str, Column], role: Role, begin: int, end: int) -> None:
        width = self._width(role)
        if width == end - begin:
            return
        for name, value in columns.items():
            if not isinstance(value, Tensor):
                continue
            of = self.layout.role(name, value)
            if of is role:
                for axis in self.layout.axes(name):
                    value = value.narrow(axis, begin, end - begin)
                columns[name] = value.contiguous()
            elif of is Role.POSITIONS and role is Role.TOKENS:
                columns[name] = _moved(value, -begin, width or 0)

    @classmethod
    def joined(cls, parts: Sequence[Rows], *, left: bool) -> Rows:
        """All rows in order, each group padded to its longest (`left`: there), without graphs."""
        if len(parts) == 1:
            return parts[0].detached()
        layout = parts[0].layout
        widths = {
            role: max((part._width(role) or 0) for part in parts)
            for role in (Role.TOKENS, Role.TARGETS)
        }
        padded = [part._padded(widths, left) for part in parts]
        columns: dict[str, Column] = {}
        for name in padded[0]:
            values = [part[name] for part in padded]
            if isinstance(values[0], list):
                columns[name] = [item for value in values for item in value]
                continue
            if len({value.shape[1:] for value in values}) > 1:  # type: ignore[union-attr]
                raise SecondaryLearnersError(
                    f"{name!r} has rows of different shapes, which do not fit in one batch. Try a "
                    "data collator that gives every row the same."
                )
            columns[name] = torch.cat(values)  # type: ignore[arg-type]
        return cls(columns, layout)

    def _padded(self, widths: Mapping[Role, int], left: bool) -> dict[str, Column]:
        columns = dict(self.columns)
        for role, width in widths.items():
            now = self._width(role)
            extra = width - (now or 0)
            if now is None or not extra:
                continue
            if role is Role.TOKENS and self._mask() is None:
                raise SecondaryLearnersError(
                    "rows of different lengths do not fit in one batch without an "
                    "'attention_mask'. Try a data collator that makes one, or the same length for "
                    "every example."
                )
            before = extra if left and role is Role.TOKENS else 0
            for name, value in self.columns.items():
                if not isinstance(value, Tensor):
                    continue
                of = self.layout.role(name, value)
                if of is role:
                    columns[name] = _pad(value, self.layout, name, before, extra - before)
                elif of is Role.POSITIONS and role is Role.TOKENS:
                    columns[name] = _moved(value, before, now)
        return columns


def _pad(value: Tensor, layout: Layout, name: str, before: int, after: int) -> Tensor:
    sides = [0] * (2 * value.ndim)  # the last dimension first
    for axis in layout.axes(name):
        place = 2 * (value.ndim - 1 - axis)
        sides[place : place + 2] = [before, after]
    return functional.pad(value, sides, value=layout.fill(name))


def _moved(positions: Tensor, by: int, width: int) -> Tensor:
    """Positions in rows of `width` tokens after `by` more stand before them (fewer: negative).

    What lay outside of its row, as "no answer" may, stays outside.
    """
    inside = (positions >= 0) & (positions < width)
    outside = torch.where(positions < 0, positions, torch.full_like(positions, _NOWHERE))
    return torch.where(inside, positions + by, outside)
