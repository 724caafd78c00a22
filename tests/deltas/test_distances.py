"""Distances against float64 definitions, and the rule that chooses layers by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedModel

from secondary_learners.deltas.distance_figure import plot_distances
from secondary_learners.deltas.distances import (
    Distance,
    critical_layers,
    distance_table,
    layer_distances,
)
from secondary_learners.deltas.masks import mask_layers
from secondary_learners.errors import IncompatibleError, SecondaryLearnersError
from secondary_learners.tasks.classifier import classifier
from tiny_models import tiny_gpt2

FC = "transformer.h.0.mlp.c_fc.weight"


def by_name(distances: tuple[Distance, ...]) -> dict[str, Distance]:
    return {distance.name: distance for distance in distances}


def test_a_model_is_at_no_distance_from_itself(
    base: PreTrainedModel, model: PreTrainedModel
) -> None:
    for distance in layer_distances(base, model):
        assert (distance.l0, distance.l1, distance.angular) == (0, 0, 0)


@settings(max_examples=20, deadline=None)
@given(st.floats(-8, 1), st.floats(0.05, 1), st.integers(0, 99))
def test_the_definitions(base: PreTrainedModel, magnitude: float, share: float, seed: int) -> None:
    model = classifier(base, 2)
    weight = model.get_parameter(FC)
    old = weight.detach().double().numpy().copy()
    random = np.random.default_rng(seed)
    change = 10**magnitude * random.normal(size=old.shape) * (random.random(old.shape) < share)
    with torch.no_grad():
        weight.copy_(torch.from_numpy(old + change))
    new = weight.detach().double().numpy()
    found = by_name(layer_distances(base, model))[FC]
    assert found.l0 == pytest.approx(np.mean(old != new))
    assert found.l1 == pytest.approx(np.mean(np.abs(new - old)))
    assert found.relative == pytest.approx(np.mean(np.abs(new - old)) / np.mean(np.abs(old)))
    u, v = old.ravel() / np.linalg.norm(old), new.ravel() / np.linalg.norm(new)
    across = np.linalg.norm(v - (u @ v) * u)  # the sine, good for small angles
    assert found.angular == pytest.approx(math.atan2(across, u @ v) / math.pi, rel=1e-6)


def test_scale_changes_no_angle_and_a_turn_by_a_half_is_1(
    base: PreTrainedModel, model: PreTrainedModel
) -> None:
    with torch.no_grad():
        model.get_parameter(FC).mul_(2)
        model.get_parameter("transformer.ln_f.weight").mul_(-1)
    found = by_name(layer_distances(base, model))
    assert found[FC].angular == pytest.approx(0, abs=1e-7)
    assert found[FC].relative == pytest.approx(1)
    assert found["transformer.ln_f.weight"].angular == pytest.approx(1)
    assert found["transformer.ln_f.bias"].relative is None  # zeros


def test_unrelated_weights_are_at_half(base: PreTrainedModel, model: PreTrainedModel) -> None:
    nn.init.normal_(model.get_parameter("transformer.wte.weight"))
    found = by_name(layer_distances(base, model))["transformer.wte.weight"]
    assert found.angular == pytest.approx(0.5, abs=0.03)
    assert found.kind == "embedding"


def test_a_mask_counts_as_what_it_leaves(base: PreTrainedModel, model: PreTrainedModel) -> None:
    mask_layers(model, [FC], sparsity=0.25)
    found = by_name(layer_distances(base, model))
    assert found[FC].l0 == pytest.approx(0.25, abs=1e-3)
    assert sum(distance.l0 > 0 for distance in found.values()) == 1


def test_other_models_do_not_compare(base: PreTrainedModel) -> None:
    other = tiny_gpt2(n_embd=24, head="Model")
    with pytest.raises(IncompatibleError, match="GPT2Model"):
        layer_distances(base, other)


def distance(name: str, size: int, angular: float, kind: str = "matrix") -> Distance:
    return Distance(name, kind, size, 1, 1, None, angular)  # type: ignore[arg-type]


def test_the_layers_that_turn_most_are_taken_while_they_fit() -> None:
    distances = [
        distance("e", 30, 0.9, "embedding"),
        distance("a", 20, 0.1),
        distance("b", 30, 0.3),
        distance("v", 10, 0.8, "vector"),
        distance("c", 10, 0.2),
    ]
    assert critical_layers(distances, 0.3) == ("b",)
    assert critical_layers(distances, 0.4) == ("b", "c")
    assert critical_layers(distances, 0.25) == ("c",)  # b does not fit, and c does
    assert critical_layers(distances, 1) == ("a", "b", "c")
    assert critical_layers(distances, 0.2, kinds=("vector", "matrix")) == ("v", "c")
    with pytest.raises(SecondaryLearnersError, match="smallest has 10"):
        critical_layers(distances, 0.05)


def test_table_and_plot(base: PreTrainedModel, model: PreTrainedModel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    distances = layer_distances(base, model)
    lines = distance_table(distances).splitlines()
    assert len(lines) == len(distances) + 1
    assert lines[0].split() == ["layer", "weights", "L0", "L1", "L1/|w|", "angular"]
    plot_distances(distances, tmp_path / "d.svg")
    drawn = (tmp_path / "d.svg").read_text()
    assert drawn.rstrip().endswith("</svg>")
