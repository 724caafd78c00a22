"""Whether a folder is fit to be published: every reason why not, found before anything is sent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from secondary_learners.artifacts.kinds import ArtifactKind, artifact_kind, kind_of
from secondary_learners.artifacts.layout import FORBIDDEN, published_files
from secondary_learners.artifacts.reading import read_file, size_of
from secondary_learners.cards.check import Problem, check_card, machine_paths
from secondary_learners.cards.vocabulary import UNSTATED
from secondary_learners.errors import ArtifactError, SecondaryLearnersError
from secondary_learners.recipes.parsing import parse_recipe
from secondary_learners.recipes.record import Record
from secondary_learners.registry.entries import artifact_entry

__all__ = ["ArtifactFault", "audit", "check_license"]


class ArtifactFault(StrEnum):
    """Why a folder is not fit to be published, apart from its card."""

    FILE = "file"  # one that is missing
    CODE = "code"  # one that could run code when it is loaded
    CONTENT = "content"  # a config or weights that do not load
    RECIPE = "recipe"  # one that does not parse, or makes something else
    EVALUATION = "evaluation"  # figures that do not parse
    LICENSE = "license"  # the card and the recipe do not say the same
    PATH = "path"  # a folder of the machine that it was made on
    ENTRY = "entry"  # something that a registry entry would not take


def audit(folder: Path) -> list[Problem]:
    """Everything that keeps `folder`, a learner, delta or base model, from being published.

    Nothing in it is run. An empty list: its files are complete and load, its recipe parses, its
    card would be taken by the Hub and shows the figures of evaluation.json.
    """
    if not folder.is_dir():
        return [Problem(ArtifactFault.FILE, f"there is no folder {folder}.")]
    return list(_audit(folder))


def _audit(folder: Path) -> Iterator[Problem]:
    oversized = list(_oversized(folder))
    if oversized:  # and nothing is read
        yield from oversized
        return
    recipe, recipe_problem = _recipe(folder)
    kind = _kind(folder)
    for name in kind.files:
        if not (folder / name).is_file():
            yield Problem(ArtifactFault.FILE, f"{name} is missing. `learners run` writes it.")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in FORBIDDEN:
            yield Problem(
                ArtifactFault.CODE,
                f"{path.relative_to(folder)} could run code when it is loaded. Delete it.",
            )
    if recipe_problem is not None:
        yield recipe_problem
    yield from _content(folder, kind)
    yield from _evaluation(folder)
    if (folder / "README.md").is_file():
        yield from check_card(folder)
    for name in ("config.json", "evaluation.json", "recipe.toml"):
        yield from _paths(folder / name)
    if recipe is not None:
        yield from _agreement(folder, kind, recipe)


def _oversized(folder: Path) -> Iterator[Problem]:
    for path in published_files(folder):
        try:
            size_of(path)
        except ArtifactError as error:
            yield Problem(ArtifactFault.FILE, str(error))


def _kind(folder: Path) -> ArtifactKind:
    """What the folder holds; a learner where its config.json does not say, which it then lacks."""
    try:
        return kind_of(folder)
    except ArtifactError:
        return artifact_kind("learner")


def _recipe(folder: Path) -> tuple[Record | None, Problem | None]:
    path = folder / "recipe.toml"
    if not path.is_file():
        return None, None
    try:
        return parse_recipe(path.read_text(encoding="utf-8"), "recipe.toml"), None
    except (SecondaryLearnersError, ValueError) as error:  # ValueError: not UTF-8
        return None, Problem(ArtifactFault.RECIPE, f"recipe.toml does not resolve: {error}")


def _content(folder: Path, kind: ArtifactKind) -> Iterator[Problem]:
    if not all((folder / name).is_file() for name in ("config.json", "model.safetensors")):
        return
    try:
        if kind.whole:
            _read_whole(folder, kind)
        else:
            kind.read(folder)
    except SecondaryLearnersError as error:
        yield Problem(ArtifactFault.CONTENT, str(error))


def _read_whole(folder: Path, kind: ArtifactKind) -> None:
    """Read config and weights as any loader would; what else is missing was said already."""
    with tempfile.TemporaryDirectory() as name:
        view = Path(name)
        for file in kind.files:
            source = (folder / file).absolute()
            if source.is_file():
                (view / file).symlink_to(source)
            else:
                (view / file).touch()
        try:
            kind.read(view)
        except ArtifactError as error:
            raise ArtifactError(str(error).replace(str(view), str(folder))) from error


def _evaluation(folder: Path) -> Iterator[Problem]:
    path = folder / "evaluation.json"
    if path.is_file() and not isinstance(_json(path), dict):
        yield Problem(ArtifactFault.EVALUATION, "evaluation.json holds no JSON object.")


def _json(path: Path) -> Any:
    try:
        return json.loads(read_file(path))
    except (ArtifactError, ValueError, RecursionError):
        return None


def _paths(path: Path) -> Iterator[Problem]:
    if not path.is_file():
        return
    text = path.read_bytes().decode("utf-8", errors="replace")
    if paths := machine_paths(text):
        yield Problem(
            ArtifactFault.PATH,
            f"{path.name} names {' and '.join(paths)}, which is on the machine it was "
            "made on. Make it again with text in a corpus folder and a base model that others can "
            "have.",
        )


def _agreement(folder: Path, kind: ArtifactKind, recipe: Record) -> Iterator[Problem]:
    """What the recipe, the config and the card say of the same thing."""
    if (folder / "README.md").is_file():
        text = (folder / "README.md").read_bytes().decode("utf-8", errors="replace")
        yield from check_license(text, recipe)
    config = _json(folder / "config.json")
    try:
        name = kind.check(config) if isinstance(config, dict) else None
    except SecondaryLearnersError:
        return  # stated already
    if name is not None and name != recipe.name:
        yield Problem(
            ArtifactFault.RECIPE,
            f"recipe.toml makes {recipe.name!r} and config.json is {name!r}. "
            f"Make the {kind.name} again from its recipe.",
        )
    try:
        artifact_entry(folder, location="owner/name", revision="0" * 40)
    except SecondaryLearnersError as error:
        yield Problem(ArtifactFault.ENTRY, str(error))


def check_license(card: str, recipe: Record) -> Iterator[Problem]:
    """Whether a card and a recipe name the same license."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(card, ignore_metadata_errors=True).data
    except (ValueError, TypeError, yaml.YAMLError):
        return  # stated by the check of the card
    stated = data.get("license_name") if data.get("license") == "other" else data.get("license")
    if stated not in (None, UNSTATED, recipe.license):
        yield Problem(
            ArtifactFault.LICENSE,
            f"the card says {stated!r} and recipe.toml {recipe.license!r}. Make them say the same.",
        )
