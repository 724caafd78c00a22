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
    import numpy as np
    import numpy.typing as npt

    from secondary_learners.learners.fitting import Fit
    from secondary_learners.learners.hashed_text import HashedText
    from secondary_learners.learners.nets import Net

__all__ = [
    "ARCHITECTURES",
    "TEXT_ARCHITECTURES",
    "Architecture",
    "TextArchitecture",
    "architecture_named",
    "sizes_of",
    "text_architecture",
]

ARCHITECTURES = {
    "linear": "secondary_learners.learners.architectures.linear",
    "conv": "secondary_learners.learners.architectures.conv",
}
"""Those that read token ids."""

TEXT_ARCHITECTURES = {"hashed-text": "secondary_learners.learners.architectures.hashed_text"}
"""Those that read text, without a tokenizer."""

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


class TextArchitecture(Protocol):
    """What the module of one that reads text holds; it loads no torch but to fit.

    SIZES: as of `Architecture`.
    """

    SIZES: Mapping[str, Check]

    def shapes(self, sizes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Of its tensors, by name."""

    def build(
        self, sizes: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[np.float32]], length: int
    ) -> HashedText:
        """The net; length: of a window, in words."""


def sizes_of(name: str) -> Mapping[str, Check]:
    """The SIZES of an architecture of either table."""
    if name in TEXT_ARCHITECTURES:
        return text_architecture(name).SIZES
    return architecture_named(name).SIZES


def text_architecture(name: str) -> TextArchitecture:
    """The one of that name in `TEXT_ARCHITECTURES`."""
    return cast(TextArchitecture, import_module(TEXT_ARCHITECTURES[name]))


def architecture_named(name: str) -> Architecture:
    """The architecture of that name; raises UnknownNameError."""
    if name not in ARCHITECTURES:
        raise UnknownNameError("architecture", name, ARCHITECTURES, "learners run --help")
    return cast(Architecture, import_module(ARCHITECTURES[name]))
