"""How a task is learnt, as plain data: recipes are read without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError

__all__ = ["Start", "Training", "Tuning"]

Start = Literal["magnitude", "random"]


@dataclass(frozen=True)
class Training:
    """AdamW; each learning rate rises over the first `warm_up` of the updates and falls to 0.

    learning_rate: of pretrained weights. score_learning_rate: of masks. mixed_precision: the passes
    in bfloat16, the weights and their updates in float32.
    """

    epochs: float = 2.0
    batch_size: int = 32
    learning_rate: float = 5e-4
    head_learning_rate: float = 1e-3
    score_learning_rate: float = 5e-2
    warm_up: float = 0.1
    max_grad_norm: float = 1.0
    mixed_precision: bool = True

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            may_be_zero = name in ("warm_up", "mixed_precision")
            if not (math.isfinite(value) and (value > 0 or (may_be_zero and value == 0))):
                raise SecondaryLearnersError(
                    f"the setting {name} is {value!r}, and must be above 0. "
                    "Try `learners delta make --help`."
                )


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a task is learnt.

    kind: "full" tunes everything, "layers" some weights, "mask" which numbers of them stay.
    share: how much of the backbone the chosen layers may be, see `critical_layers`; by default 0.15
        for layers and 0.6 for masks. layers: regular expressions for the names instead.
    sparsity, start: of masks, see `mask_layers`. probe: examples of the short full fine-tuning that
        shows which layers matter.
    """

    kind: Literal["full", "layers", "mask"] = "mask"
    share: float | None = None
    layers: tuple[str, ...] = ()
    sparsity: float = 0.2
    start: Start = "magnitude"
    probe: int = 2000
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        if self.kind not in ("full", "layers", "mask"):
            kinds = ("full", "layers", "mask")
            raise UnknownNameError("kind", self.kind, kinds, "learners delta make --help")
        if self.share is not None and not 0 < self.share <= 1:
            raise SecondaryLearnersError(
                f"the share {self.share!r} of the weights must be above 0 and at most 1."
            )
