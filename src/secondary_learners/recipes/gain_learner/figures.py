"""What evaluation.json says of a fit: on documents it never saw, by length, by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.gains.store import Labels
from secondary_learners.learners.artifact import Learner
from secondary_learners.learners.fitting import Fit
from secondary_learners.learners.statistics import (
    spearman,
    spearman_interval,
    variance_between,
)
from secondary_learners.text.sequences import Examples

__all__ = ["figures_by_domain", "figures_by_length", "held_out_figures", "token_weights"]


def held_out_figures(fitted: Fit) -> dict[str, float]:
    """The figures of one fit for evaluation.json, on documents it never saw."""
    return {
        "spearman": fitted.held_out_spearman,
        "r2": fitted.held_out_r2,
        **fitted.settings,
        "contexts": len(fitted.held_out),
    }


def figures_by_domain(labels: Labels, fitted: Fit) -> dict[str, Any]:
    """The same, with what the domain alone explains, which is no merit of a learner.

    The correlation has an interval over documents; beside it stand those within each domain, the
    share of the gains' variance between domains, and how much of each domain scores 1 or more.
    """
    held, contexts = fitted.held_out, labels.contexts
    gains, domain = labels.gains[held], contexts.domain[held]
    scores = (fitted.predictions - fitted.calibration.mean) / fitted.calibration.sd
    members = {name: domain == number for number, name in enumerate(contexts.domains)}
    return {
        **held_out_figures(fitted),
        "interval": list(spearman_interval(scores, gains, contexts.document[held])),
        "domain_variance": variance_between(gains, domain),
        "within": {
            name: spearman(gains[rows], scores[rows])
            for name, rows in members.items()
            if rows.sum() > 1
        },
        "keep_rate": {
            name: float((scores[rows] >= 1).mean()) for name, rows in members.items() if rows.any()
        },
    }


def figures_by_length(labels: Labels, fitted: Fit) -> dict[str, Any]:
    """How a fit does on short, middling and long held-out examples; nothing for contexts.

    score: the mean, 0 over all of them; gain: the mean of what was measured, so standardised.
    """
    if not isinstance(labels.contexts, Examples):
        return {}
    lengths = labels.contexts.lengths[fitted.held_out]
    gains = (labels.gains[fitted.held_out] - fitted.score.mean) / fitted.score.sd
    scores = (fitted.predictions - fitted.calibration.mean) / fitted.calibration.sd
    thirds = np.array_split(np.argsort(lengths, kind="stable"), 3)
    return {
        "lengths": [
            {
                "shortest": int(lengths[third].min()),
                "longest": int(lengths[third].max()),
                "contexts": len(third),
                "spearman": spearman(gains[third], fitted.predictions[third]),
                "score": float(scores[third].mean()),
                "gain": float(gains[third].mean()),
            }
            for third in thirds
            if len(third) > 1
        ]
    }


def token_weights(
    learner: Learner,
    tokenizer: Any,
    input_ids: npt.NDArray[np.int64],
    attention_mask: npt.NDArray[np.bool_] | None = None,
    count: int = 12,
) -> dict[str, list[str]]:
    """The tokens that raise and lower the score most, by mean share where they occur ≥ 10 times.

    input_ids: [contexts, length]; `attention_mask` of that shape is False at padding.
    """
    sample = input_ids[:4000]
    mask = np.ones(sample.shape, np.bool_) if attention_mask is None else attention_mask[:4000]
    shares, ids = learner.contributions(sample, mask).cpu().numpy()[mask], sample[mask]
    times = np.bincount(ids)
    mean = np.bincount(ids, weights=shares) / np.maximum(times, 1)
    common = np.flatnonzero(times >= min(10, times.max()))
    order = common[np.argsort(mean[common], kind="stable")]
    spelled = [tokenizer.decode([int(token)]).strip() for token in order]
    words = list(dict.fromkeys(word for word in spelled if word.isprintable() and word))
    return {"raise": words[::-1][:count], "lower": words[:count]}
