"""The candidates of a comparison in the order of a seed, and which of them an arm takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.text.sequences import Examples

__all__ = ["Candidates", "Flags", "Ids", "Select", "best_of"]

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Select = Callable[[Ids], npt.NDArray[np.float64]]


class Candidates:
    """The endless order of one seed: permutations of the pool, one after the other.

    Every arm of a seed sees this order, and counts what it passes over. rate: of a coin of its own,
    by which the random arm takes candidates. present: [pool], what the in-domain arm takes. first:
    [drawn], what a selector arm takes of the first candidates.
    """

    def __init__(
        self,
        pool: Examples,
        seed: int,
        *,
        rate: float = 1.0,
        present: Flags | None = None,
        first: Flags | None = None,
    ) -> None:
        self._ids, self._seed = pool.input_ids, seed
        self._rate, self._present, self._first = rate, present, first
        self.drawn = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        coin = np.random.default_rng([self._seed, 1])
        for place in _order(len(self._ids), self._seed):
            taken = self._rate >= 1 or coin.random() < self._rate
            if self._present is not None:
                taken = bool(self._present[place])
            elif self._first is not None:
                taken = bool(self._first[self.drawn])
            self.drawn += 1
            if taken:
                yield {"input_ids": self._ids[place], "place": place}


def _order(count: int, seed: int) -> Iterator[int]:
    random = np.random.default_rng([seed, 0])
    while True:
        yield from random.permutation(count)


def best_of(pool: Examples, seed: int, drawn: int, kept: int, select: Select) -> Flags:
    """Of the first `drawn` candidates of a seed [drawn], the `kept` with the highest scores."""
    places = np.fromiter(islice(_order(len(pool), seed), drawn), np.int64, drawn)
    scores = np.asarray(select(pool.input_ids[places]), np.float64)
    if scores.shape != places.shape or not np.isfinite(scores).all():
        raise SecondaryLearnersError(
            f"a selector gave scores of shape {list(scores.shape)} for {drawn} candidates, or some "
            "that are not finite. It must give a number for each."
        )
    best = np.zeros(drawn, np.bool_)
    best[np.argsort(-scores, kind="stable")[:kept]] = True
    return best
