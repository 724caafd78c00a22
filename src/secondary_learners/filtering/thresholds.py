"""Thresholds: the score a candidate needs, as a value that can be written in a table.

Scores are in standard deviations of a learner's predictions on held-out contexts, so 0 is the
average candidate and 1 keeps about the best sixth of a stream like the learner's own corpus.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError

__all__ = [
    "Constant",
    "Quantile",
    "RecentScores",
    "Shifting",
    "Soft",
    "Threshold",
    "parse_threshold",
]

_EXAMPLES = ("constant:1", "shifting:1,-1,10", "quantile:0.3", "soft:0.5:quantile:0.3")


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

    def noise(self, token_ids: npt.NDArray[np.int64]) -> float:
        """What is added to the score of the candidate with these ids [length]; usually nothing."""
        return 0.0


@dataclass(frozen=True)
class Constant(Threshold):
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
class Shifting(Threshold):
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
class Quantile(Threshold):
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
        # The lowest recent score is not a bound for the next one, so keeping all is its own case.
        return recent.quantile(1 - self.keep) if self.keep < 1 else -math.inf

    def __str__(self) -> str:
        return f"quantile:{_number(self.keep)}"


@dataclass(frozen=True)
class Soft(Threshold):
    """Another threshold made soft: what scores higher is likelier to be kept, nothing is certain.

    A candidate of score s is kept with the probability 1 / (1 + exp((t − s) / temperature)), where
    t is the other threshold, so that some variety stays in what is kept. With a `Quantile` the
    share that is kept stays what it says.

    The draw depends on the seed and the candidate's tokens alone. So it is the same in every
    process, after resuming, and every time the example comes by; equal examples share their fate.

    Args:
        threshold: the other one.
        temperature: how soft, in standard deviations of predictions, above 0: near 0 it is a cut,
            and with a large one the score hardly matters.
        seed: of the draws; another one keeps others.

    Raises:
        SecondaryLearnersError: for values out of range, and for a threshold that is soft already.
    """

    threshold: Threshold
    temperature: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _finite(self, self.temperature)
        if self.temperature <= 0:
            raise _invalid(self, f"its temperature is {self.temperature}, which is not above 0")
        if isinstance(self.threshold, Soft):
            raise _invalid(self, "a threshold is made soft once")

    def at(self, step: int, recent: RecentScores) -> float:
        return self.threshold.at(step, recent)

    def noise(self, token_ids: npt.NDArray[np.int64]) -> float:
        """A draw from the logistic distribution, whose scale is the temperature."""
        state = hashlib.blake2b(f"{self.seed}:".encode(), digest_size=8)
        state.update(np.ascontiguousarray(token_ids, "<i8").tobytes())
        # 52 bits, so that neither 0 nor 1 comes out.
        uniform = ((int.from_bytes(state.digest(), "little") >> 12) + 0.5) / 2**52
        return self.temperature * math.log(uniform / (1 - uniform))

    def __str__(self) -> str:
        return f"soft:{_number(self.temperature)},{self.seed}:{self.threshold}"


def parse_threshold(text: str) -> Threshold:
    """The threshold that `str` writes as `text`; a bare number is a constant one.

    >>> parse_threshold("1.0"), parse_threshold("shifting:1,-1,10")
    (Constant(value=1.0), Shifting(start=1.0, end=-1.0, after=10))
    >>> str(parse_threshold("quantile:0.3"))
    'quantile:0.3'
    >>> parse_threshold("soft:0.5:1")
    Soft(threshold=Constant(value=1.0), temperature=0.5, seed=0)

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
            case "soft", _:
                own, _, other = values.partition(":")
                temperature, _, seed = own.partition(",")
                return Soft(parse_threshold(other), float(temperature), int(seed or 0))
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
        f"{threshold!r} is not a threshold: {why}. Try one like {', '.join(_EXAMPLES)}."
    )
