"""Scores as an order: a sampler over examples that were scored before, and order files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.files import write_bytes

__all__ = ["Order", "ScoreSampler", "read_order", "write_order"]

Order = Literal["weighted", "descending", "ascending"]
_ORDERS = ("weighted", "descending", "ascending")
Places = npt.NDArray[np.int64]


class ScoreSampler(Sampler[int]):
    """A sampler for DataLoader that draws or sorts examples by scores measured before.

        loader = DataLoader(dataset, sampler=ScoreSampler(dataset["score"], count=10_000), …)

    "weighted" draws without replacement, each time in proportion to exp(score / temperature), by
    the Gumbel-top-k trick (Kool et al. 2019, arXiv 1903.06059): high scores come early and nearly
    surely, low ones late or, with `count`, seldom. Each epoch has a draw of its own: `set_epoch`,
    which the loops of transformers and accelerate call. A draw depends on seed and epoch alone, so
    that all processes have the same and a resumed run has it again.

    "descending" and "ascending" sort, the same way in every epoch; examples of equal scores keep
    their order. Scores that are losses make "ascending" an order from easy to hard.

    Args:
        scores: of the examples of a data set [examples], as a column of `ScoreColumn` or of
            `learners score` has them.
        order: "weighted", "descending" or "ascending".
        count: how many examples an epoch has: the first ones; by default all.
        temperature: of "weighted", in the unit of the scores, above 0: near 0 it sorts, and with a
            large one all orders are equally likely.
        seed: of the draws.

    Raises:
        UnknownNameError: for another order.
        SecondaryLearnersError: for scores that are not finite, and values out of range.
    """

    def __init__(
        self,
        scores: Any,
        *,
        order: Order = "weighted",
        count: int | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if order not in _ORDERS:
            raise UnknownNameError("order", str(order), _ORDERS, "ScoreSampler(order='weighted')")
        self._scores = np.asarray(scores, np.float64)
        if self._scores.ndim != 1 or not np.isfinite(self._scores).all():
            raise SecondaryLearnersError(
                f"scores have the shape {list(self._scores.shape)} and must be finite numbers, one "
                "for each example. Try those that `learners score` or ScoreColumn gives."
            )
        if not 0 < temperature < math.inf:
            raise SecondaryLearnersError(
                f"temperature is {temperature}. Try a number above 0, such as 1.0."
            )
        self._count = len(self._scores) if count is None else count
        if not 0 <= self._count <= len(self._scores):
            raise SecondaryLearnersError(
                f"count is {count}, of {len(self._scores)} examples. Try a number up to that."
            )
        self._temperature, self._seed, self._epoch = temperature, seed, 0
        # The places in an order that no epoch changes.
        self._fixed = None if order == "weighted" else _sorted(self._scores, order)

    @classmethod
    def from_order(cls, order: str | Path | Sequence[int]) -> ScoreSampler:
        """A sampler that follows an order as it is written.

        Args:
            order: a file as `learners score --order FILE` writes it, or the places themselves.

        Returns:
            The sampler, the same in every epoch.

        Raises:
            SecondaryLearnersError: for a file that is missing or not an order.
        """
        places = read_order(Path(order)) if isinstance(order, str | Path) else np.asarray(order)
        sampler = cls(np.zeros(len(places)), order="ascending")
        sampler._fixed = places
        return sampler

    def set_epoch(self, epoch: int) -> None:
        """Draw as epoch `epoch` does, from the next iteration on."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        places = self._fixed
        if places is None:
            gumbel = np.random.default_rng([self._seed, self._epoch]).gumbel(size=len(self._scores))
            places = _sorted(self._scores / self._temperature + gumbel, "descending")
        yield from places[: self._count].tolist()


def _sorted(scores: npt.NDArray[np.float64], order: Order) -> Places:
    return np.argsort(scores if order == "ascending" else -scores, kind="stable")


def write_order(path: Path, scores: npt.NDArray[np.float64], order: Order = "descending") -> None:
    """Write the places of examples, from 0, one a line, sorted by their scores [examples]."""
    write_bytes(path, "".join(f"{place}\n" for place in _sorted(scores, order)).encode())


def read_order(path: Path) -> Places:
    """The places that a file of `write_order` has; other tools may have written it too.

    Raises SecondaryLearnersError for a file that is missing, and for a line that is not a place,
    or one that was there before.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise _not_an_order(path, str(error)) from error
    seen: set[int] = set()
    for number, line in enumerate(lines, start=1):
        if not (line.isascii() and line.isdigit()):
            raise _not_an_order(path, f"line {number} is {line[:40]!r} and not a row's number")
        if int(line) in seen:
            raise _not_an_order(path, f"line {number} repeats row {line}")
        seen.add(int(line))
    return np.array([int(line) for line in lines], np.int64)


def _not_an_order(path: Path, why: str) -> SecondaryLearnersError:
    return SecondaryLearnersError(
        f"{path} is not an order file: {why}. Try `learners score TEXTS -l LEARNER --order FILE`."
    )
