"""The first step of a fresh optimizer, in closed form: no optimizer state is ever made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secondary_learners.errors import UnknownNameError

__all__ = ["OPTIMIZERS", "FirstStep"]

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class FirstStep:
    """One step of a fresh `torch.optim.AdamW` (weight decay 0) or `torch.optim.SGD`.

    After bias correction AdamW's first moments are g and g², so its first step is
    −lr · g / (|g| + eps), with torch's eps (the published code's old AdamW added eps before the
    correction, an effective 3.2e-7).
    """

    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS, "learners gains --help")

    def direction(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The step divided by −lr, one tensor a parameter."""
        if self.optimizer == "sgd":
            return list(gradients)
        scale = torch._foreach_abs(list(gradients))
        torch._foreach_add_(scale, self.eps)
        return list(torch._foreach_div(list(gradients), scale))

    @torch.no_grad()
    def apply(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Take the step, in place."""
        torch._foreach_add_(list(parameters), self.direction(gradients), alpha=-self.learning_rate)
