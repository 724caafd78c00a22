"""What the records of every kind of recipe check of their fields."""

from __future__ import annotations

import re

from secondary_learners.errors import RecipeError

__all__ = ["above_zero", "check_name", "one_of"]


_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


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
