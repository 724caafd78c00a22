"""The little statistics that a comparison over seeds needs, in numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["mean", "permutation_test", "standard_error", "updates_to_reach"]

_EXACT_PAIRS = 20
_DRAWS = 100_000


def mean(values: Sequence[float]) -> float:
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None for a single value, which tells nothing of it."""
    if len(values) < 2:
        return None
    return float(np.std(np.asarray(values, dtype=np.float64), ddof=1) / math.sqrt(len(values)))


def permutation_test(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> float:
    """The two-sided p of a paired sign-flip permutation test on the mean difference.

    first, second: one value a pair (a seed), same length. Exact over all sign patterns up to 20
    pairs; above that 100,000 random patterns drawn from `seed`, the observed one counted in, so p
    is never 0. With n pairs an exact p is at least 2 / 2**n.
    """
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(f"pairs are needed, not {len(first)} values and {len(second)}")
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    # Equal sums may differ in their last bits, by the order of additions.
    reached = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    if len(differences) <= _EXACT_PAIRS:
        return float(np.mean(np.abs(_all_sums(differences)) >= reached))
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(0, _DRAWS, 10_000):
        signs = rng.integers(0, 2, size=(10_000, len(differences)), dtype=np.int8) * 2 - 1
        count += int(np.sum(np.abs(signs @ differences) >= reached))
    return (1 + count) / (1 + _DRAWS)


def _all_sums(differences: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum under each sign pattern, but for a global sign, which the test ignores."""
    sums = differences[:1]
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def updates_to_reach(
    updates: Sequence[float], values: Sequence[float], target: float
) -> float | None:
    """The first point where the curve is at or below `target`, interpolated; None when never.

    updates: increasing; values: the curve there (a perplexity), same length.
    """
    for place, value in enumerate(values):
        if value <= target:
            if place == 0:
                return float(updates[0])
            before = values[place - 1]
            share = (before - target) / (before - value)
            return float(updates[place - 1] + share * (updates[place] - updates[place - 1]))
    return None
