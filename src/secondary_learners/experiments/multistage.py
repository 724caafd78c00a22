"""Comparing multistage filtering with plain training and random skipping: settings, runs, table.

The runs themselves are in `multistage_runs`.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["ARMS", "HEADER", "SHARED", "StagedRun", "StagedSettings", "cells", "summary"]

ARMS = ("plain", "multistage", "random", "learner", "random-learner")
"""Every example; naive Bayes as the meta predictor; random skipping at that arm's rate; a learner
as the meta predictor, from the first step; random skipping at that one's rate."""
SHARED = (
    "examples",
    "tested",
    "batch_size",
    "like_lengths",
    "learning_rate",
    "longest",
    "dropout",
    "bf16",
)
"""The settings that training without a filter depends on."""


@dataclass(frozen=True)
class StagedSettings:
    """What a run depends on, but for its task, arm, epochs and seed.

    examples: of the training set, 0 for all; tested: of the development set, 0 for all. longest: in
    tokens. like_lengths: whether rows of like length come together, as `LikeLengths` has them.
    admit_above and smoothing are of `NaiveBayes`, learner_threshold of `LearnerPredictor`;
    admit_share, unless it is 0, is the share that either lets pass, in place of admit_above and
    learner_threshold. forwards is of `FilteredTrainer`, the others of `MultistageFilter`.
    """

    examples: int = 0
    tested: int = 2000
    batch_size: int = 8
    like_lengths: bool = False
    learning_rate: float = 3e-4
    longest: int = 96
    dropout: float = 0.1
    bf16: bool = False
    warmup: float = 0.05
    bound: float = 0.6
    latest: float = 0.5
    window: int = 128
    keep_at_least: float = 0.0
    reestimate: bool = False
    admit_above: float = 0.5
    admit_share: float = 0.0
    smoothing: float = 0.05
    learner_threshold: float = 0.0
    forwards: str = "auto"

    def __post_init__(self) -> None:
        least = {"examples": 0, "tested": 0, "batch_size": 1, "longest": 1, "window": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise SecondaryLearnersError(
                    f"{name} is {getattr(self, name)}, and must be {value} or more."
                )
        if not self.learning_rate > 0 or not 0 <= self.dropout < 1:
            raise SecondaryLearnersError(
                f"learning_rate is {self.learning_rate} and dropout {self.dropout}. "
                "Try 3e-4 and 0.1."
            )
        if not 0 <= self.admit_share < 1:
            raise SecondaryLearnersError(
                f"admit_share is {self.admit_share}, and must be from 0 to under 1. Try 0.3."
            )


@dataclass(frozen=True)
class StagedRun:
    """One run. score: the task's metric on the development set.

    deciding_seconds: of `cpu_seconds`, what the filter itself took: no forward pass, no moving of
    rows.
    """

    task: str
    arm: str
    epochs: int
    seed: int
    seen: int
    forwarded: int
    trained: int
    updates: int
    cpu_seconds: float
    deciding_seconds: float
    score: float


def summary(done: Sequence[StagedRun]) -> list[dict[str, Any]]:
    """One row for each task, number of epochs and arm; ratios are to plain training's figures."""
    rows = []
    groups = list(dict.fromkeys((run.task, run.epochs, run.arm) for run in done))
    for name, epochs, arm in groups:
        group = [run for run in done if (run.task, run.epochs, run.arm) == (name, epochs, arm)]
        plain = [run for run in done if (run.task, run.epochs, run.arm) == (name, epochs, "plain")]

        scores = [run.score for run in group]
        rows.append(
            {
                "task": name,
                "epochs": epochs,
                "arm": arm,
                "seeds": len(group),
                "trained": _mean(group, "trained"),
                "forwarded": _mean(group, "forwarded"),
                "updates": _mean(group, "updates"),
                "cpu_seconds": _mean(group, "cpu_seconds"),
                # of what the same number of steps takes without a filter
                "overhead": _mean(group, "deciding_seconds") / _mean(plain, "cpu_seconds"),
                "score": _mean(group, "score"),
                "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
                "fewer_trained": _mean(plain, "trained") / max(1, _mean(group, "trained")),
                "fewer_forwarded": _mean(plain, "forwarded") / max(1, _mean(group, "forwarded")),
                "less_time": _mean(plain, "cpu_seconds") / _mean(group, "cpu_seconds"),
                "points_lost": 100 * (_mean(plain, "score") - _mean(group, "score")),
            }
        )
    return rows


def _mean(runs: Sequence[StagedRun], figure: str) -> float:
    return statistics.fmean(getattr(run, figure) for run in runs)


HEADER = (
    "task",
    "epochs",
    "arm",
    "trained",
    "run forward",
    "CPU s",
    "score",
    "fewer",
    "less time",
    "lost",
    "overhead",
)


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of `summary` as text, under `HEADER`."""
    return (
        row["task"],
        str(row["epochs"]),
        row["arm"],
        f"{row['trained']:,.0f}",
        f"{row['forwarded']:,.0f}",
        f"{row['cpu_seconds']:.0f}",
        f"{100 * row['score']:.1f} ± {100 * row['deviation']:.1f}",
        f"{row['fewer_trained']:.2f}",
        f"{row['less_time']:.2f}",
        f"{row['points_lost']:.1f}",
        f"{row['overhead']:.1%}",
    )
