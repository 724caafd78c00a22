"""The registry entry of an artifact: everything in it is read from the artifact's own folder."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, cast

from secondary_learners.artifacts.checks import read_json
from secondary_learners.artifacts.kinds import kind_of
from secondary_learners.artifacts.layout import published_files
from secondary_learners.artifacts.reading import read_file, size_of
from secondary_learners.artifacts.records import read_toml
from secondary_learners.errors import ArtifactError
from secondary_learners.files import sha256_file
from secondary_learners.registry.index import Entry

__all__ = ["artifact_entry"]


def artifact_entry(
    folder: Path,
    *,
    location: str = "bundled",
    revision: str | None = None,
    endpoint: str = "",
    added: date | None = None,
    files: Mapping[str, tuple[str, int]] | None = None,
) -> Entry:
    """The entry of the artifact in `folder`, as it is or was published.

    location, revision, endpoint: where it is, see `Entry`. added: today by default. files: the
    sha256 and the size of each file where they are not those of the folder, as after a card was
    merged.

    Raises ArtifactError for what an entry does not take, and for a folder that is not whole.
    """
    path = folder / "recipe.toml"
    recipe = read_toml(read_file(path), str(path), _unreadable)
    kind = kind_of(folder)
    config = read_json(folder / "config.json")
    if files is None:
        sizes = {path: size_of(path) for path in published_files(folder)}  # before any is hashed
        files = {path.name: (sha256_file(path), size) for path, size in sizes.items()}
    try:
        fields = kind.entry(config, recipe)
        name, summary, license = (recipe[field] for field in ("name", "summary", "license"))
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder}: config.json or recipe.toml lacks {error}. Make the {kind.name} again from "
            "its recipe."
        ) from error
    return Entry(
        name=name,
        kind=kind.kind,
        summary=summary,
        license=license,
        location=location,
        revision=revision,
        endpoint=endpoint,
        added=added or date.today(),
        size=sum(size for _, size in files.values()),
        files={name: digest for name, (digest, _) in sorted(files.items())},
        **cast(dict[str, Any], fields),
    )


def _unreadable(reason: str) -> ArtifactError:
    return ArtifactError(f"{reason} Make the artifact again from its recipe.")
