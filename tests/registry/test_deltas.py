from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secondary_learners import load_base, load_delta
from secondary_learners.catalogue import content
from secondary_learners.errors import ArtefactError, UnknownNameError
from secondary_learners.finetuning.sparse.tasks import classifier
from secondary_learners.registry.deltas import delta_folder, find_delta

IDS = torch.tensor([[100, 200, 300, 5]])


def test_an_unknown_name_or_folder() -> None:
    with pytest.raises(UnknownNameError, match="learners delta show"):
        load_delta("no-such-delta")
    with pytest.raises(UnknownNameError):
        delta_folder("books-mini")  # a learner
    for ref in (Path("nowhere"), "./nowhere"):
        with pytest.raises(ArtefactError, match=r"nowhere has no config\.json"):
            load_delta(ref)
    with pytest.raises(ArtefactError, match="'kind'"):
        load_delta(content("learners") / "books-mini")


@pytest.mark.parametrize("name", ["sst2-layers-mini", "sst2-mask-mini"])
def test_what_ships_goes_on_mini_and_comes_off(name: str) -> None:
    base, _ = load_base("mini")
    model = classifier(base, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    applied = load_delta(name, model)
    assert applied.model is model
    with torch.no_grad():
        expected = model(IDS).logits
        assert torch.equal(load_delta(name).model(IDS).logits, expected)
    applied.remove()
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    config = find_delta(name).config
    assert config.name == name
    assert config.kind == name.split("-")[1]
