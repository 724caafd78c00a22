"""The ridge regression of a student on what its teacher says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.learners.hashed_text import features_of, windows_of
from secondary_learners.learners.ridge import Features, RidgeFit, fit_ridge
from secondary_learners.learners.targets import Targets

__all__ = ["fit_student"]


def fit_student(
    texts: Sequence[str], targets: Targets, *, words: int, grams: int, window: int
) -> tuple[npt.NDArray[np.float32], RidgeFit]:
    """The weight of every bucket [words + grams], and the regression on those that occur."""
    rows, columns, values = [], [], []
    for owner, windows in windows_of(texts, window):
        at, column, value = features_of(windows, words, grams)
        text = owner[windows.piece]
        size = np.bincount(text, windows.sizes, len(texts))
        share = windows.sizes / np.maximum(1, size[text])  # of its text, as the net weighs it
        rows.append(text[at])
        columns.append(column)
        values.append(value * share[at])
    present, compact = np.unique(np.concatenate(columns), return_inverse=True)
    where = torch.from_numpy(np.stack([np.concatenate(rows), compact]))
    entries = torch.from_numpy(np.concatenate(values))
    fitted = fit_ridge(Features.of(where, entries, (len(texts), len(present))), targets)
    weight = np.zeros(words + grams, np.float32)
    weight[present] = fitted.weights.numpy()
    return weight.astype(np.float16).astype(np.float32), fitted
