"""How a student's scores agree with its teacher's, and how fast both are."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.learners.artifact import Learner
from secondary_learners.learners.statistics import spearman, spearman_interval
from secondary_learners.recipes.student.contexts import TextContexts

__all__ = ["agreement", "megabytes_a_second", "word_weights"]

Floats = npt.NDArray[np.float64]
_KEPT = 0.3


def agreement(teacher: Floats, student: Floats, contexts: TextContexts) -> dict[str, Any]:
    """On contexts that nothing was fitted on, their scores [n] by both.

    kept: the share of the teacher's best 30 % that is also in the student's.
    """
    low, high = spearman_interval(teacher, student, contexts.documents)
    within = {
        name: spearman(teacher[part], student[part])
        for number, name in enumerate(contexts.domains)
        if (part := contexts.domain == number).sum() > 1
    }
    best = [scores >= np.quantile(scores, 1 - _KEPT) for scores in (teacher, student)]
    _, document = np.unique(contexts.documents, return_inverse=True)
    count = np.bincount(document)
    means = [np.bincount(document, scores) / count for scores in (teacher, student)]
    return {
        "spearman": spearman(teacher, student),
        "interval": [low, high],
        "contexts": len(teacher),
        "documents": len(count),
        "spearman_of_documents": spearman(*means) if len(count) > 1 else None,
        "kept": float(best[1][best[0]].mean()),
        "within": within,
    }


def megabytes_a_second(score: Callable[[], object], texts: Sequence[str]) -> float:
    """UTF-8 of `texts` by the CPU time that the better of two calls takes."""
    seconds = []
    for _ in range(2):
        begun = time.process_time()
        score()
        seconds.append(time.process_time() - begun)
    return sum(len(text.encode()) for text in texts) / 1e6 / max(min(seconds), 1e-9)


def word_weights(learner: Learner, texts: Sequence[str], most: int = 12) -> dict[str, list[str]]:
    """The words that raise and lower the score most, by mean share where they occur ≥ 10 times."""
    shares: dict[str, list[float]] = defaultdict(list)
    for text in texts:
        for word, share in learner.text_contributions(text):
            shares[word.strip()].append(share)
    mean = {word: float(np.mean(each)) for word, each in shares.items() if len(each) >= 10}
    order = sorted(mean, key=mean.__getitem__)
    return {
        "raise": [word for word in reversed(order[-most:]) if mean[word] > 0],
        "lower": [word for word in order[:most] if mean[word] < 0],
    }
