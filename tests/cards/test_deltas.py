"""The cards of the deltas that ship."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import ModelCard

from secondary_learners.content import content

NAMES = ("sst2-layers-mini", "sst2-mask-mini")


@pytest.mark.parametrize("name", NAMES)
def test_the_card_has_the_figures_of_the_data(name: str) -> None:
    folder = content("learners") / name
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{evaluation['metrics']['accuracy']:.3f}" in card
    assert f"**{evaluation['bytes']:,} bytes" in card
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
