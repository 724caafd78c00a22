"""The definition: a step on the context, and how far the loss of the objective falls.

(N + 3) F a label, in forward passes F of one context with N objective contexts: the objective in
one batch, the first step in closed form, the weights restored bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secondary_learners.gains.objective import context_losses
from secondary_learners.gains.problem import Labeller, Problem, restored
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.settings import LabelSettings, check_one_step

__all__ = ["PART", "check", "prepare", "unit"]

PART = 64
_ROWS, _GPU_ROWS = 1, 16  # a GPU should not wait after each label for it to be fetched


def check(settings: LabelSettings) -> None:
    check_one_step(settings)


def unit(settings: LabelSettings) -> str:
    return "nats per token" if settings.unit == "nats" else settings.unit


def prepare(problem: Problem) -> Labeller:
    model, loss, after_losses, step = (
        problem.model,
        problem.loss,
        problem.objective_losses,
        problem.step,
    )

    def measure(rows: Rows) -> Tensor:
        after = []
        with restored(model) as (parameters, restore):
            for row in range(len(rows)):
                own = context_losses(model, rows[row : row + 1]).sum()
                step.apply(parameters, torch.autograd.grad(own, parameters))
                # Left on the device: fetching it would let a GPU wait for the next launches.
                after.append(after_losses().mean())
                restore()
        return loss - torch.stack(after)

    on_gpu = problem.objective.ids.device.type == "cuda"
    return Labeller(measure, _GPU_ROWS if on_gpu else _ROWS)
