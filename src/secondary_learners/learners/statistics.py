"""How well predictions agree with labels. Only numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["r2", "ranks", "spearman"]


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


def r2(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Share of the variance of `truth` [n] that `predicted` [n] explains, at most 1.

    Against the mean of `truth` itself, so it is below 0 where that mean predicts better; 0.0 where
    `truth` is constant.
    """
    y, p = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    total = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - p) ** 2).sum()) / total if total else 0.0
