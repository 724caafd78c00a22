"""Good initializations: do tasks agree on which ones are?

After Dodge et al. 2020 (arXiv 2002.06305).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from secondary_learners.errors import MissingExtraError, TrialsError
from secondary_learners.experiments.statistics import correlation, mean
from secondary_learners.experiments.trials.table import Floats, TrialsTable, grid, present

__all__ = ["GoodSeeds", "good_initializations"]

_DRAWS = 10_000


@dataclass(frozen=True)
class GoodSeeds:
    """Do tasks agree on which initializations are good?

    ranks: mean rank over the tasks of each seed, 1 for the best, best first.
    agreement: Kendall's W over the tasks, 0 for none, 1 for the same order in each.
    p: the chance of as much under independent orders, from 10,000 drawn ones.
    correlations: Spearman's for each pair of tasks.
    """

    tasks: tuple[str, ...]
    ranks: dict[int, float]
    agreement: float
    p: float
    correlations: dict[str, float]


def good_initializations(table: TrialsTable, arm: str, *, seed: int = 0) -> GoodSeeds:
    """Which initializations are good on several tasks; see `GoodSeeds`.

    Each task ranks the seeds that all tasks have by the mean of their trials. Raises TrialsError
    for a table of ranks, below two tasks or below three shared seeds.
    """
    if table.ranks:
        raise TrialsError(
            "its seeds are ranks within each task, so the same number is not the same "
            "initialization"
        )
    tasks = [task for task in table.tasks if arm in table.arms(task) and table.of(task, arm)]
    means: list[dict[int, float]] = []
    for task in tasks:
        inits, _, scores = grid(table.of(task, arm))
        means.append({init: mean(present(row)) for init, row in zip(inits, scores, strict=True)})
    shared = sorted(set(means[0]).intersection(*means[1:])) if means else []
    if len(tasks) < 2 or len(shared) < 3:
        raise TrialsError(
            f"it takes two tasks that share three initializations, and here are {len(tasks)} and "
            f"{len(shared)}"
        )
    ranks = _ranks([[-task[init] for init in shared] for task in means])
    agreement = _kendall(ranks[None])[0]
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.broadcast_to(ranks, (_DRAWS, *ranks.shape)), axis=2)
    p = (1 + int(np.sum(_kendall(shuffled) >= agreement - 1e-12))) / (1 + _DRAWS)
    average = dict(zip(shared, ranks.mean(axis=0).tolist(), strict=True))
    return GoodSeeds(
        tasks=tuple(tasks),
        ranks=dict(sorted(average.items(), key=lambda item: item[1])),
        agreement=float(agreement),
        p=p,
        correlations={
            f"{tasks[a]}, {tasks[b]}": correlation(ranks[a], ranks[b])
            for a, b in combinations(range(len(tasks)), 2)
        },
    )


def _ranks(values: Sequence[Sequence[float]]) -> Floats:
    """In each row 1 for the lowest; equal values share the mean of their places."""
    try:
        from scipy.stats import rankdata
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "trials") from error
    ranks: Floats = rankdata(values, axis=1)
    return ranks


def _kendall(ranks: Floats) -> Floats:
    """Kendall's W, corrected for ties, of [draws, tasks, seeds]; 0 where all is tied."""
    _, tasks, seeds = ranks.shape
    total = ranks.sum(axis=1)
    middle = tasks * (seeds + 1) / 2
    spread_ = ((total - middle) ** 2).sum(axis=1)
    # Without ties each task's ranks vary by (k^3 - k) / 12.
    most = tasks * ((ranks - (seeds + 1) / 2) ** 2).sum(axis=(1, 2))
    value: Floats = np.divide(spread_, most, out=np.zeros_like(spread_), where=most > 0)
    return value
