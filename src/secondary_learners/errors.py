"""Every error a user can meet, as one tree. Each message names the value and the next command.

SecondaryLearnersError
├── UnknownNameError          a learner, recipe, base model or option value that does not exist
├── ArtefactError             a folder that is not a valid artefact
│   ├── DigestMismatchError   a file whose bytes are not the recorded ones
│   └── IncompatibleError     a learner used with another tokenizer, or a newer format
├── CorpusError               text that is missing, empty or too short
├── RecipeError               a recipe that does not parse or does not make sense
├── LabelStoreError           a label folder that belongs to another labelling
├── TrialsError               a trials table that does not read, or is too small for a question
├── DivergedError             a loss that is not a finite number
└── MissingExtraError         an optional dependency that is not installed
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ArtefactError",
    "CorpusError",
    "DigestMismatchError",
    "DivergedError",
    "IncompatibleError",
    "LabelStoreError",
    "MissingExtraError",
    "RecipeError",
    "SecondaryLearnersError",
    "TrialsError",
    "UnknownNameError",
]


class SecondaryLearnersError(Exception):
    """The root: catch it to catch everything this package raises on purpose."""


class UnknownNameError(SecondaryLearnersError):
    """A name that is not in a list of names; the message suggests the near ones."""

    def __init__(self, kind: str, name: str, valid: Iterable[str], command: str) -> None:
        names = sorted(valid)
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}."
        super().__init__(f"no {kind} named {name!r}: {hint} Try `{command}`.")
        self.kind, self.name, self.near = kind, name, tuple(near)


class ArtefactError(SecondaryLearnersError):
    """A folder that is not a valid artefact."""


class DigestMismatchError(ArtefactError):
    """A file whose sha256 is not the recorded one."""


class IncompatibleError(ArtefactError):
    """A learner met another tokenizer than its own, or a format newer than this package."""


class CorpusError(SecondaryLearnersError):
    """Text that is missing, empty or shorter than one context."""


class RecipeError(SecondaryLearnersError):
    """A recipe that does not parse, or whose values do not fit together."""


class LabelStoreError(SecondaryLearnersError):
    """A label folder that was begun with other settings, or is damaged."""


class TrialsError(SecondaryLearnersError):
    """A table of trials that cannot be read, or holds too little for what is asked of it."""


class DivergedError(SecondaryLearnersError):
    """A loss that is not a finite number."""


class MissingExtraError(SecondaryLearnersError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs {package}, which is not installed. "
            f'Try `pip install "secondary-learners[{extra}]"`.'
        )
