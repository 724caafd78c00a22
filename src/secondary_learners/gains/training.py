"""The few updates that a horizon is: the fine-tuning to come, begun on the objective or a pool."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secondary_learners.errors import DivergedError
from secondary_learners.gains.problem import Problem, mean_gradient, restored
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.settings import LabelSettings

__all__ = ["update_batches", "weights_after"]


def weights_after(problem: Problem, rows: Rows, repeat: int = 0) -> list[Tensor]:
    """The trained parameters after the horizon's updates on `rows`; the model's stay as they are.

    A horizon of 1 is one step along the gradient of all rows. The updates of a longer one take
    `update_batch` rows each, see `update_batches`, at the constant `update_rate`, without weight
    decay, dropout or clipping. repeat: which of several seeded orders. The same arguments give the
    same weights, so nothing of them needs to be stored. Raises DivergedError.
    """
    settings = problem.settings
    with restored(problem.model) as (parameters, _):
        if settings.horizon == 1:
            problem.step.apply(parameters, mean_gradient(problem, rows))
        else:
            _update(problem, rows, update_batches(len(rows), settings, repeat))
        weights = [parameter.detach().clone() for parameter in parameters]
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise DivergedError(
            f"{settings.horizon} updates at a learning rate of {settings.update_rate:g} end in "
            "weights that are not finite. Try a lower learning rate."
        )
    return weights


def update_batches(count: int, settings: LabelSettings, repeat: int) -> list[NDArray[np.int64]]:
    """Which of `count` rows each update takes: seeded permutations, one after the other."""
    size = min(settings.update_batch, count)
    random = np.random.default_rng([settings.seed, repeat])
    passes = -(-settings.horizon * size // count)
    order = np.concatenate([random.permutation(count) for _ in range(passes)])
    return np.split(order[: settings.horizon * size], settings.horizon)


def _update(problem: Problem, rows: Rows, batches: list[NDArray[np.int64]]) -> None:
    """Train in place, with the very optimizer; gradients that the parameters hold stay."""
    settings, parameters = problem.settings, problem.parameters
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "adamw":
        optimizer = torch.optim.AdamW(
            parameters, lr=settings.update_rate, eps=settings.eps, weight_decay=0.0
        )
    else:
        optimizer = torch.optim.SGD(parameters, lr=settings.update_rate)
    held: list[Tensor | None] = [parameter.grad for parameter in parameters]
    try:
        for batch in batches:
            own = mean_gradient(problem, rows[torch.from_numpy(batch).to(rows.ids.device)])
            for parameter, new in zip(parameters, own, strict=True):
                parameter.grad = new
            optimizer.step()
    finally:
        for parameter, gradient in zip(parameters, held, strict=True):
            parameter.grad = gradient
