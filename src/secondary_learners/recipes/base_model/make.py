"""A small base model: text → tokenizer → training → folder, card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secondary_learners.artifacts.checks import read_json
from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.files import write_bytes
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.base_model.training import Material, pretrain, read
from secondary_learners.recipes.likeness import Figure
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.run import Made, Run

__all__ = ["check", "compare", "digests", "make", "read", "report"]


def make(recipe: PretrainRecipe, material: Material, run: Run) -> Made:
    """Train the model and write its folder."""
    evaluation = pretrain(recipe, material, run)
    write_bytes(run.out / "recipe.toml", recipe_toml(recipe).encode())
    shown = {**evaluation, "command": run.command}
    readme = render_card(card("base-model"), {}, shown, About.of(recipe))
    write_bytes(run.out / "README.md", readme.encode())
    return Made(run.out, evaluation)


def digests(material: Material, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """A base model's config records no text."""
    yield from ()


def compare(recipe: PretrainRecipe, material: Material, ours: Path, theirs: Path) -> list[Figure]:
    """The held-out loss is all there is, and evaluation.json has that."""
    return []


def check(folder: Path) -> object:
    return read_json(folder / "config.json")


def report(made: Made) -> str:
    """The held-out loss."""
    loss = made.evaluation["held_out_loss"]
    return f"{made.folder}: held-out loss {loss:.3f} nats per token"
