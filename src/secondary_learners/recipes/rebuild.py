"""Rebuilding: a published artifact's own recipe is run again and the two are compared.

The folder of a rebuild is an ordinary run's, so that a killed one goes on where it was. It belongs
to one artifact and one set of versions, and to one process at a time.
"""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from secondary_learners.artifacts.checks import read_json
from secondary_learners.errors import ArtifactError, RecipeError
from secondary_learners.files import sha256_file
from secondary_learners.recipes.kinds import kind_of
from secondary_learners.recipes.likeness import (
    Circumstance,
    Figure,
    FileBytes,
    Verdict,
    compare_circumstances,
    compare_figures,
    compare_files,
    number,
    verdict,
)
from secondary_learners.recipes.parsing import parse_recipe
from secondary_learners.recipes.record import Record
from secondary_learners.recipes.run import Run, check_out, entry_path, finish, opened
from secondary_learners.registry.load import locate

__all__ = ["PublishedArtifact", "Rebuild", "published_seconds", "read_published", "rebuild"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedArtifact:
    """The artifact to rebuild: its folder, and its recipe with every default written out."""

    folder: Path
    recipe: Record


@dataclass(frozen=True)
class Rebuild:
    """What came of it. circumstances: what differs in how the two were made."""

    name: str
    published: Path
    folder: Path
    verdict: Verdict
    files: tuple[FileBytes, ...]
    figures: tuple[Figure, ...]
    circumstances: tuple[Circumstance, ...]
    seconds: float


def read_published(reference: str | Path) -> PublishedArtifact:
    """The artifact that `reference` names, its digests checked; see `load_learner`.

    Raises what `load_learner` raises, and ArtifactError when it lacks what a rebuild needs.
    """
    located = locate(reference)
    located.check_all()
    folder = located.folder
    path = folder / "recipe.toml"
    if not path.is_file():
        raise ArtifactError(
            f"{folder} has no recipe.toml, so nothing says how to make it. Try `learners list`."
        )
    try:
        recipe = parse_recipe(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    kind_of(recipe).check(folder)
    for name in ("config.json", "evaluation.json"):
        read_json(folder / name)
    return PublishedArtifact(folder, recipe)


def published_seconds(published: PublishedArtifact) -> float | None:
    """How long the parts took whose time was recorded, when it was made; None if none was."""
    evaluation = read_json(published.folder / "evaluation.json")
    comparison, energy = evaluation.get("fine_tuning"), evaluation.get("energy")
    parts: list[tuple[object, object]] = [
        (evaluation.get(name), 1) for name in ("training_seconds", "seconds")
    ]
    if isinstance(energy, dict):
        parts.append((energy.get("seconds"), 1))
    if isinstance(comparison, dict) and isinstance(comparison.get("rows"), list):
        rows = [row for row in comparison["rows"] if isinstance(row, dict)]
        parts += [(row.get("seconds"), comparison.get("seeds")) for row in rows]
    known = [number(seconds) * number(times) for seconds, times in parts]
    return float(np.nansum(known)) or None


def rebuild(published: PublishedArtifact, run: Run) -> Rebuild:
    """Make `published` again in `run.out`, by the stages of any run, and compare.

    Raises SecondaryLearnersError when the folder is not this rebuild's or another process is at
    work in it, and what `run_recipe` raises.
    """
    begun = time.monotonic()
    recipe, folder = published.recipe, published.folder
    evaluation, config = (read_json(folder / f"{name}.json") for name in ("evaluation", "config"))
    run = replace(
        run,
        # As published, so that the card can be the same to the byte.
        command=str(evaluation.get("command") or f"learners run {recipe.name}"),
        compare=evaluation.get("full_fine_tuning", ...) is not None,
    )
    kind, rebuilt = kind_of(recipe), run.out
    check_out(rebuilt)
    material = kind.read(recipe, run)
    with opened(recipe, run, **_identity(folder)):
        for name, digest, expected in kind.digests(material, config):
            _check_same(name, digest, expected)
        if not entry_path(recipe, run).is_file():  # written last
            finish(recipe, kind.make(recipe, material, run), run)
        scores = kind.compare(recipe, material, folder, rebuilt)
    files = compare_files(folder, rebuilt)
    figures = [*scores, *compare_figures(folder, rebuilt)]
    return Rebuild(
        name=recipe.name,
        published=folder,
        folder=rebuilt,
        verdict=verdict(files, figures),
        files=tuple(files),
        figures=tuple(figures),
        circumstances=tuple(compare_circumstances(folder, rebuilt)),
        seconds=time.monotonic() - begun,
    )


def _check_same(name: str, digest: str, expected: object) -> None:
    """Say that the text is another one before the work begins, not after it."""
    if expected not in (None, digest):
        log.warning(
            "the text is not the published one: the digest of its %s is %s, and was %s. The "
            "bytes cannot be the same, so only figures will tell. Name the text it was made "
            "from with --corpus, or interrupt with Ctrl-C.",
            *(name, digest, expected),
        )


def _identity(folder: Path) -> dict[str, object]:
    """What the folder of a rebuild is for: this artifact, by these versions."""
    paths = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    return {
        "rebuilt": {path.name: sha256_file(path) for path in paths},
        "versions": {name: version(name) for name in ("secondary-learners", "torch")},
        "python": platform.python_version(),
    }
