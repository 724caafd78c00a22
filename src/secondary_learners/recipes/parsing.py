"""Recipes from TOML files and back, by the kinds of the table."""

from __future__ import annotations

from pathlib import Path

from secondary_learners.artifacts.records import read_record, read_toml, record_toml
from secondary_learners.content import content
from secondary_learners.errors import RecipeError, UnknownNameError
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.delta.recipe import DeltaRecipe
from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.loss_learner.recipe import MultistageRecipe

__all__ = ["Recipe", "find_recipe", "parse_recipe", "recipe_names", "recipe_toml"]


Recipe = LearnerRecipe | MultistageRecipe | PretrainRecipe | DeltaRecipe | DistilledRecipe


_KINDS: dict[str, type[Recipe]] = {
    "learner": LearnerRecipe,
    "multistage": MultistageRecipe,
    "base-model": PretrainRecipe,
    "delta": DeltaRecipe,
    "distilled": DistilledRecipe,
}


def recipe_names() -> list[str]:
    """The names of the bundled recipes."""
    return sorted(path.stem for path in content("recipes").glob("*.toml"))


def find_recipe(ref: str) -> Recipe:
    """A bundled recipe by name, or the recipe in a TOML file; UnknownNameError otherwise."""
    path = Path(ref)
    if path.suffix != ".toml":
        path = content("recipes") / f"{ref}.toml"
    if not path.is_file():
        raise UnknownNameError("recipe", ref, recipe_names(), "learners list --recipes")
    return parse_recipe(path.read_text(encoding="utf-8"), str(path))


def parse_recipe(text: str, where: str = "recipe") -> Recipe:
    """Parse and check; RecipeError names the file, the field and what was expected."""
    values = read_toml(text, where, RecipeError)
    kind = values.get("kind", "learner")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RecipeError(f"{where}: kind {kind!r} is not one of {', '.join(sorted(_KINDS))}.")
    return read_record(_KINDS[kind], values, where, RecipeError)


def recipe_toml(recipe: Recipe) -> str:
    """The resolved recipe, every default written out; `parse_recipe` reads it back equal."""
    return record_toml(recipe)
