"""Small text and a recipe for it, for the tests of recipes, cards and the CLI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from secondary_learners.recipes.gain_learner.recipe import LabelPlan, LearnerRecipe, own_recipe
from secondary_learners.recipes.record import Record
from secondary_learners.recipes.run import Made, Run, run_recipe

_WANTED = "sea ship wave storm sail anchor captain harbour deck crew tide mast rope gull"
_OTHER = "tax form rule office page line table data code list value unit sum rate"
WANTED, OTHER = _WANTED.split(), _OTHER.split()


def prose(words: list[str], characters: int, seed: int) -> str:
    """Sentences of `words`, unevenly often, in paragraphs divided by blank lines."""
    random = np.random.default_rng(seed)
    weights = np.arange(len(words), 0, -1.0)
    paragraphs = []
    while characters > 0:
        chosen = random.choice(words, 60, p=weights / weights.sum())
        paragraphs.append(" ".join(chosen).capitalize() + ".")
        characters -= len(paragraphs[-1])
    return "\n\n".join(paragraphs)


def write_text(folder: Path, characters: int = 26_000) -> tuple[Path, Path]:
    """An objective file and a pool file."""
    objective, pool = folder / "wanted.txt", folder / "pool.txt"
    objective.write_text(prose(WANTED, characters, seed=1))
    pool.write_text(prose(OTHER, characters, seed=2))
    return objective, pool


def tiny_recipe(objective: Path, pool: Path, base: Path) -> LearnerRecipe:
    """200 contexts of 16 tokens from own text, 8 of them checked exactly."""
    labels = LabelPlan(contexts=200, objective_contexts=16, exact=8)
    recipe = own_recipe("tiny", objective, pool)
    return replace(recipe, base=str(base), context_length=16, labels=labels)


def make(recipe: Record, corpus: Path | None, out: Path, **options: Any) -> Made:
    """What `run_recipe` makes of `recipe` in the folder `out`."""
    made = run_recipe(recipe, Run(out=out, corpus=corpus, **options))
    assert made is not None
    return made
