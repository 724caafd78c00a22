"""Masks: what they zero, what is learnt, and that nothing is left of them afterwards."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from secondary_learners.deltas.layers import head_weights
from secondary_learners.deltas.masks import (
    mask_layers,
    masks_of,
    merge_masks,
    remove_masks,
    sparsity_of,
)
from secondary_learners.errors import SecondaryLearnersError, UnknownNameError

LAYERS = ("transformer.h.0.mlp.c_fc.weight", "transformer.h.1.attn.c_attn.weight")
IDS = torch.tensor([[3, 9, 7, 30], [8, 11, 12, 60]])


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 0.99), st.sampled_from(["magnitude", "random"]), st.integers(0, 99))
def test_the_initial_sparsity(
    sparsity: float, start: Literal["magnitude", "random"], seed: int
) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(30, 40)
    mask_layers(layer, ["weight"], sparsity=sparsity, start=start, seed=seed)
    kept = masks_of(layer)["weight"]
    slack = 1e-3 if start == "magnitude" else 0.09  # 6 deviations of 1,200 draws
    assert abs(sparsity_of(layer) - sparsity) <= slack
    assert torch.equal(layer.weight == 0, ~kept)
    if start == "magnitude" and not kept.all() and kept.any():
        size = layer.parametrizations.weight.original.abs()  # type: ignore[union-attr]
        assert size[~kept].max() <= size[kept].min()


def test_the_threshold_passes_gradients_straight_through() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 3), torch.randn(7, 5)
    before = layer.weight.detach().clone()
    mask_layers(layer, ["weight"], sparsity=0.4)
    scores = layer.parametrizations.weight[0].scores  # type: ignore[index,union-attr]
    layer(x).square().sum().backward()

    soft = masks_of(layer)["weight"].float().requires_grad_()
    functional.linear(x, before * soft, layer.bias.detach()).square().sum().backward()
    torch.testing.assert_close(scores.grad, soft.grad)
    assert (scores.grad[~masks_of(layer)["weight"]] != 0).all()  # zeros can come back


def test_merging_keeps_the_outputs_and_leaves_a_plain_model(model: PreTrainedModel) -> None:
    names = set(model.state_dict())
    mask_layers(model, LAYERS, sparsity=0.3)
    masked, masks = logits(model), masks_of(model)
    merge_masks(model)
    assert torch.equal(logits(model), masked)
    assert set(model.state_dict()) == names
    assert masks_of(model) == {}
    assert sparsity_of(model) == 0
    for name, kept in masks.items():
        assert torch.equal(model.get_parameter(name) != 0, kept)


def test_removing_gives_every_bit_back(model: PreTrainedModel) -> None:
    before = copy.deepcopy(model.state_dict())
    mask_layers(model, LAYERS, sparsity=0.3)
    remove_masks(model)
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_seed_gives_the_same_masks(model: PreTrainedModel) -> None:
    other = copy.deepcopy(model)
    for each, seed in ((model, 3), (other, 3)):
        mask_layers(each, LAYERS, sparsity=0.2, start="random", seed=seed)
    assert all(torch.equal(a, masks_of(other)[n]) for n, a in masks_of(model).items())
    assert sorted(masks_of(model)) == sorted(LAYERS)
    assert set(head_weights(model)) == {"score.weight"}


@pytest.mark.parametrize("bad", [-0.1, 1, 2, float("nan")])
def test_a_sparsity_that_is_no_share(model: PreTrainedModel, bad: float) -> None:
    with pytest.raises(SecondaryLearnersError, match="share"):
        mask_layers(model, LAYERS, sparsity=bad)


def test_what_cannot_be_masked(model: PreTrainedModel, base: PreTrainedModel) -> None:
    with pytest.raises(UnknownNameError, match=r"c_fcc.*did you mean"):
        mask_layers(model, ["transformer.h.0.mlp.c_fcc.weight"])
    with pytest.raises(SecondaryLearnersError, match=r"shared .*lm_head"):
        mask_layers(copy.deepcopy(base), ["transformer.wte.weight"])
    with pytest.raises(SecondaryLearnersError, match="'random'"):
        mask_layers(model, LAYERS, start="small")  # type: ignore[arg-type]
    mask_layers(model, LAYERS)
    with pytest.raises(SecondaryLearnersError, match="parametrized already"):
        mask_layers(model, LAYERS)
