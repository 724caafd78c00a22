"""How labels are measured: one record, checked before anything is begun with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypedDict

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.optimizers import OPTIMIZERS
from secondary_learners.gains.precision import check_precision
from secondary_learners.gains.subsets import Trainable, check_trainable

__all__ = ["UNITS", "GainOptions", "LabelSettings", "check_one_step"]

UNITS = ("nats", "perplexity")


class GainOptions(TypedDict, total=False):
    """The settings that `information_gain` takes; see there and `LabelSettings`."""

    method: str
    optimizer: str
    learning_rate: float
    eps: float
    unit: str
    trainable: Trainable
    seed: int
    precision: str
    horizon: int
    repeats: int
    update_batch: int
    horizon_learning_rate: float | None
    combine: Mapping[str, float]


@dataclass(frozen=True)
class LabelSettings:
    """How gains are measured; `exact` is the size of the exact subsample they are checked on.

    For all but `exact` see `information_gain`; what is trained is so for the exact ones too.
    Raises UnknownNameError for a method that does not exist, before a folder is begun with it.
    """

    method: str = "swapped"
    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    eps: float = 1e-8
    unit: str = "nats"
    trainable: Trainable = None
    exact: int = 64
    seed: int = 0
    precision: str = "float32"
    horizon: int = 1
    repeats: int = 1
    update_batch: int = 16
    horizon_learning_rate: float | None = None
    combine: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        method = method_named(self.method)
        for what, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("unit", self.unit, UNITS),
        ):
            if value not in known:
                raise UnknownNameError(what, value, known, "learners gains --help")
        for name in ("horizon", "repeats", "update_batch"):
            if getattr(self, name) < 1:
                raise SecondaryLearnersError(f"{name} is {getattr(self, name)}. Try 1 or more.")
        check_trainable(self.trainable)
        check_precision(self.precision)
        method.check(self)

    @property
    def update_rate(self) -> float:
        """The learning rate of a horizon's updates."""
        return self.horizon_learning_rate or self.learning_rate

    def one_step(self) -> LabelSettings:
        """The same, of one step and nothing else."""
        return replace(self, horizon=1, repeats=1, horizon_learning_rate=None, combine={})

    def facts(self) -> dict[str, Any]:
        """As labels.json has them: what came later is left out where it is as it was before."""
        later = {each.name: each for each in fields(self) if each.name in _LATER}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in later or (value and value != later[name].default)
        }


_LATER = ("horizon", "repeats", "update_batch", "horizon_learning_rate", "combine")


def check_one_step(settings: LabelSettings) -> None:
    """Raise SecondaryLearnersError for what only a method of several updates takes."""
    plain_values: dict[str, Any] = {
        "horizon": 1,
        "repeats": 1,
        "horizon_learning_rate": None,
        "combine": {},
    }
    for name, plain in plain_values.items():
        if getattr(settings, name) != plain:
            raise SecondaryLearnersError(
                f"{name} is {getattr(settings, name)!r}, and {settings.method} labels are of one "
                "step. Try --method swapped."
            )
