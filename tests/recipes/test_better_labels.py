"""A recipe whose labels look further than a step, tried against selectors and on an unseen pool."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes_helpers import make, prose
from secondary_learners.cards.check import check_card
from secondary_learners.errors import RecipeError
from secondary_learners.experiments.selectors import EVERYTHING, SELECTOR_ARMS
from secondary_learners.recipes.gain_learner.recipe import AGAINST, EvaluationPlan, LearnerRecipe
from secondary_learners.recipes.parsing import parse_recipe, recipe_toml
from secondary_learners.recipes.run import Made
from secondary_learners.registry.load import load_learner
from secondary_learners.text.corpus import Source

COMMON: dict[str, Any] = {"device": "cpu", "command": "learners run tiny", "progress": False}
_OUTSIDE = "star moon comet orbit planet galaxy light year lens mirror dust ring"
OUTSIDE = _OUTSIDE.split()
EVALUATION = EvaluationPlan(
    seeds=2, updates=3, batch_size=4, test_contexts=20, against=AGAINST, evaluate_every=2
)


@pytest.fixture(scope="module")
def further(recipe: LearnerRecipe, tmp_path_factory: pytest.TempPathFactory) -> LearnerRecipe:
    path = tmp_path_factory.mktemp("unseen") / "stars.txt"
    path.write_text(prose(OUTSIDE, 26_000, seed=5))
    labels = replace(
        recipe.labels,
        horizon=4,
        update_batch=4,
        horizon_learning_rate=1e-3,
        against_contexts=60,
        combine={"step": 1.0, "contrast": 1.0, "classifier": 1.5},
    )
    unseen = (Source("stars", files=str(path), block_characters=2000),)
    return replace(
        recipe, labels=labels, unseen=unseen, evaluation=EVALUATION, license="apache-2.0"
    )


@pytest.fixture(scope="module")
def made(further: LearnerRecipe, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(further, None, tmp_path_factory.mktemp("made") / "tiny", **COMMON)


def test_the_recipe_and_the_experiments_know_the_same_arms() -> None:
    assert (*SELECTOR_ARMS, EVERYTHING) == AGAINST


def test_the_artifact_says_how_its_labels_were_made(made: Made) -> None:
    config = load_learner(made.folder).config
    assert config.labels["combine"] == {"classifier": 1.5, "contrast": 1.0, "step": 1.0}
    assert (config.labels["horizon"], config.labels["horizon_learning_rate"]) == (4, 1e-3)
    assert len(config.labels["against"]) == 1
    assert config.score.unit == "standard deviations of its components, weighted and added"
    card = (made.folder / "README.md").read_text()
    assert "1.5 × the *classifier*" in card and "after 4 updates on the objective" in card
    assert check_card(made.folder) == []


def test_both_pools_are_compared_with_every_arm(made: Made) -> None:
    rows = made.evaluation["selectors"]
    arms = ["standard", "constant:1", "random constant:1", *SELECTOR_ARMS]
    arms += ["everything drawn", "objective only"]
    assert [row["arm"] for row in rows] == arms * 2
    assert [row["pool"] for row in rows] == ["own"] * len(arms) + ["unseen"] * len(arms)
    by = {(row["pool"], row["arm"]): row for row in rows}
    assert by["own", "classifier"]["kept_in_domain"] > 0.9
    assert by["unseen", "objective only"]["kept_in_domain"] == 1
    for row in rows:
        assert (row["change"] is None) == (row["arm"] == "constant:1")
    card = (made.folder / "README.md").read_text()
    assert "| unseen | middle-perplexity |" in card


def test_a_card_must_show_what_a_comparison_measured(made: Made, tmp_path: Path) -> None:
    evaluation = json.loads((made.folder / "evaluation.json").read_text())
    for path in made.folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation | {"selectors": []}))
    assert any("selectors" in problem.message for problem in check_card(tmp_path))


def test_such_a_recipe_is_written_and_read_again(further: LearnerRecipe) -> None:
    assert parse_recipe(recipe_toml(further)) == further


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("horizon = 4", "horizon = 0", "horizon is 0"),
        ("against_contexts = 60", "against_contexts = -1", "against_contexts is -1"),
        ('domain = "stars"', 'domain = "objective"', "unseen names the objective's domain"),
        ('"classifier",', '"clasifier",', "against is 'clasifier'"),
    ],
)
def test_what_is_wrong_in_it_is_named(
    further: LearnerRecipe, old: str, new: str, message: str
) -> None:
    text = recipe_toml(further)
    assert old in text
    with pytest.raises(RecipeError, match=message):
        parse_recipe(text.replace(old, new, 1))
