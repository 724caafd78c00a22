"""Labels that no language model makes: how like the objective, and unlike the pool, a context is.

A classifier, or n-gram importance weights, fitted on the objective against a pool; see
`learners.selectors`. They are what a user would take instead of gains, made, published and loaded
like them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.gains.problem import Labeller, Problem
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.settings import LabelSettings, check_one_step
from secondary_learners.learners.selectors import fit_selector, net_scores

__all__ = ["PART", "check", "prepare", "scorer", "unit"]

PART = 4096
_UNITS = {"classifier": "log odds", "dsir": "mean log ratio of frequencies"}


def check(settings: LabelSettings) -> None:
    check_one_step(settings)
    if settings.unit != "nats":
        raise SecondaryLearnersError(
            f"{settings.method} labels are not in {settings.unit}. Try --method exact."
        )


def unit(settings: LabelSettings) -> str:
    return _UNITS[settings.method]


def prepare(problem: Problem) -> Labeller:
    if not problem.against:
        raise SecondaryLearnersError(
            f"{problem.settings.method} labels are against a pool, and none was given. "
            "Try `against=pool`."
        )
    return Labeller(scorer(problem, problem.settings.method), PART)


def scorer(problem: Problem, name: str) -> Callable[[Rows], Tensor]:
    """Scores [n] of rows by the selector of that name, fitted on the problem's objective and pools.

    It reads the tokens that count. Raises what `fit_selector` raises.
    """
    fitted = fit_selector(
        name,
        _Counted.of([problem.objective]),
        _Counted.of(problem.against),
        vocabulary=problem.vocabulary,
        seed=problem.settings.seed,
    )

    def scores(rows: Rows) -> Tensor:
        counts = None if rows.counts is None else rows.counts.cpu().numpy()
        values = net_scores(fitted.net, rows.ids.cpu().numpy(), counts)
        return torch.from_numpy(values).to(rows.ids.device)

    return scores


@dataclass(frozen=True, eq=False)
class _Counted:
    """The tokens that count of several rows, as `fit_selector` reads them."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    document: NDArray[np.int64]

    @classmethod
    def of(cls, several: Sequence[Rows]) -> _Counted:
        """Documents of different rows are kept apart."""
        width, first = max(rows.length for rows in several), 0
        ids, masks, documents = [], [], []
        for rows in several:
            counts = torch.ones_like(rows.ids).bool() if rows.counts is None else rows.counts
            wider = (0, width - rows.length)
            ids.append(functional.pad(rows.ids, wider).cpu().numpy())
            masks.append(functional.pad(counts, wider).cpu().numpy())
            own = np.arange(len(rows)) if rows.document is None else rows.document.cpu().numpy()
            documents.append(own + first)
            first = int(documents[-1].max()) + 1
        return cls(np.concatenate(ids), np.concatenate(masks), np.concatenate(documents))
