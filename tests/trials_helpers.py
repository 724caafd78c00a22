"""Made-up trials with curves."""

from __future__ import annotations

from typing import Any

import numpy as np

from secondary_learners.experiments.trials.table import Trial


def trial(task: str, init: int, order: int, scores: list[float], **more: Any) -> Trial:
    """With a curve: `scores` at equal steps to the end of the training."""
    fractions = tuple((place + 1) / len(scores) for place in range(len(scores)))
    return Trial(task, init, order, max(scores), fractions=fractions, scores=tuple(scores), **more)


def sweep(task: str, seed: int, inits: int = 5, orders: int = 5, arm: str = "") -> list[Trial]:
    """A grid whose initializations differ, where a fifth diverge, and curves tell early."""
    rng = np.random.default_rng(seed)
    good = rng.normal(0, 0.02, inits)
    rise = 1 - np.exp(-4 * np.arange(1, 11) / 10)
    trials = []
    for init in range(inits):
        for order in range(orders):
            lost = bool(rng.random() < 0.2)
            end = 0.5 if lost else 0.65 + good[init] + rng.normal(0, 0.02)
            scores = 0.5 + (end - 0.5) * rise + rng.normal(0, 0.004, 10)
            trials.append(trial(task, init, order, scores.tolist(), arm=arm, diverged=lost))
    return trials
