from __future__ import annotations

import copy

import pytest
import torch
from transformers import PreTrainedModel

from secondary_learners.deltas.fingerprints import base_fingerprint
from secondary_learners.deltas.masks import mask_layers
from secondary_learners.tasks.classifier import classifier


def test_heads_masks_and_types_that_hold_the_numbers_do_not_count(base: PreTrainedModel) -> None:
    found = base_fingerprint(base)
    assert base_fingerprint(base.base_model) == found
    model = classifier(base, 3, seed=7)
    assert base_fingerprint(model) == found
    mask_layers(model, ["transformer.h.0.mlp.c_fc.weight"], sparsity=0.5)
    assert base_fingerprint(model) == found

    half = copy.deepcopy(base).half()
    assert base_fingerprint(half) != found
    assert base_fingerprint(copy.deepcopy(half).float()) == base_fingerprint(half)


@pytest.mark.parametrize("name", ["h.1.ln_2.bias", "wte.weight", "h.0.mlp.c_proj.weight"])
def test_every_weight_counts_to_its_last_bit(base: PreTrainedModel, name: str) -> None:
    model = copy.deepcopy(base)
    weight = model.base_model.get_parameter(name)
    with torch.no_grad():
        weight.view(-1)[-1] = torch.nextafter(weight.view(-1)[-1], torch.tensor(torch.inf))
    assert base_fingerprint(model) != base_fingerprint(base)


def test_the_bytes_that_are_hashed_are_fixed() -> None:
    """Published deltas name their base by this: it must never change."""

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
            self.register_buffer("steps", torch.tensor(3))

        @property
        def base_model(self) -> Tiny:
            return self

    assert (
        base_fingerprint(Tiny())  # type: ignore[arg-type]
        == "8904f79b678b15af5759736bcf13b35b1c84c7e9dacee4bac82c36473d8b10a9"
    )
