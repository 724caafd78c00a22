from __future__ import annotations

from pathlib import Path

import pytest

from recipes_helpers import tiny_recipe, write_text
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def recipe(base: Path, text: tuple[Path, Path]) -> LearnerRecipe:
    return tiny_recipe(*text, base)
