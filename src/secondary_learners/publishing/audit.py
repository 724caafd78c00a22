"""Whether a folder is fit to be published: every reason why not, found before anything is sent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from secondary_learners.artifacts.layout import FILES, FORBIDDEN
from secondary_learners.cards.check import Problem, check_card, machine_paths
from secondary_learners.cards.vocabulary import UNSTATED
from secondary_learners.deltas.config import DeltaConfig
from secondary_learners.errors import ArtifactError, SecondaryLearnersError
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.delta.recipe import DeltaRecipe
from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.loss_learner.recipe import MultistageRecipe
from secondary_learners.recipes.parsing import Recipe, parse_recipe
from secondary_learners.registry.index import Entry

__all__ = ["ArtifactFault", "audit", "check_license", "files_to_publish", "registry_entry"]

_BASE_FILES = (*FILES, "tokenizer.json", "tokenizer_config.json")
_SUFFIXES = frozenset((".json", ".md", ".png", ".safetensors", ".toml"))
_NAMES = frozenset(("LICENSE", "LICENSE"))


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


def files_to_publish(folder: Path) -> list[Path]:
    """The files of an artifact that travel; working folders and hidden files stay."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and (path.suffix in _SUFFIXES or path.name in _NAMES)
    ]


def audit(folder: Path) -> list[Problem]:
    """Everything that keeps `folder`, a learner, delta or base model, from being published.

    Nothing in it is run. An empty list: its files are complete and load, its recipe parses, its
    card would be taken by the Hub and shows the figures of evaluation.json.
    """
    if not folder.is_dir():
        return [Problem(ArtifactFault.FILE, f"there is no folder {folder}.")]
    return list(_audit(folder))


def _audit(folder: Path) -> Iterator[Problem]:
    recipe, recipe_problem = _recipe(folder)
    kind = "learner" if recipe is None else recipe.kind
    for name in _BASE_FILES if kind == "base-model" else FILES:
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
        yield from _agreement(folder, recipe)


def _recipe(folder: Path) -> tuple[Recipe | None, Problem | None]:
    path = folder / "recipe.toml"
    if not path.is_file():
        return None, None
    try:
        return parse_recipe(path.read_text(encoding="utf-8"), "recipe.toml"), None
    except (SecondaryLearnersError, ValueError) as error:  # ValueError: not UTF-8
        return None, Problem(ArtifactFault.RECIPE, f"recipe.toml does not resolve: {error}")


def _content(folder: Path, kind: str) -> Iterator[Problem]:
    if not all((folder / name).is_file() for name in ("config.json", "model.safetensors")):
        return
    try:
        if kind == "base-model":
            _read_base(folder)
        else:
            _read_artifact(folder, kind)
    except SecondaryLearnersError as error:
        yield Problem(ArtifactFault.CONTENT, str(error))


def _read_artifact(folder: Path, kind: str) -> None:
    """Read config and weights as any loader would; what else is missing was said already."""
    from secondary_learners.deltas.deltas import read_delta
    from secondary_learners.learners.artifact import read_learner

    read: Callable[[Path], object] = read_delta if kind == "delta" else read_learner
    with tempfile.TemporaryDirectory() as name:
        view = Path(name)
        for file in FILES:
            source = (folder / file).absolute()
            if source.is_file():
                (view / file).symlink_to(source)
            else:
                (view / file).touch()
        try:
            read(view)
        except ArtifactError as error:
            raise ArtifactError(str(error).replace(str(view), str(folder))) from error


def _read_base(folder: Path) -> None:
    import safetensors

    try:
        with safetensors.safe_open(folder / "model.safetensors", framework="pt") as file:
            names = list(file.keys())
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"model.safetensors does not load: {error}.") from error
    if not names:
        raise ArtifactError("model.safetensors holds no tensors.")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file() and not isinstance(_json(folder / name), dict):
            raise ArtifactError(f"{name} holds no JSON object.")


def _evaluation(folder: Path) -> Iterator[Problem]:
    path = folder / "evaluation.json"
    if path.is_file() and not isinstance(_json(path), dict):
        yield Problem(ArtifactFault.EVALUATION, "evaluation.json holds no JSON object.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _paths(path: Path) -> Iterator[Problem]:
    if not path.is_file():
        return
    text = path.read_bytes().decode("utf-8", errors="replace")
    if found := machine_paths(text):
        yield Problem(
            ArtifactFault.PATH,
            f"{path.name} names {' and '.join(found)}, which is on the machine it was "
            "made on. Make it again with text in a corpus folder and a base model that others can "
            "have.",
        )


def _agreement(folder: Path, recipe: Recipe) -> Iterator[Problem]:
    """What the recipe, the config and the card say of the same thing."""
    if (folder / "README.md").is_file():
        text = (folder / "README.md").read_bytes().decode("utf-8", errors="replace")
        yield from check_license(text, recipe)
    try:
        config = None if isinstance(recipe, PretrainRecipe) else _config(folder, recipe)
    except SecondaryLearnersError:
        return  # said already
    if config is not None and config.name != recipe.name:
        yield Problem(
            ArtifactFault.RECIPE,
            f"recipe.toml makes {recipe.name!r} and config.json is {config.name!r}. "
            f"Make the {recipe.kind} again from its recipe.",
        )
    try:
        registry_entry(folder, recipe, "owner/name", "0" * 40)
    except SecondaryLearnersError as error:
        yield Problem(ArtifactFault.ENTRY, str(error))


def check_license(card: str, recipe: Recipe) -> Iterator[Problem]:
    """Whether a card and a recipe name the same license."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(card, ignore_metadata_errors=True).data
    except (ValueError, TypeError, yaml.YAMLError):
        return  # said by the check of the card
    said = data.get("license_name") if data.get("license") == "other" else data.get("license")
    if said not in (None, UNSTATED, recipe.license):
        yield Problem(
            ArtifactFault.LICENSE,
            f"the card says {said!r} and recipe.toml {recipe.license!r}. Make them say the same.",
        )


def _config(
    folder: Path, recipe: LearnerRecipe | MultistageRecipe | DistilledRecipe | DeltaRecipe
) -> LearnerConfig | DeltaConfig:
    config: type[LearnerConfig | DeltaConfig] = (
        DeltaConfig if isinstance(recipe, DeltaRecipe) else LearnerConfig
    )
    return config.from_dict(_json(folder / "config.json"))


def registry_entry(
    folder: Path,
    recipe: Recipe,
    repository: str,
    commit: str,
    *,
    endpoint: str = "",
    files: Mapping[str, str] | None = None,
    size: int = 0,
) -> Entry:
    """The registry entry of what was published; raises ArtifactError for what it would not take."""
    corpus = (
        recipe.task
        if isinstance(recipe, DeltaRecipe)
        else "+".join(dict.fromkeys(source.domain for source in recipe.sources))
    )
    of_kind: dict[str, Any] = {"kind": recipe.kind}
    if isinstance(recipe, PretrainRecipe):
        of_kind |= {"tokenizer": recipe.name, "architecture": "gpt2", "optimizer": "muon+adamw"}
    else:
        config = _config(folder, recipe)
        of_kind |= {"base": config.base_model.repo, "tokenizer": config.tokenizer.repo}
        if isinstance(recipe, DeltaRecipe):
            of_kind |= {"architecture": recipe.tuning.kind, "optimizer": "adamw"}
        elif isinstance(recipe, MultistageRecipe):
            of_kind |= {
                "kind": "learner",
                "objective": f"{recipe.task} losses",
                "architecture": config.architecture,
                "optimizer": "adamw",
            }
        else:
            assert isinstance(config, LearnerConfig)
            of_kind |= {
                "architecture": config.architecture,
                "optimizer": recipe.labels.optimizer,
            }
            if isinstance(recipe, DistilledRecipe):
                corpus = of_kind["objective"] = recipe.labels.corpus
                of_kind["kind"] = "learner"
            else:
                of_kind["objective"] = recipe.objective_domain
    return Entry(
        name=recipe.name,
        summary=recipe.summary,
        corpus=corpus,
        license=recipe.license,
        location=repository,
        revision=commit,
        endpoint=endpoint,
        added=date.today(),
        size=size,
        files=dict(files or {"config.json": "0" * 64}),
        **of_kind,
    )
