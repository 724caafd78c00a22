"""The early stopping of arXiv 2002.06305: start t trials, look at fraction f, finish the best p."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import TrialsError
from secondary_learners.experiments.trials.best import Best, expected_best
from secondary_learners.experiments.trials.table import Floats, Trial, curves

__all__ = [
    "STARTED_MOST",
    "Curves",
    "Setting",
    "Stopped",
    "best_setting",
    "expected_stopped",
    "paper_setting",
    "settings_within",
    "value_setting",
]

STARTED_MOST = 4  # trials for each full run of the budget, in a search for the best setting
_SHUFFLES = 8


@dataclass(frozen=True)
class Setting:
    """Start `start` trials, look after `fraction` of the training, finish the best `finish`.

    fraction 1 is not early stopping: start = finish.
    """

    start: int
    fraction: float
    finish: int

    def __post_init__(self) -> None:
        if not (0 <= self.finish <= self.start and self.start > 0 and 0 < self.fraction <= 1):
            raise TrialsError(
                f"{self} is not early stopping: 0 <= finish <= start and 0 < fraction <= 1 must "
                "hold, with at least one trial started."
            )

    @property
    def cost(self) -> float:
        """In full runs: t f + p (1 - f)."""
        return self.start * self.fraction + self.finish * (1 - self.fraction)

    @property
    def stops(self) -> bool:
        return self.fraction < 1 and self.finish < self.start

    def __str__(self) -> str:
        if not self.stops:
            return f"run {self.start} to the end"
        return f"start {self.start}, look at {self.fraction:.0%}, finish {self.finish}"


@dataclass(frozen=True)
class Stopped:
    """A setting, the expected best score under it, and that score's standard deviation.

    plain: the best of as many full runs as its budget, without early stopping.
    """

    setting: Setting
    mean: float
    deviation: float
    plain: Best

    @property
    def gain(self) -> float:
        return self.mean - self.plain.mean


@dataclass(frozen=True)
class Curves:
    """fractions [points], increasing to 1; so_far [trials, points]: the best score up to there."""

    fractions: Floats
    so_far: Floats

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Curves:
        """Of finished trials. Raises TrialsError without curves, see `table.curves`."""
        fractions, scores = curves(trials)
        so_far = np.maximum.accumulate(scores, axis=1)
        so_far[:, -1] = [trial.score for trial in trials]  # also from points not shared
        return cls(fractions, so_far)

    def __len__(self) -> int:
        return len(self.so_far)

    def draw(self, places: npt.NDArray[np.int64]) -> Curves:
        return Curves(self.fractions, self.so_far[places])

    def repeated(self, budget: int) -> Curves:
        """These trials as often as it takes to hold twice what a setting of `budget` may start.

        So that few trials can stand for the many that a setting starts; the best that then comes
        out is at most the best of these, and the expected best too low. Enough trials are left as
        they are.
        """
        copies = math.ceil(2 * STARTED_MOST * budget / len(self))
        return self.draw(np.tile(np.arange(len(self)), copies))

    @property
    def full(self) -> Floats:
        """The score of each trial, run to its end. [trials]"""
        return np.ascontiguousarray(self.so_far[:, -1])

    def at(self, fraction: float) -> Floats:
        """The best score of each trial up to `fraction`. [trials]"""
        places = np.flatnonzero(np.isclose(self.fractions, fraction, rtol=0, atol=1e-9))
        if not len(places):
            raise TrialsError(
                f"no evaluation at fraction {fraction:g}: there are "
                f"{', '.join(f'{f:.4g}' for f in self.fractions)}."
            )
        return np.ascontiguousarray(self.so_far[:, places[0]])


def expected_stopped(
    trials: Curves, setting: Setting, *, seed: int = 0, shuffles: int = _SHUFFLES
) -> tuple[float, float]:
    """The mean and deviation of the best score under `setting`, over all draws of `start` trials.

    Exact, not sampled: every draw of `start` of the trials without replacement counts once. Trials
    are compared by their best score up to the fraction; what was stopped keeps that score. Ties
    are broken at random, the mean of `shuffles` orders drawn from `seed`.
    """
    if setting.start > len(trials):
        raise TrialsError(
            f"{setting}: the table has only {len(trials)} trials. Run more, or start fewer."
        )
    if not setting.stops:
        best = expected_best(trials.full, setting.start)
        return best.mean, best.deviation
    partial, full = trials.at(setting.fraction), trials.full
    if setting.finish == 0:
        best = expected_best(partial, setting.start)
        return best.mean, best.deviation
    chances = _chances(len(trials), setting)
    rng = np.random.default_rng(seed)
    moments = []
    for _ in range(shuffles if _ties_matter(partial, full) else 1):
        order = rng.permutation(len(full))
        order = order[np.argsort(-partial[order], kind="stable")]
        moments.append(_moments(full[order], setting.finish, chances))
    mean = sum(first for first, _ in moments) / len(moments)
    square = sum(second for _, second in moments) / len(moments)
    middle = full.mean()  # moments are about it, so that the difference loses no digits
    return float(middle + mean), math.sqrt(max(0.0, square - mean * mean))


def _ties_matter(partial: Floats, full: Floats) -> bool:
    return len(np.unique(partial)) < len(np.unique(np.stack([partial, full]), axis=1).T)


def _chances(count: int, setting: Setting) -> Floats:
    """The chance that the last trial finished is the j-th best of all so far. [trials]"""
    log = _log_factorials(count)
    j = np.arange(1, count + 1)
    value = (
        _log_choose(log, j - 1, setting.finish - 1)
        + _log_choose(log, count - j, setting.start - setting.finish)
        - _log_choose(log, np.array([count]), setting.start)
    )
    return np.exp(value)


def _moments(full: Floats, finish: int, chances: Floats) -> tuple[float, float]:
    """First and second moment, about its mean, of the best of `full` [trials, best look first].

    Given that the last one finished is the j-th, the other finish - 1 are any of those before it:
    their best is at most y with chance C(c, finish - 1) / C(j - 1, finish - 1), when c of them are.
    """
    values = np.unique(full)
    below = full[:, None] <= values  # [trials, values]
    counts: npt.NDArray[np.int64] = np.cumsum(below, axis=0) - below  # among those before the j-th
    log = _log_factorials(len(full))
    before = np.arange(len(full))
    with np.errstate(invalid="ignore"):
        chance = np.exp(
            _log_choose(log, counts, finish - 1) - _log_choose(log, before, finish - 1)[:, None]
        )
    reachable = chances > 0
    cdf = chances[reachable] @ np.where(below, chance, 0.0)[reachable]
    weights = np.diff(cdf, prepend=0.0)
    centered = values - full.mean()
    return float(weights @ centered), float(weights @ centered**2)


def _log_factorials(count: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])


def _log_choose(log: Floats, n: npt.NDArray[np.int64], k: int) -> Floats:
    """log C(n, k), -inf where there is no such choice; log: of the factorials."""
    rest = np.maximum(n - k, 0)
    return np.where(n >= k, log[n] - log[k] - log[rest], -np.inf)


def settings_within(
    fractions: Floats, budget: int, *, finish_none: bool = True
) -> Iterator[Setting]:
    """The early-stopping settings that spend `budget` full runs.

    For each fraction and number finished, as many started as the budget allows, but at most four
    times the budget. finish_none: also those that finish no trial and keep what was reached.
    """
    most = STARTED_MOST * budget
    for fraction in fractions[fractions < 1].tolist():
        for finish in range(0 if finish_none else 1, budget):
            start = math.floor((budget - finish * (1 - fraction)) / fraction + 1e-9)
            if finish < min(start, most):
                yield Setting(min(start, most), fraction, finish)


def paper_setting(fractions: Floats, budget: int) -> Setting:
    """What the paper advises before any trial: look at 20 to 30 %, finish half of the budget.

    The look is at the fraction nearest to 25 %, and as many are started as the budget allows. A
    budget of 1, or trials that are only looked at late, leave nothing to stop.
    """
    fraction = float(min(fractions, key=lambda value: round(abs(value - 0.25), 9)))
    finish = max(1, budget // 2)
    start = math.floor((budget - finish * (1 - fraction)) / fraction + 1e-9)
    if fraction == 1 or start <= finish:
        return Setting(budget, 1.0, budget)
    return Setting(min(start, STARTED_MOST * budget), fraction, finish)


def value_setting(trials: Curves, setting: Setting, budget: int, *, seed: int = 0) -> Stopped:
    """The expected best under `setting` and without early stopping, from the same draws."""
    drawn_from = trials.repeated(budget)
    mean, deviation = expected_stopped(drawn_from, setting, seed=seed)
    return Stopped(setting, mean, deviation, expected_best(drawn_from.full, budget))


def best_setting(
    trials: Curves, budget: int, *, finish_none: bool = True, seed: int = 0
) -> Stopped:
    """The setting with the highest expected best score of all that cost at most `budget` full runs.

    Over draws from `trials.repeated(budget)`, and so is the best without early stopping. The winner
    of many settings compared on the same trials looks better than it is: `plan` says by how much.
    """
    drawn_from = trials.repeated(budget)
    plain = expected_best(drawn_from.full, budget)
    best = Stopped(Setting(budget, 1.0, budget), plain.mean, plain.deviation, plain)
    for setting in settings_within(trials.fractions, budget, finish_none=finish_none):
        mean, deviation = expected_stopped(drawn_from, setting, seed=seed)
        if mean > best.mean + 1e-12:
            best = Stopped(setting, mean, deviation, plain)
    return best
