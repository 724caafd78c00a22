"""Labels standardized, and documents divided into those that fit, tune and report a learner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.learners.config import Calibration, Score
from secondary_learners.text.splitting import deal

__all__ = ["Targets", "calibrate", "targets_of"]

_HELD_OUT = 0.15
_FOLDS = 5

Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Targets:
    """What is to be predicted of n contexts.

    labels: float64 [n], mean 0 and sd 1; `score` has what they were. held_out: [n]. fold: [n], of
    the documents that are not held out.
    """

    labels: Tensor
    score: Score
    held_out: npt.NDArray[np.bool_]
    fold: npt.NDArray[np.int64]


def targets_of(
    labels: npt.NDArray[np.floating],
    documents: Integers,
    domains: Integers | None,
    *,
    unit: str,
    seed: int,
) -> Targets:
    """labels, documents: [n]. Raises SecondaryLearnersError where nothing can be learnt."""
    y = np.array(labels, np.float64)
    if not np.isfinite(y).all():
        raise SecondaryLearnersError(
            f"{int((~np.isfinite(y)).sum())} of {len(y)} labels are not finite. Label again with "
            "`learners run RECIPE`."
        )
    names, document = np.unique(documents, return_inverse=True)
    if len(names) < 3:
        raise SecondaryLearnersError(
            f"a learner is measured on unseen documents, and {len(names)} documents cannot be "
            "divided. Give at least 3, better 50."
        )
    part = _parts(document.reshape(-1), domains, seed)
    held_out = part == 0
    mean, sd = float(y.mean()), float(y.std())
    if not sd > 0 or held_out.sum() < 2:
        raise SecondaryLearnersError(
            f"nothing can be learnt from {len(y)} labels with standard deviation {sd} and "
            f"{int(held_out.sum())} of them held out. Label more contexts."
        )
    return Targets(torch.from_numpy((y - mean) / sd), Score(mean, sd, unit), held_out, part - 1)


def _parts(
    document: npt.NDArray[np.int64], domains: Integers | None, seed: int
) -> npt.NDArray[np.int64]:
    """0 for what is held out, 1 to `_FOLDS` for the folds [n]; whole documents, domain by domain.

    Held-out contexts then mix the domains as all of them do, which calibration relies on. Domains
    of fewer than 6 documents are dealt together.
    """
    counts = np.bincount(document)
    first = np.unique(document, return_index=True)[1]
    domain = np.zeros(len(counts), np.int64) if domains is None else np.asarray(domains)[first]
    stratum = np.where(np.bincount(domain)[domain] < 6, -1, domain)
    shares = [_HELD_OUT, *[(1 - _HELD_OUT) / _FOLDS] * _FOLDS]
    part = np.empty(len(counts), np.int64)
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        part[members] = deal(counts[members].tolist(), shares, seed=seed)
    return part[document]


def calibrate(predictions: Floats, architecture: str) -> Calibration:
    """How predictions for held-out contexts spread; raises where they are all alike."""
    spread = float(predictions.std())
    if not spread > 1e-6:  # below are rounding errors
        raise SecondaryLearnersError(
            f"the {architecture} learner predicts {predictions[0]:.4g} for every held-out context. "
            "Label more contexts, or use other objectives."
        )
    quantiles = np.quantile(predictions, np.linspace(0, 1, 101))
    return Calibration(
        mean=float(predictions.mean()),
        sd=spread,
        # Interpolation may fall by a rounding error between equal values.
        quantiles=tuple(np.maximum.accumulate(quantiles).tolist()),
    )
