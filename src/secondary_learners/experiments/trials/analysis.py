"""What a table of trials says: spread over seeds, best of n, good and bad seeds, early stopping.

After Dodge et al. 2020 (arXiv 2002.06305). `analyze` gathers everything below for each task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from secondary_learners.errors import TrialsError
from secondary_learners.experiments.statistics import deviation, mean, one_way, seeds_needed
from secondary_learners.experiments.trials.arms import ArmTest, compare_arms
from secondary_learners.experiments.trials.best import Best, expected_best
from secondary_learners.experiments.trials.initializations import GoodSeeds, good_initializations
from secondary_learners.experiments.trials.stopping import (
    Curves,
    Stopped,
    best_setting,
    paper_setting,
    value_setting,
)
from secondary_learners.experiments.trials.table import Floats, Trial, TrialsTable, grid, present

__all__ = [
    "Analysis",
    "Contrast",
    "Spread",
    "TaskAnalysis",
    "analyze",
    "contrast",
    "diverged",
    "spread",
]

_BUDGETS = (1, 2, 5, 10, 20, 50, 100)
_MOST_BUDGET = 30


@dataclass(frozen=True)
class Spread:
    """How much luck there is.

    deviation: over all trials. within_init, within_order: the mean, over the seeds of that kind
    with two trials or more, of the deviation of the trials that share it; None where there are
    none. Each is the population's (over n), as the paper's are, which makes small groups look
    steadier than the whole.
    """

    trials: int
    mean: float
    deviation: float | None
    within_init: float | None
    within_order: float | None
    best: float
    worst: float


@dataclass(frozen=True)
class Contrast:
    """Analysis of variance of one kind of seed ("init" or "order").

    f, p: the trials of the best seed against those of the worst, as in the paper. These two were
    picked for being far apart, so that p is small by chance alone more often than it says.
    f_all, p_all: all seeds of the kind together, which has no such choice in it.
    """

    kind: str
    best_seed: int
    worst_seed: int
    best_mean: float
    worst_mean: float
    f: float
    p: float
    f_all: float
    p_all: float


@dataclass(frozen=True)
class TaskAnalysis:
    """One task and arm. diverged: None where the table does not say and no floor was given.

    seeds_for: for each difference of means, how many seeds a method show it with 80 % power.
    stopping: the best early-stopping setting for each budget; empty without curves. It was picked
        on these trials, and so looks better than it is.
    advised: the same for the setting that the paper advises, which was not.
    """

    task: str
    arm: str
    spread: Spread
    best_of: tuple[Best, ...]
    contrasts: tuple[Contrast, ...]
    diverged: int | None
    seeds_for: dict[float, int | None]
    stopping: tuple[Stopped, ...]
    advised: tuple[Stopped, ...]


@dataclass(frozen=True)
class Analysis:
    """Everything about a table. notes: what could not be said, and why."""

    tasks: tuple[TaskAnalysis, ...]
    arms: tuple[ArmTest, ...]
    initializations: tuple[tuple[str, GoodSeeds], ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types; an infinite F, of groups that do not vary, becomes None."""
        tasks = []
        for task in self.tasks:
            stopping, advised = (
                [{**asdict(s), "gain": s.gain, "cost": s.setting.cost} for s in listed]
                for listed in (task.stopping, task.advised)
            )
            seeds = [{"difference": d, "seeds": n} for d, n in task.seeds_for.items()]
            lists = {"seeds_for": seeds, "stopping": stopping, "advised": advised}
            tasks.append({**asdict(task), **lists})
        value = {
            "tasks": tasks,
            "arms": [asdict(test) for test in self.arms],
            "initializations": [
                {"arm": arm, **asdict(seeds), "ranks": [list(r) for r in seeds.ranks.items()]}
                for arm, seeds in self.initializations
            ],
            "notes": list(self.notes),
        }
        return _finite(value)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spread(trials: Sequence[Trial]) -> Spread:
    """Mean and deviations of the trials of one task and arm; see `Spread`."""
    _, _, scores = grid(trials)
    values = present(scores)
    return Spread(
        trials=len(values),
        mean=mean(values),
        deviation=deviation(values, ddof=0),
        within_init=_within(scores),
        within_order=_within(scores.T),
        best=max(values),
        worst=min(values),
    )


def _within(scores: Floats) -> float | None:
    """The mean over the rows of [seeds, others] of each row's population deviation."""
    deviations = [deviation(present(row), ddof=0) for row in scores]
    known = [value for value in deviations if value is not None]
    return mean(known) if known else None


def contrast(trials: Sequence[Trial], kind: str) -> Contrast | None:
    """Best against worst seed, and all seeds, of `kind` "init" or "order"; see `Contrast`.

    None where the table is too small: below two seeds of the kind with two trials each.
    """
    inits, orders, scores = grid(trials)
    seeds, rows = (inits, scores) if kind == "init" else (orders, scores.T)
    groups = {
        seed: group
        for seed, group in zip(seeds, map(present, rows), strict=True)
        if len(group) >= 2
    }
    if len(groups) < 2:
        return None
    ordered = sorted(groups, key=lambda seed: mean(groups[seed]))
    worst, best = ordered[0], ordered[-1]
    f, p = one_way([groups[best], groups[worst]])
    f_all, p_all = one_way(list(groups.values()))
    return Contrast(kind, best, worst, mean(groups[best]), mean(groups[worst]), f, p, f_all, p_all)


def diverged(trials: Sequence[Trial], floor: float | None = None) -> int | None:
    """How many trials diverged: those marked so, or whose last score is at or below `floor`.

    floor: the score of always answering with the most frequent class. None when no trial is marked
    either way and there is no floor.
    """
    if floor is None and all(trial.diverged is None for trial in trials):
        return None
    return sum(
        bool(trial.diverged) or (floor is not None and trial.final <= floor) for trial in trials
    )


def analyze(
    table: TrialsTable,
    *,
    floors: Mapping[str, float] | None = None,
    differences: Sequence[float] = (0.01,),
) -> Analysis:
    """Everything this module knows about `table`.

    floors: for each task the score of always answering with the most frequent class, in place of
        those that the table holds.
    differences: of means, for which to say how many seeds would show them.
    """
    floors = {**table.floors, **(floors or {})}
    notes: list[str] = []
    if table.unfinished():
        count = f"{table.unfinished()} of {len(table.trials)}"
        notes.append(f"left out, as they did not run to the end: {count} trials.")
    tasks: list[TaskAnalysis] = []
    tests: list[ArmTest] = []
    for task in table.tasks:
        for arm in table.arms(task):
            trials = table.of(task, arm)
            if trials:
                tasks.append(_task(trials, floors.get(task), differences))
            else:
                notes.append(f"{task} {arm}".strip() + ": no trial ran to the end.")
        for first, second in combinations(table.arms(task), 2):
            test = compare_arms(table, task, first, second)
            if test is None:
                notes.append(f"{task}: {first} and {second} share fewer than two pairs of seeds.")
            else:
                tests.append(test)
    if not tasks:
        raise TrialsError("no trial of the table ran to the end.")
    if not any(task.stopping for task in tasks):
        notes.append("no curves, so nothing on early stopping.")
    elif any(s.setting.start > task.spread.trials for task in tasks for s in task.stopping):
        notes.append(
            "a setting that starts more trials than the table has drew some more than once: its "
            "expected best is too low."
        )
    if all(task.diverged is None for task in tasks):
        notes.append("the table does not say which trials diverged: try --floor TASK=SCORE.")
    seeds = []
    for arm in dict.fromkeys(task.arm for task in tasks):
        try:
            seeds.append((arm, good_initializations(table, arm)))
        except TrialsError as error:
            notes.append(f"{arm or 'initializations'}: not compared over tasks, as {error}.")
    return Analysis(tuple(tasks), tuple(tests), tuple(seeds), tuple(notes))


def _task(
    trials: Sequence[Trial], floor: float | None, differences: Sequence[float]
) -> TaskAnalysis:
    scores = np.array([trial.score for trial in trials])
    spread_, sample = spread(trials), deviation(scores.tolist())
    contrasts = (contrast(trials, "init"), contrast(trials, "order"))
    stopping, advised = _stopping(trials)
    return TaskAnalysis(
        task=trials[0].task,
        arm=trials[0].arm,
        spread=spread_,
        best_of=tuple(
            expected_best(scores, budget) for budget in _BUDGETS if budget <= len(scores)
        ),
        contrasts=tuple(value for value in contrasts if value is not None),
        diverged=diverged(trials, floor),
        seeds_for={
            difference: seeds_needed(difference, sample or 0.0, paired=False)
            for difference in differences
            if sample is not None
        },
        stopping=stopping,
        advised=advised,
    )


def _stopping(trials: Sequence[Trial]) -> tuple[tuple[Stopped, ...], tuple[Stopped, ...]]:
    """The best and the advised setting for each budget, up to half of the trials."""
    if len(trials) < 2 or not all(trial.fractions for trial in trials):
        return (), ()
    known = Curves.of(trials)
    budgets = range(1, min(_MOST_BUDGET, max(1, len(trials) // 2)) + 1)
    return (
        tuple(best_setting(known, budget) for budget in budgets),
        tuple(
            value_setting(known, paper_setting(known.fractions, budget), budget)
            for budget in budgets
        ),
    )
