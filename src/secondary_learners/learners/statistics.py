"""How well predictions agree with labels. Only numpy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "bootstrap_intervals",
    "r2",
    "ranks",
    "spearman",
    "spearman_interval",
    "variance_between",
]

_DRAWS = 1000
Key = TypeVar("Key", bound=Hashable)


def ranks(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Ranks from 1 up, float64 [n]; equal values share the average of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    shared: npt.NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return shared[inverse.reshape(-1)]


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Rank correlation of two vectors [n] in -1..1; 0.0 where one of them is constant."""
    x, y = ranks(a), ranks(b)
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"two vectors of the same length from 2 up are needed: {len(x)}, {len(y)}")
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else 0.0


def spearman_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, groups: npt.ArrayLike | None = None, *, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of `spearman(a, b)`, from 1,000 resamples.

    groups: an integer for each pair [n]: pairs of one group (the contexts of one document) are
    drawn together, as they are no independent witnesses. By default each is its own group.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    labels = np.arange(len(x)) if groups is None else np.unique(groups, return_inverse=True)[1]
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    random = np.random.default_rng(seed)
    values = []
    for _ in range(_DRAWS):
        drawn = random.integers(0, len(members), size=len(members))
        rows = np.concatenate([members[group] for group in drawn])
        if len(rows) > 1:
            values.append(spearman(x[rows], y[rows]))
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def r2(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Share of the variance of `truth` [n] that `predicted` [n] explains, at most 1.

    Against the mean of `truth` itself, so it is below 0 where that mean predicts better; 0.0 where
    `truth` is constant.
    """
    y, p = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    total = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - p) ** 2).sum()) / total if total else 0.0


def variance_between(values: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """The share of the variance of `values` [n] that lies between groups; 0.0 where none varies.

    groups: an integer for each value [n].
    """
    y, members = np.asarray(values, np.float64), np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(members)
    means = np.bincount(members, y) / counts
    total = float(((y - y.mean()) ** 2).sum())
    return float((counts * (means - y.mean()) ** 2).sum()) / total if total else 0.0


def bootstrap_intervals(
    count: int,
    statistics: Mapping[Key, Callable[[npt.NDArray[np.int64]], float]],
    *,
    resamples: int,
    seed: int,
) -> dict[Key, tuple[float, float]]:
    """The central 95 % of each statistic over resamples of `count` rows with replacement.

    statistics: by name, of the positions of the rows drawn. All see the same draws, so that one of
    them may be the difference of two others.
    """
    random = np.random.default_rng(seed)
    drawings: dict[Key, list[float]] = {name: [] for name in statistics}
    for _ in range(resamples):
        drawn = random.integers(0, count, count)
        for name, statistic in statistics.items():
            drawings[name].append(statistic(drawn))
    ends = {name: np.quantile(values, [0.025, 0.975]) for name, values in drawings.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}
