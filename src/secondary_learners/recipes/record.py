"""What the records of all kinds of recipes have in common, and check of their fields."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from secondary_learners.errors import RecipeError

if TYPE_CHECKING:
    from secondary_learners.cards.card import Described as _Fields  # that every kind has
    from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
else:
    _Fields = object

__all__ = ["Record", "above_zero", "check_name", "one_of"]

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


class Record(_Fields):
    """A recipe's record: a frozen dataclass whose fields are those of its TOML file.

    The class attributes are not fields. WHAT: what messages call it. OPTIONS: those of
    `learners run` that it takes, beside the ones that every recipe does.
    """

    if TYPE_CHECKING:

        @property
        def kind(self) -> str: ...

    WHAT = "a recipe"
    OPTIONS: ClassVar[frozenset[str]] = frozenset()

    def changed(self, **options: Any) -> Self:
        """The recipe with some of its `OPTIONS` set."""
        return dataclasses.replace(self, **options)  # type: ignore[type-var]

    def on_text(
        self, objective: Path | None = None, pool: Path | None = None, *, context_length: int = 0
    ) -> LearnerRecipe:
        """The recipe whose text this kind of learner is tried on, or its choices with other text.

        objective, pool: own text. context_length: of the learner, where only its config tells.
        Raises RecipeError for a kind that does not predict information gain.
        """
        raise RecipeError(
            f"{self.name} is {self.WHAT}, which does not predict information gain: its recipe has "
            f"no text to try that on. Try `learners show {self.name}`."
        )


def check_name(name: str) -> None:
    """The registry takes no other; better known before hours of labelling than after."""
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"the name {name!r} must be lower-case words joined by - . or _, such as my-learner."
        )


def above_zero(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise RecipeError(f"{name} is {value}, and must be above 0.")


def one_of(where: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(f"{where} is {value!r}, and must be one of {', '.join(known)}.")
