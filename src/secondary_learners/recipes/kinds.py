"""The kinds of recipes: one row each, whose folder has its record and what is done with it.

To add a kind: a folder with recipe.py (a `Record` called RECIPE) and make.py (the functions of
`RecipeKind`), and a row here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from secondary_learners.recipes.record import Record

if TYPE_CHECKING:
    from secondary_learners.recipes.likeness import Figure
    from secondary_learners.recipes.run import Made, Run

__all__ = ["ROWS", "RecipeKind", "kind_of", "record_type"]

ROWS = {
    "learner": "secondary_learners.recipes.gain_learner",
    "multistage": "secondary_learners.recipes.loss_learner",
    "base-model": "secondary_learners.recipes.base_model",
    "fetched-model": "secondary_learners.recipes.fetched_model",
    "delta": "secondary_learners.recipes.delta",
    "distilled": "secondary_learners.recipes.distilled_learner",
    "student": "secondary_learners.recipes.student",
}
"""By the `kind` of a recipe's TOML file, the package that is its folder."""


class RecipeKind(Protocol):
    """What the module make.py of a kind has."""

    def read(self, recipe: Any, run: Run) -> Any:
        """The material: all that is read before any work is done."""

    def make(self, recipe: Any, material: Any, run: Run) -> Made | None:
        """The artifact in `run.out`; None in a process that only shared in the work."""

    def digests(self, material: Any, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
        """Parts of the material by name, the digest of each and the one that `config` records."""

    def compare(self, recipe: Any, material: Any, ours: Path, theirs: Path) -> list[Figure]:
        """How alike two artifacts of this recipe act on text that neither was made from."""

    def check(self, folder: Path) -> object:
        """Read the artifact as its loader would; raises ArtifactError."""

    def report(self, made: Made) -> str:
        """What `learners run` says in the end."""


def record_type(kind: str) -> type[Record]:
    """The record of a kind of `ROWS`, without torch."""
    record: type[Record] = import_module(f"{ROWS[kind]}.recipe").RECIPE
    return record


def kind_of(recipe: Record) -> RecipeKind:
    """What is done with the recipe: the module make.py of its kind."""
    return cast(RecipeKind, import_module(f"{ROWS[recipe.kind]}.make"))
