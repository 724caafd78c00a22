"""Recipes from TOML files and back, by the table of kinds."""

from __future__ import annotations

from pathlib import Path

from secondary_learners.artifacts.records import read_record, read_toml, record_toml
from secondary_learners.content import content
from secondary_learners.errors import RecipeError, UnknownNameError
from secondary_learners.recipes.kinds import ROWS, record_type
from secondary_learners.recipes.record import Record

__all__ = ["find_recipe", "parse_recipe", "recipe_names", "recipe_toml"]


def recipe_names() -> list[str]:
    """The names of the bundled recipes."""
    return sorted(path.stem for path in content("recipes").glob("*.toml"))


def find_recipe(ref: str) -> Record:
    """A bundled recipe by name, or the recipe in a TOML file; UnknownNameError otherwise."""
    path = Path(ref)
    if path.suffix != ".toml":
        path = content("recipes") / f"{ref}.toml"
    if not path.is_file():
        raise UnknownNameError("recipe", ref, recipe_names(), "learners list --recipes")
    return parse_recipe(path.read_text(encoding="utf-8"), str(path))


def parse_recipe(text: str, where: str = "recipe") -> Record:
    """Parse and check; RecipeError names the file, the field and what was expected."""
    values = read_toml(text, where, RecipeError)
    kind = values.get("kind", "learner")
    if not isinstance(kind, str) or kind not in ROWS:
        raise RecipeError(f"{where}: kind {kind!r} is not one of {', '.join(sorted(ROWS))}.")
    return read_record(record_type(kind), values, where, RecipeError)


def recipe_toml(recipe: Record) -> str:
    """The resolved recipe, every default written out; `parse_recipe` reads it back equal."""
    return record_toml(recipe)
