"""Examples as tensors: a rectangle of token ids and which of them count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secondary_learners.text.sequences import Examples

__all__ = ["Rows", "as_examples", "rows_of"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Token ids int64 [n, length], padded on the right; counts: bool [n, length], the tokens whose
    loss counts, or None where every token does and nothing is padding. document: int64 [n], or
    None where each row is its own.
    """

    ids: Tensor
    counts: Tensor | None = None
    document: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | Tensor | list[int]) -> Rows:
        kept = (None if own is None else own[index] for own in (self.counts, self.document))
        return Rows(self.ids[index], *kept)

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    def reach(self) -> list[int]:
        """Tokens up to the last one that counts, of each row."""
        if self.counts is None:
            return [self.length] * len(self)
        places = torch.arange(1, self.length + 1, device=self.ids.device)
        ends: list[int] = (self.counts * places).amax(dim=1).tolist()
        return ends

    def trimmed(self) -> Rows:
        """Without the columns in which no row has a token that counts any more."""
        if self.counts is None:
            return self
        end = max(self.reach())
        return Rows(self.ids[:, :end], self.counts[:, :end], self.document)

    def targets(self, ignored: int) -> Tensor:
        """What each position is to predict [n, length], `ignored` where nothing counts."""
        ids = self.ids if self.counts is None else self.ids.where(self.counts, ignored)
        return torch.nn.functional.pad(ids[:, 1:], (0, 1), value=ignored)

    def buckets(self, tokens: int) -> list[list[int]]:
        """The rows in batches of like length, the longest first, that fill `tokens` with padding.

        Rows of one length stay in their order.
        """
        reach = self.reach()
        batches: list[list[int]] = []
        for row in sorted(range(len(reach)), key=lambda row: -reach[row]):
            if batches and (len(batches[-1]) + 1) * reach[batches[-1][0]] <= tokens:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches


def as_examples(given: Examples | NDArray[np.int64] | Tensor) -> Examples:
    """What is given as token ids [contexts, length], as contexts."""
    if isinstance(given, Examples):
        return given
    return Examples.contexts(torch.as_tensor(given).cpu().numpy())


def rows_of(examples: Examples, device: torch.device | str = "cpu") -> Rows:
    """`examples` on `device`."""
    counts = None if examples.whole else _moved(torch.from_numpy(examples.counted), device)
    document = torch.from_numpy(examples.document)
    return Rows(_moved(torch.from_numpy(examples.input_ids), device), counts, document)


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()  # so that the copy waits for nothing, nor the next launch
    return tensor.to(device, non_blocking=True)
