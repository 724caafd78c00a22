"""The statistics that comparisons and trials over seeds need: numpy, and scipy for tails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import MissingExtraError

__all__ = [
    "correlation",
    "crossed_permutation_test",
    "deviation",
    "fewest_pairs",
    "mean",
    "one_way",
    "paired_interval",
    "permutation_test",
    "seeds_needed",
    "smallest_p",
    "standard_error",
    "updates_to_reach",
]

_EXACT_PAIRS = 20
_DRAWS = 100_000
_MOST_SEEDS = 1_000_000


def mean(values: Sequence[float]) -> float:
    return float(np.mean(np.asarray(values, dtype=np.float64)))


def deviation(values: Sequence[float], ddof: int = 1) -> float | None:
    """The standard deviation, over n - `ddof`; None for one value, which tells nothing of it."""
    if len(values) < 2:
        return None
    return float(np.std(np.asarray(values, dtype=np.float64), ddof=ddof))


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None for a single value, which tells nothing of it."""
    spread = deviation(values)
    return None if spread is None else spread / math.sqrt(len(values))


def correlation(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Pearson's; 0 where one of them does not vary."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def one_way(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """F and p of a one-way analysis of variance: do the groups have the same mean?

    groups: at least two, with more values than groups. Values that vary nowhere give F = 0 and
    p = 1; groups that differ but do not vary within, F = inf and p = 0.
    """
    values = [np.asarray(group, dtype=np.float64) for group in groups]
    count = sum(map(len, values))
    if len(values) < 2 or not all(map(len, values)) or count <= len(values):
        raise ValueError(
            f"an analysis of variance needs two groups, none empty, and more values than groups; "
            f"these have {[len(group) for group in values]}"
        )
    middle = np.concatenate(values).mean()
    between = sum(len(group) * (group.mean() - middle) ** 2 for group in values)
    within = sum(((group - group.mean()) ** 2).sum() for group in values)
    freedom = len(values) - 1, count - len(values)
    rounding = 1e-28 * count * max(1.0, float(middle * middle))
    if between <= rounding:
        return 0.0, 1.0
    if within <= rounding:
        return math.inf, 0.0
    value = float((between / freedom[0]) / (within / freedom[1]))
    return value, float(_distributions().f.sf(value, *freedom))


def _distributions() -> Any:
    try:
        from scipy import stats
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "trials") from error
    return stats


def smallest_p(pairs: int) -> float:
    """The smallest p that `permutation_test` can give with so many pairs, drawn or not."""
    return 2.0 ** (1 - pairs)


def fewest_pairs(alpha: float = 0.05) -> int:
    """How many pairs `permutation_test` needs before any p can be at or below `alpha`."""
    return 1 + math.ceil(-math.log2(alpha))


def seeds_needed(
    difference: float,
    spread: float,
    *,
    paired: bool,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """How many seeds show a true difference of means with this power: a two-sided t test.

    spread: the standard deviation over seeds of either method or, when paired, of the differences
    between two runs of one seed. Returns seeds for each method, at least 2, and when paired at
    least `fewest_pairs`; None for no difference, or where a million would not do. Scores with
    diverged trials among them are far from normal: take the figure as a guide then.
    """
    if difference == 0:
        return None
    least = fewest_pairs(alpha) if paired else 2
    if spread == 0:
        return least

    effect = abs(difference) / spread
    low, high = least - 1, least
    while _power(effect, high, paired, alpha) < power:
        if high > _MOST_SEEDS:
            return None
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if _power(effect, middle, paired, alpha) >= power else (middle, high)
        )
    return high


def _power(effect: float, seeds: int, paired: bool, alpha: float) -> float:
    """The chance that a two-sided t test shows a true difference of `effect` deviations."""
    stats = _distributions()
    freedom = seeds - 1 if paired else 2 * seeds - 2
    shift = effect * math.sqrt(seeds if paired else seeds / 2)
    limit = stats.t.isf(alpha / 2, freedom)
    return float(stats.nct.sf(limit, freedom, shift) + stats.nct.cdf(-limit, freedom, shift))


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


def crossed_permutation_test(differences: npt.ArrayLike) -> float:
    """The two-sided p of a sign-flip test on the mean of a crossed design.

    differences: [rows, columns], NaN where there is none: of two methods, for each pair of an
    initialization and an order. Trials that share either are alike, so the signs of whole rows are
    flipped, and of whole columns, each by `permutation_test`, never that of one pair; the larger p
    of both counts. With n rows and n columns it is at least 2 / 2**n. One row or column alone has
    nothing to share, and then the pairs themselves are flipped.
    """
    values = np.nan_to_num(np.asarray(differences, dtype=np.float64))
    sums = [values.sum(axis=axis).tolist() for axis in (0, 1) if values.shape[1 - axis] > 1]
    return max((permutation_test(one, [0.0] * len(one)) for one in sums), default=1.0)


def paired_interval(
    differences: npt.NDArray[np.float64],
    groups: npt.NDArray[np.integer],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The central 95 % of a mean difference over resamples of seeds and of groups of contexts.

    differences: [seeds, contexts], of two methods' losses, a seed the same for both. groups: [n],
    the document of each context: whole documents are drawn, with replacement, as seeds are.
    """
    random = np.random.default_rng(seed)
    names, member = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(member, row, len(names)) for row in differences])
    sizes = np.bincount(member, minlength=len(names))
    means = []
    for _ in range(resamples):
        rows = random.integers(0, len(sums), len(sums))
        drawn = random.integers(0, len(names), len(names))
        means.append(sums[rows][:, drawn].sum() / (len(rows) * sizes[drawn].sum()))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


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
