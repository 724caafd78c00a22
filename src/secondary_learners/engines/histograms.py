"""Histograms of scores that add up, whoever made them and in whatever order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["BINS_A_DEVIATION", "Histogram", "bins"]

BINS_A_DEVIATION = 64
_FARTHEST = 64 * BINS_A_DEVIATION  # bins from the middle; the last ones hold all beyond


def bins(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The bin of each value [values]; a larger value never has a lower bin."""
    places = np.floor(values * BINS_A_DEVIATION)
    return np.clip(places, -_FARTHEST, _FARTHEST - 1).astype(np.int64)


@dataclass
class Histogram:
    """How many documents, and of how many tokens together, have a value in each bin."""

    counts: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, values: npt.NDArray[np.float64], tokens: npt.NDArray[np.int64]) -> None:
        """Count documents [documents] with these values and lengths."""
        places, inverse = np.unique(bins(values), return_inverse=True)
        documents = np.bincount(inverse, minlength=len(places))
        total = np.zeros(len(places), np.int64)
        np.add.at(total, inverse, tokens)
        rows = zip(places.tolist(), documents.tolist(), total.tolist(), strict=True)
        self._merge({place: (count, length) for place, count, length in rows})

    def _merge(self, counts: Mapping[int, tuple[int, int]]) -> None:
        for place, (count, length) in counts.items():
            before = self.counts.get(place, (0, 0))
            self.counts[place] = (before[0] + count, before[1] + length)

    @property
    def documents(self) -> int:
        return sum(count for count, _ in self.counts.values())

    @property
    def tokens(self) -> int:
        return sum(length for _, length in self.counts.values())

    def to_json(self) -> list[list[int]]:
        """Bin, documents and tokens of each bin that is not empty, in order."""
        return [[place, *self.counts[place]] for place in sorted(self.counts)]

    @classmethod
    def from_json(cls, rows: Iterable[Iterable[int]]) -> Histogram:
        return cls({place: (count, length) for place, count, length in rows})

    @classmethod
    def sum(cls, histograms: Iterable[Histogram]) -> Histogram:
        total = cls()
        for histogram in histograms:
            total._merge(histogram.counts)
        return total
