"""Two arms of a task, on the seeds that both ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secondary_learners.experiments.statistics import (
    correlation,
    crossed_permutation_test,
    deviation,
    seeds_needed,
)
from secondary_learners.experiments.trials.table import Floats, TrialsTable

__all__ = ["ArmTest", "compare_arms"]


@dataclass(frozen=True)
class ArmTest:
    """Two arms of one task, on the seeds that both ran.

    p: of `crossed_permutation_test` on the mean: trials that share an initialization or an order
    are not independent. p_spread: of the same test on each trial's distance from its arm's median
    (Brown and Forsythe's, paired): does one vary more?
    seeds_paired, seeds_unpaired: seeds for each arm that would show a true difference of this size
    with a power of 80 %; the first with the same seeds for both. None for no difference.
    """

    task: str
    first: str
    second: str
    pairs: int
    difference: float
    p: float
    deviations: tuple[float, float]
    p_spread: float
    correlation: float | None
    seeds_paired: int | None
    seeds_unpaired: int | None


def compare_arms(table: TrialsTable, task: str, first: str, second: str) -> ArmTest | None:
    """`second` against `first` on the seeds both ran; None below two such pairs. See `ArmTest`."""
    scores = [
        {(trial.init_seed, trial.order_seed): trial.score for trial in table.of(task, arm)}
        for arm in (first, second)
    ]
    shared = sorted(set(scores[0]) & set(scores[1]))
    if len(shared) < 2:
        return None
    a, b = (np.array([arm[key] for key in shared]) for arm in scores)
    difference = float(b.mean() - a.mean())
    spreads = deviation(a.tolist()) or 0.0, deviation(b.tolist()) or 0.0
    varying = min(spreads) > 0
    return ArmTest(
        task=task,
        first=first,
        second=second,
        pairs=len(shared),
        difference=difference,
        p=_crossed(shared, b - a),
        deviations=spreads,
        p_spread=_crossed(shared, np.abs(b - np.median(b)) - np.abs(a - np.median(a))),
        correlation=correlation(a, b) if varying else None,
        seeds_paired=seeds_needed(difference, deviation((b - a).tolist()) or 0.0, paired=True),
        seeds_unpaired=seeds_needed(
            difference, math.sqrt((spreads[0] ** 2 + spreads[1] ** 2) / 2), paired=False
        ),
    )


def _crossed(pairs: Sequence[tuple[int, int]], differences: Floats) -> float:
    """The p of `crossed_permutation_test` of differences [pairs] by their two seeds."""
    inits, orders = (sorted({pair[kind] for pair in pairs}) for kind in (0, 1))
    values = np.full((len(inits), len(orders)), np.nan)
    for (init, order), difference in zip(pairs, differences, strict=True):
        values[inits.index(init), orders.index(order)] = difference
    return crossed_permutation_test(values)
