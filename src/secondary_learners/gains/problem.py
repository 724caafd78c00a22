"""What a label method is given, what it gives back, and what several methods do alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secondary_learners.errors import DivergedError
from secondary_learners.gains.objective import context_losses, in_batches
from secondary_learners.gains.optimizers import FirstStep
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.settings import LabelSettings
from secondary_learners.gains.trunk import repeated_losses

__all__ = ["Labeller", "Problem", "mean_gradient", "restored"]


@dataclass(frozen=True)
class Labeller:
    """A method, prepared.

    measure: from rows [n] to their labels [n], or of several components [n, components].
    rows: how many to label at once; between them a store may save.
    components: what the columns are, where a label is the weighted sum of several.
    """

    measure: Callable[[Rows], Tensor]
    rows: int
    components: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Problem:
    """A model, the objective, what the objective is held against, and the settings.

    tokens: how many are run through the model at once.
    """

    model: nn.Module
    objective: Rows
    settings: LabelSettings
    tokens: int
    against: tuple[Rows, ...] = ()

    def one_step(self) -> Problem:
        """The same with a horizon of 1."""
        return replace(self, settings=self.settings.one_step())

    @property
    def step(self) -> FirstStep:
        settings = self.settings
        return FirstStep(settings.optimizer, settings.learning_rate, settings.eps)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        model: Any = self.model
        return int(model.get_input_embeddings().num_embeddings)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that training moves."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @cached_property
    def objective_losses(self) -> Callable[[], Tensor]:
        """The losses of the objective [rows] at the weights of the call."""
        return repeated_losses(self.model, self.objective, self.tokens)

    @cached_property
    def loss(self) -> float:
        """The mean loss of the objective before any step; raises DivergedError."""
        loss = float(self.objective_losses().mean())
        if not np.isfinite(loss):
            raise DivergedError(f"the loss of the objective is {loss} before any step.")
        return loss


@contextmanager
def restored(model: nn.Module) -> Iterator[tuple[list[Tensor], Callable[[], None]]]:
    """The trainable parameters and a function that restores them; restored at the end anyway."""
    parameters: list[Tensor] = [
        parameter for parameter in model.parameters() if parameter.requires_grad
    ]
    backup = [parameter.detach().clone() for parameter in parameters]

    def restore() -> None:
        with torch.no_grad():
            torch._foreach_copy_(parameters, backup)

    try:
        yield parameters, restore
    finally:
        restore()


def mean_gradient(problem: Problem, rows: Rows) -> list[Tensor]:
    """∇ of the mean loss of `rows`, accumulated over batches; one tensor a parameter."""
    parameters = problem.parameters
    total = [torch.zeros_like(parameter) for parameter in parameters]

    def add(part: Rows) -> Tensor:
        loss = context_losses(problem.model, part).sum() / len(rows)
        torch._foreach_add_(total, torch.autograd.grad(loss, parameters))
        return loss.detach()[None]

    # The backward pass holds twice as much.
    in_batches(add, rows, max(rows.length, problem.tokens // 2))
    return total
