"""Thresholds: the score a candidate needs, as a value that can be written in a table.

Scores are in standard deviations of a learner's predictions on held-out contexts, so 0 is the
average candidate and 1 keeps about the best sixth of a stream like the learner's own corpus.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError

__all__ = ["Constant", "Quantile", "RecentScores", "Shifting", "Threshold", "parse_threshold"]

_EXAMPLES = ("constant:1", "shifting:1,-1,10", "quantile:0.3")


class RecentScores:
    """The last `size` scores of a stream, and their quantiles.

    Until `enough` scores were seen, quantiles come from `calibration` (a learner's own table).
    """

    def __init__(
        self, calibration: Callable[[float], float], *, size: int = 2048, enough: int = 256
    ) -> None:
        self._calibration = calibration
        self._size, self._enough = size, enough
        self._arrived: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._arrived)

    @property
    def arrived(self) -> list[float]:
        """The scores in the order they came."""
        return list(self._arrived)

    def add(self, score: float) -> None:
        if len(self._arrived) == self._size:
            del self._sorted[bisect_left(self._sorted, self._arrived.popleft())]
        self._arrived.append(score)
        insort(self._sorted, score)

    def quantile(self, q: float) -> float:
        """The score below which a share `q` of the recent scores lies (linear interpolation)."""
        if len(self._sorted) < self._enough:
            return self._calibration(q)
        place = q * (len(self._sorted) - 1)
        below = math.floor(place)
        low = self._sorted[below]
        high = self._sorted[min(below + 1, len(self._sorted) - 1)]
        return low + (place - below) * (high - low)


class Threshold(Protocol):
    """What a candidate's score must reach."""

    def at(self, step: int, recent: RecentScores) -> float:
        """The threshold once `step` batches were filled; `recent` excludes the candidate."""


@dataclass(frozen=True)
class Constant:
    """The same threshold throughout.

    Args:
        value: the score that a candidate must reach, in standard deviations of predictions.

    Raises:
        SecondaryLearnersError: for a value that is not finite.
    """

    value: float

    def __post_init__(self) -> None:
        _finite(self, self.value)

    def at(self, step: int, recent: RecentScores) -> float:
        return self.value

    def __str__(self) -> str:
        return f"constant:{_number(self.value)}"


@dataclass(frozen=True)
class Shifting:
    """`start` until `after` batches were filled, then `end`: choosy while it matters most.

    The defaults are those of Antonello et al. 2021 (arXiv 2005.00175).

    Args:
        start: the threshold at first, in standard deviations of predictions.
        end: the threshold from then on, in the same unit.
        after: how many batches are filled before it changes.

    Raises:
        SecondaryLearnersError: for thresholds that are not finite, and for `after` below 0.
    """

    start: float = 1.0
    end: float = -1.0
    after: int = 10

    def __post_init__(self) -> None:
        _finite(self, self.start, self.end)
        if self.after < 0:
            raise _invalid(self, f"after is {self.after} batches, which is below 0")

    def at(self, step: int, recent: RecentScores) -> float:
        return self.start if step < self.after else self.end

    def __str__(self) -> str:
        return f"shifting:{_number(self.start)},{_number(self.end)},{self.after}"


@dataclass(frozen=True)
class Quantile:
    """Whatever keeps the best share `keep` of the stream, judged by its last 2,048 scores.

    Use it when a corpus scores unlike the learner's own, where a fixed threshold would keep nearly
    all of it or nearly nothing.

    Args:
        keep: the share that is kept, above 0 and up to 1.

    Raises:
        SecondaryLearnersError: for a share out of that range.
    """

    keep: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise _invalid(self, f"keep is {self.keep}, which is not a share above 0 and up to 1")

    def at(self, step: int, recent: RecentScores) -> float:
        # The lowest recent score is no bound for the next one, so keeping all is its own case.
        return recent.quantile(1 - self.keep) if self.keep < 1 else -math.inf

    def __str__(self) -> str:
        return f"quantile:{_number(self.keep)}"


def parse_threshold(text: str) -> Threshold:
    """The threshold that `str` writes as `text`; a bare number is a constant one.

    >>> parse_threshold("1.0"), parse_threshold("shifting:1,-1,10")
    (Constant(value=1.0), Shifting(start=1.0, end=-1.0, after=10))
    >>> str(parse_threshold("quantile:0.3"))
    'quantile:0.3'

    Args:
        text: a kind of threshold and its values.

    Returns:
        The threshold.

    Raises:
        UnknownNameError: for another kind.
        SecondaryLearnersError: for values out of range.
    """
    kind, colon, values = text.strip().partition(":")
    if not colon:
        kind, values = "constant", kind
    try:
        match kind, values.split(","):
            case "constant", [value]:
                return Constant(float(value))
            case "shifting", [start, end, after]:
                return Shifting(float(start), float(end), int(after))
            case "quantile", [keep]:
                return Quantile(float(keep))
    except ValueError:
        pass
    raise UnknownNameError("threshold", text, _EXAMPLES, "learners finetune --help")


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _finite(threshold: object, *values: float) -> None:
    if not all(map(math.isfinite, values)):
        raise _invalid(threshold, "its values must be finite numbers")


def _invalid(threshold: object, why: str) -> SecondaryLearnersError:
    return SecondaryLearnersError(
        f"{threshold!r} is no threshold: {why}. Try one like {', '.join(_EXAMPLES)}."
    )
