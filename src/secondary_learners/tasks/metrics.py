"""How well classes are told: GLUE's metrics, and what always guessing one class scores."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["METRICS", "Metrics", "floor", "matthews", "metrics_of", "score"]

METRICS = ("accuracy", "f1", "matthews")


@dataclass(frozen=True)
class Metrics:
    """Shares from 0 to 1. mcc: Matthews' correlation coefficient, which CoLA is judged by."""

    examples: int
    accuracy: float
    mcc: float


def metrics_of(logits: npt.NDArray[np.float32], targets: npt.ArrayLike) -> Metrics:
    """How well logits [examples, classes] tell the class numbers [examples]."""
    true, guesses = np.asarray(targets), logits.argmax(axis=1)
    return Metrics(len(true), score("accuracy", guesses, true), matthews(true, guesses))


def score(metric: str, guesses: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """One of METRICS of guessed class numbers against the true ones, [examples] each.

    f1 is that of class 1 of two.
    """
    guess, true = np.asarray(guesses), np.asarray(targets)
    if metric == "accuracy":
        return float(np.mean(guess == true))
    if metric == "matthews":
        return matthews(true, guess)
    claimed = int(np.sum(guess == 1)) + int(np.sum(true == 1))
    return 2 * int(np.sum((guess == 1) & (true == 1))) / claimed if claimed else 0.0


def matthews(targets: npt.ArrayLike, guesses: npt.ArrayLike) -> float:
    """Matthews' correlation coefficient, for two classes or more; 0 when one side never varies."""
    true, guess = np.asarray(targets), np.asarray(guesses)
    kinds = np.union1d(true, guess)
    t = [int(np.sum(true == kind)) for kind in kinds]
    p = [int(np.sum(guess == kind)) for kind in kinds]
    count = len(true)
    spread = math.sqrt((count**2 - sum(n * n for n in p)) * (count**2 - sum(n * n for n in t)))
    if not spread:
        return 0.0
    by_chance = sum(a * b for a, b in zip(t, p, strict=True))
    return (int(np.sum(true == guess)) * count - by_chance) / spread


def floor(metric: str, train: npt.ArrayLike, dev: npt.ArrayLike) -> float:
    """The score on `dev` of always guessing the most frequent class of `train`."""
    ((most, _),) = Counter(np.asarray(train).tolist()).most_common(1)
    return score(metric, np.full_like(np.asarray(dev), most), dev)
