"""The architectures of learners, a module each: a row here is all that the rest asks for.

To add one, write a module that is an `Architecture`, and a row. Modules load no torch until a net
is built or fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from secondary_learners.errors import UnknownNameError

if TYPE_CHECKING:
    from secondary_learners.learners.fitting import Fit
    from secondary_learners.learners.nets import Net

__all__ = ["ARCHITECTURES", "Architecture", "architecture_named"]

ARCHITECTURES = {
    "linear": "secondary_learners.learners.architectures.linear",
    "conv": "secondary_learners.learners.architectures.conv",
}

Check = Callable[[str, object], None]


class Architecture(Protocol):
    """What an architecture's module holds.

    SIZES: the numbers and words that `sizes` of a config.json has for it, each with its check.
    """

    SIZES: Mapping[str, Check]

    def build(self, sizes: Mapping[str, Any]) -> Net:
        """A net of these sizes, its weights not yet those of any learner."""

    def fit(self, *data: Any, **options: Any) -> Fit:
        """Fit one on contexts and their labels; see `learners.fitting.fit`."""

    def options(self, plan: Any) -> dict[str, int | str]:
        """What a recipe's plan says of its sizes."""


def architecture_named(name: str) -> Architecture:
    """The architecture of that name; raises UnknownNameError."""
    if name not in ARCHITECTURES:
        raise UnknownNameError("architecture", name, ARCHITECTURES, "learners run --help")
    return cast(Architecture, import_module(ARCHITECTURES[name]))
