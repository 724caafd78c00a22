"""The cards of the deltas that ship."""

from __future__ import annotations

import json
import tomllib

import pytest
from huggingface_hub import ModelCard

from secondary_learners.cards.deltas import delta_card
from secondary_learners.content import content

NAMES = ("sst2-layers-mini", "sst2-mask-mini")


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_that_of_the_data(name: str) -> None:
    folder = content("learners") / name
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    recipe = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == delta_card(
        config,
        evaluation,
        **{field: recipe[field] for field in ("summary", "license", "attribution", "language")},
    )
    assert f"{evaluation['metrics']['accuracy']:.3f}" in card
    data = ModelCard(card).data
    assert data.license == "apache-2.0"
    assert {result.metric_type for result in data.eval_results} == {
        "accuracy",
        "matthews_correlation",
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_a_machine(name: str) -> None:
    for path in (content("learners") / name).iterdir():
        assert not any(word in path.read_bytes() for word in (b"/tmp/", b"/home/", b"/work/"))
