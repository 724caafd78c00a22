"""What a reference means: a folder, a name in a registry, or a repository on a Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secondary_learners.errors import SecondaryLearnersError

__all__ = [
    "FolderReference",
    "NameReference",
    "Reference",
    "RepositoryReference",
    "is_commit",
    "is_repository",
    "is_revision",
    "parse_reference",
]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ALIAS = re.compile(r"[a-z0-9][a-z0-9-]*")
_PART = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(f"{_PART}/{_PART}")
# What git refuses in the name of a branch or tag.
_REVISION = re.compile(r"(?![/.-])(?!.*(\.\.|//|/\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]{1,200}(?<![/.])")


@dataclass(frozen=True)
class FolderReference:
    """An artifact in a folder of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class NameReference:
    """A name in the registry of this package (`registry` None) or in one that was added."""

    registry: str | None
    name: str
    revision: str | None = None

    def __str__(self) -> str:
        prefix = "" if self.registry is None else f"{self.registry}:"
        return f"{prefix}{self.name}{_suffix(self.revision)}"


@dataclass(frozen=True)
class RepositoryReference:
    """A model repository "owner/name", at a branch, tag or commit (None: the default branch)."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repository}{_suffix(self.revision)}"


Reference = FolderReference | NameReference | RepositoryReference


def _suffix(revision: str | None) -> str:
    return "" if revision is None else f"@{revision}"


def is_commit(revision: str | None) -> bool:
    """Whether `revision` is a full commit, which never moves."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def is_revision(value: str) -> bool:
    """Whether a branch, tag or commit may be called `value`."""
    return _REVISION.fullmatch(value) is not None


def is_repository(value: object) -> bool:
    """Whether `value` is "owner/name" as a Hub accepts it."""
    return (
        isinstance(value, str)
        and len(value) <= 96
        and _REPOSITORY.fullmatch(value) is not None
        and not re.search(r"--|\.\.|\.git(/|$)", value)
    )


def parse_reference(
    ref: str | Path, *, is_folder: Callable[[str], bool] = os.path.isdir
) -> Reference:
    """What `ref` means; raises SecondaryLearnersError for what can mean nothing.

    A Path is a folder, and so is a string that starts with ".", "/" or "~" or that has a separator
    and is a folder. Other strings with a "/" are repositories ("owner/name", "owner/name@v1.0").
    A plain word is always a name ("books-mini"), also where a folder of that name exists, and
    "team:books" is the name "books" in the added registry "team".
    """
    if isinstance(ref, Path):
        return FolderReference(ref)
    separators = {"/", os.sep, os.altsep or "/"}
    apart = any(separator in ref for separator in separators)
    if ref.startswith((".", "/", "~")) or (apart and is_folder(ref)):
        return FolderReference(Path(os.path.expanduser(ref)))
    place, at, revision = ref.partition("@")
    if at and not is_revision(revision):
        raise SecondaryLearnersError(
            f"{revision!r} in {ref!r} is not a revision. Give a branch, a tag or a commit after "
            "the @, such as owner/name@v1.0."
        )
    if apart:
        if not is_repository(place):
            raise SecondaryLearnersError(
                f"{ref!r} is neither a folder nor a repository owner/name. Try `learners list`."
            )
        return RepositoryReference(place, revision or None)
    alias, colon, name = place.rpartition(":")
    if (colon and not _ALIAS.fullmatch(alias)) or not name:
        raise SecondaryLearnersError(
            f"{ref!r} is not a name: it must read NAME, or REGISTRY:NAME. Try `learners list`."
        )
    return NameReference(alias if colon else None, name, revision or None)
