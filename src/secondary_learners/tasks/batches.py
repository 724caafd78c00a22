"""Batches of examples of like length, so that little of them is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from secondary_learners.filtering.selection import pad as padded
from secondary_learners.tasks.encoding import Encoded

__all__ = ["LikeLengths", "by_length", "collate", "halves", "shuffled_batches"]

Places = Sequence[int] | npt.NDArray[np.int64]
_SORTED_TOGETHER = 64  # batches
_WORTH_SPLITTING = 0.9


def collate(examples: Encoded, places: Places, pad: int) -> dict[str, Tensor]:
    """What a classifier takes, [batch, length] each, padded on the right; and "labels" [batch]."""
    ids, mask = padded([examples.ids[place] for place in places])
    ids[~mask] = pad  # by which some models find the last token
    batch = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask).long(),
        "labels": torch.tensor([examples.targets[place] for place in places]),
    }
    if examples.types is not None:
        types, _ = padded([examples.types[place] for place in places])
        batch["token_type_ids"] = torch.from_numpy(types)
    return batch


def shuffled_batches(
    lengths: Sequence[int], size: int, seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Places of examples in batches without end, shuffled anew each epoch."""
    random = np.random.default_rng(seed)
    measured = np.array(lengths)
    while True:
        order = random.permutation(len(measured))
        batches: list[npt.NDArray[np.int64]] = []
        for begin in range(0, len(order), size * _SORTED_TOGETHER):
            part = order[begin : begin + size * _SORTED_TOGETHER]
            part = part[np.argsort(measured[part], kind="stable")]
            batches += [part[first : first + size] for first in range(0, len(part), size)]
        for number in random.permutation(len(batches)):
            yield batches[number]


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """All places, from the shortest example on, in batches of at most so many tokens."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if group and (len(group) + 1) * lengths[place] > tokens:
            yield group
            group = []
        group.append(place)
    yield group


def halves(batch: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """The batch in one part, or short and long ones apart where that saves a tenth of the padding.

    Their gradients are added up before the step: the batch, and the order of the data, stay.
    """
    ordered = sorted(batch, key=lambda place: lengths[place])
    half = len(ordered) // 2
    if not half:
        return [ordered]
    parts = [ordered[:half], ordered[half:]]
    split = sum(len(part) * lengths[part[-1]] for part in parts)
    whole = len(ordered) * lengths[ordered[-1]]
    return parts if split < _WORTH_SPLITTING * whole else [ordered]


class LikeLengths(torch.utils.data.Sampler[int]):
    """A random order, another one each time, in which eight batches at a time have like lengths.

    Padding then costs little, of batches as drawn and of those made of what a filter keeps, which
    `shuffled_batches` with one batch at a time has not to care for. transformers' own
    (`group_by_length`) goes from long to short over and over; where length tells something, as with
    the sentences among SST-2's phrases, a model forgets in between.

    lengths: of the rows. seed: of all the orders.
    """

    _RUN = 8  # batches of like length, one after the other
    _POOL = 48  # batches whose rows are sorted together

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._run = torch.tensor(lengths), self._RUN * batch_size
        self._pool = self._POOL * batch_size
        self._random = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self), generator=self._random)
        runs: list[Tensor] = []
        for part in order.split(self._pool):
            runs += part[self._lengths[part].argsort(stable=True)].split(self._run)
        places = torch.randperm(len(runs), generator=self._random).tolist()
        # The only short run comes last, so that every batch is of one run.
        places.sort(key=lambda place: len(runs[place]) < self._run)
        for place in places:
            yield from runs[place].tolist()
