"""How good is the best of n trials? Expected validation performance (arXiv 1909.03004)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secondary_learners.errors import TrialsError
from secondary_learners.experiments.trials.table import Floats

__all__ = ["Best", "best_weights", "expected_best"]


@dataclass(frozen=True)
class Best:
    """The best of `budget` full runs.

    mean: its expectation. deviation: its standard deviation from one sweep of that size to another,
    too small, and at last 0, where a sweep is more than half of the trials that were run.
    """

    budget: int
    mean: float
    deviation: float


def expected_best(
    scores: Sequence[float] | Floats, budget: int, *, replacement: bool = False
) -> Best:
    """The expected best score of `budget` trials, from the scores of those that were run.

    Over all choices of `budget` of the trials: without replacement, which is unbiased for the best
    of `budget` fresh trials, but needs at least as many trials; or with, as published figures
    mostly are, which is biased downwards.

    Raises TrialsError for more than the table holds, without replacement.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    weights = best_weights(len(ordered), budget, replacement=replacement)
    mean = float(weights @ ordered)
    return Best(budget, mean, float(np.sqrt(weights @ (ordered - mean) ** 2)))


def best_weights(trials: int, budget: int, *, replacement: bool = False) -> Floats:
    """The chance of each trial, from the worst to the best, to be the best of `budget` drawn.

    Returns [trials], adding up to 1. Without replacement that is C(i - 1, n - 1) / C(N, n) for the
    i-th of N, from the best downwards, each by its ratio to the one above, which never overflows.
    """
    if budget < 1 or trials < 1 or (budget > trials and not replacement):
        raise TrialsError(
            f"the best of {budget} cannot be told from {trials} trials. Ask for a budget between 1 "
            f"and {trials}, run more trials, or draw with replacement."
        )
    place = np.arange(1, trials + 1, dtype=np.float64)
    if replacement:
        return np.diff((np.concatenate([[0.0], place]) / trials) ** budget)
    # w[i - 1] / w[i] = (i - n) / (i - 1), and w[N] = n / N
    ratios = np.maximum(place[:0:-1] - budget, 0) / (place[:0:-1] - 1)
    downwards = np.concatenate([[1.0], np.cumprod(ratios)]) * (budget / trials)
    return np.ascontiguousarray(downwards[::-1])
