"""The ways to label, a module each: a row here is all that the rest of the package asks for.

A method's module is a `Method`: a test of the settings, the unit of its labels, and a function
that prepares everything which does not depend on a candidate. To add one, write a module and a row.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from secondary_learners.errors import UnknownNameError

if TYPE_CHECKING:
    from secondary_learners.gains.problem import Labeller, Problem
    from secondary_learners.gains.settings import LabelSettings

__all__ = ["METHODS", "Method", "method_named"]

METHODS = {
    "exact": "secondary_learners.gains.methods.exact",
    "per-example": "secondary_learners.gains.methods.per_example",
    "swapped": "secondary_learners.gains.methods.swapped",
    "classifier": "secondary_learners.gains.methods.selector",
    "dsir": "secondary_learners.gains.methods.selector",
}


class Method(Protocol):
    """What a method's module holds.

    PART: how many labels are a file of the store.
    """

    PART: int

    def check(self, settings: LabelSettings) -> None:
        """Raise SecondaryLearnersError for settings that the method does not go with."""

    def unit(self, settings: LabelSettings) -> str:
        """What its labels are measured in, for the config and the card of a learner."""

    def prepare(self, problem: Problem) -> Labeller:
        """Do what is done once, at the weights the model has now."""


def method_named(name: str) -> Method:
    """The method of that name; raises UnknownNameError."""
    if name not in METHODS:
        raise UnknownNameError("method", name, tuple(METHODS), "learners gains --help")
    return cast(Method, import_module(METHODS[name]))
