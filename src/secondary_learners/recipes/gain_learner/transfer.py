"""Figures of a learner on other weights, into its evaluation.json, its card and its entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from secondary_learners.artifacts.checks import read_json
from secondary_learners.files import write_bytes
from secondary_learners.learners.artifact import read_learner, save_learner
from secondary_learners.recipes.gain_learner.make import card_of
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.recipes.provenance import file_digests
from secondary_learners.registry.index import entry_toml, find

__all__ = ["TransferRow", "record_transfer"]


class TransferRow(TypedDict):
    """Spearman of scores with fresh labels of `contexts`, at `base` after `updates` updates."""

    base: str
    updates: int
    spearman: float
    contexts: int


def record_transfer(
    folder: Path, rows: Sequence[TransferRow], *, registry: Path | None = None
) -> None:
    """Replace `transfer` in the evaluation of the learner in `folder`, and render its card anew.

    registry: a folder of entries in which the sizes and digests of these files are recorded anew.
    Weights, config and recipe keep their bytes. Raises what `read_learner` raises.
    """
    learner = read_learner(folder)
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    recipe = find_recipe(str(folder / "recipe.toml")).on_text()
    evaluation = read_json(folder / "evaluation.json") | {"transfer": list(rows)}
    card = card_of(recipe, learner.config, evaluation, folder)
    save_learner(learner, folder, recipe_toml=text, evaluation=evaluation, readme=card)
    if registry is not None:
        entry = find(recipe.name, kind="learner", folder=registry)
        changed = dataclasses.replace(entry, **file_digests(folder))
        write_bytes(registry / f"{recipe.name}.toml", entry_toml(changed).encode())
