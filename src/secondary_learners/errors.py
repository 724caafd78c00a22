"""Every error a user can meet, as one tree. Each message names the value and the next command.

SecondaryLearnersError
├── UnknownNameError          a learner, recipe, base model or option value that does not exist
├── ArtifactError             a folder that is not a valid artifact
│   ├── DigestMismatchError   a file whose bytes are not the recorded ones
│   ├── IncompatibleError     a learner used with another tokenizer, or a newer format
│   └── AuditError            an artifact that is not fit to be published, with every reason
├── CorpusError               text that is missing, empty or too short
├── RecipeError               a recipe that does not parse or does not make sense
├── LabelStoreError           a label folder that belongs to another labelling
├── TrialsError               a trials table that does not read, or is too small for a question
├── DivergedError             a loss that is not a finite number
├── HubError                  a repository that cannot be found, read or trusted
│   ├── OfflineError          what is not on this machine, and no network to fetch it
│   └── PublishError          a publication that was refused, and what to do about it
├── LockError                 what learners.lock does not hold, or holds with another origin
└── MissingExtraError         an optional dependency that is not installed
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ArtifactError",
    "AuditError",
    "CorpusError",
    "DigestMismatchError",
    "DivergedError",
    "HubError",
    "IncompatibleError",
    "LabelStoreError",
    "LockError",
    "MissingExtraError",
    "OfflineError",
    "PublishError",
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
        known = f"known: {', '.join(names)}." if names else "there is none."
        hint = f"did you mean {' or '.join(near)}?" if near else known
        super().__init__(f"no {kind} named {name!r}: {hint} Try `{command}`.")
        self.kind, self.name, self.near = kind, name, tuple(near)


class ArtifactError(SecondaryLearnersError):
    """A folder that is not a valid artifact."""


class DigestMismatchError(ArtifactError):
    """A file whose sha256 is not the recorded one."""

    @classmethod
    def of(
        cls, path: object, expected: str | None, actual: str | None, remedy: str
    ) -> DigestMismatchError:
        """expected: None for a file that is not recorded; actual: None for one that is missing."""
        return cls(
            f"{path}: its sha256 should be {expected or 'recorded'}, and is "
            f"{actual or 'missing'}. {remedy}"
        )


class IncompatibleError(ArtifactError):
    """A learner met another tokenizer than its own, or a format newer than this package."""


class AuditError(ArtifactError):
    """An artifact that is not fit to be published; `problems` holds every reason."""

    def __init__(self, what: str, problems: Iterable[object]) -> None:
        self.problems = tuple(problems)
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(
            f"{what} is not fit to be published:\n{listed}\n"
            "Mend these and run the same command again; `learners card check` checks the card."
        )


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


class HubError(SecondaryLearnersError):
    """A repository on a Hub that cannot be found, may not be read, or is not what was asked for."""


class OfflineError(HubError):
    """Something that was never loaded on this machine, and no network to fetch it with."""


class PublishError(HubError):
    """A publication that was refused; the message says whether anything was sent."""


class LockError(SecondaryLearnersError):
    """What learners.lock does not hold, or holds with another origin; or a lock that is damaged."""


class MissingExtraError(SecondaryLearnersError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs {package}, which is not installed. "
            f'Try `pip install "secondary-learners[{extra}]"`.'
        )
