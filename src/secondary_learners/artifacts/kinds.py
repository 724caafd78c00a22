"""The kinds of artifacts: one row each, and one answer to what a folder is.

To add a kind: a module that has `KIND`, an `ArtifactKind`, and a row here. Modules are imported
when they are asked for, and load neither torch nor transformers before they read an artifact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from secondary_learners.artifacts.reading import read_file
from secondary_learners.errors import ArtifactError, UnknownNameError

__all__ = ["ArtifactKind", "artifact_kind", "artifact_kinds", "kind_of", "kind_of_config"]

# In the order in which they are asked whether a folder is theirs, and in which they are listed last
# to first.
_ROWS = {
    "delta": "secondary_learners.deltas.kind",
    "learner": "secondary_learners.learners.kind",
    "base-model": "secondary_learners.registry.base_model",
}


class ArtifactKind(Protocol):
    """What the rest of the package asks of a kind of artifact.

    kind: as entries and locks say it; name: as messages say it. files: what every folder of it has.
    whole: whether there is nothing in it but `files`, and code is refused wherever it is. loader:
    the public function that loads it by name. absent: fields of an entry that make no sense for it.
    place: where it stands in a list of all kinds.
    """

    kind: str
    name: str
    files: tuple[str, ...]
    whole: bool
    loader: str
    absent: tuple[str, ...]
    place: int

    def owns(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json is of this kind."""

    def read(
        self, folder: Path, digests: Mapping[str, str] | None = None, *, remedy: str | None = None
    ) -> Any:
        """The artifact in `folder`, its digests compared; raises ArtifactError."""

    def check(self, config: Mapping[str, Any]) -> str | None:
        """The name that a config.json gives it, if any; raises ArtifactError for a wrong one."""

    def card(self, config: Mapping[str, Any]) -> str:
        """Which card it has, of `cards.kinds.CARDS`."""

    def needs(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """References of the base models and tokenizers that it is used with."""

    def entry(self, config: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, str]:
        """base, tokenizer, corpus, objective, architecture and optimizer of a registry entry."""


@cache
def _kind(module: str) -> ArtifactKind:
    kind: ArtifactKind = import_module(module).KIND
    return kind


def artifact_kind(name: str) -> ArtifactKind:
    """The kind of that name; raises UnknownNameError."""
    if name not in _ROWS:
        raise UnknownNameError("kind of artifact", name, _ROWS, "learners list")
    return _kind(_ROWS[name])


def artifact_kinds() -> list[ArtifactKind]:
    """All kinds, as they are listed."""
    return sorted(map(artifact_kind, _ROWS), key=lambda kind: kind.place)


def kind_of(folder: Path) -> ArtifactKind:
    """What the folder holds, by its config.json alone; raises ArtifactError without one."""
    return kind_of_config(read_file(folder / "config.json"), folder)


def kind_of_config(config: bytes, of: object) -> ArtifactKind:
    """What an artifact `of` that place is, by the bytes of its config.json."""
    try:
        value = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{of} is not an artifact: its config.json is not JSON ({error}). Try `learners list`."
        ) from error
    value = value if isinstance(value, dict) else {}
    for kind in map(artifact_kind, _ROWS):
        if kind.owns(value):
            return kind
    known = ", ".join(kind.name for kind in artifact_kinds())
    raise ArtifactError(
        f"{of} is of a kind that this package does not know: its config.json is neither that of a "
        f"model of transformers nor of one of {known}. Try `pip install --upgrade "
        "secondary-learners`, or `learners list`."
    )
