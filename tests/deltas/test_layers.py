from __future__ import annotations

import pytest
from transformers import PreTrainedModel

from secondary_learners.deltas.layers import (
    backbone_weights,
    freeze_except,
    head_weights,
    matching,
    parameter_groups,
)
from secondary_learners.deltas.masks import mask_layers
from secondary_learners.errors import SecondaryLearnersError, UnknownNameError

FC = "transformer.h.0.mlp.c_fc.weight"


def free(model: PreTrainedModel) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_backbone_and_head(model: PreTrainedModel, base: PreTrainedModel) -> None:
    assert set(head_weights(model)) == {"score.weight"}
    assert head_weights(base) == {}  # tied to the embedding
    assert set(backbone_weights(model)) == set(backbone_weights(base))
    assert set(backbone_weights(model.base_model)) == {
        name.removeprefix("transformer.") for name in backbone_weights(base)
    }
    before = set(backbone_weights(model))
    mask_layers(model, [FC])
    assert set(backbone_weights(model)) == before
    assert set(head_weights(model)) == {"score.weight"}


def test_only_the_chosen_layers_and_the_head_stay_free(model: PreTrainedModel) -> None:
    freeze_except(model, [FC])
    assert free(model) == {FC, "score.weight"}
    freeze_except(model, [])
    assert free(model) == {"score.weight"}
    with pytest.raises(UnknownNameError, match="did you mean"):
        freeze_except(model, ["transformer.h.0.mlp.c_fc.weigh"])


def test_masked_weights_stay_frozen_and_their_scores_free(model: PreTrainedModel) -> None:
    mask_layers(model, [FC])
    freeze_except(model, [FC])
    path = "transformer.h.0.mlp.c_fc.parametrizations.weight.0.scores"
    assert free(model) == {path, "score.weight"}


def test_each_group_has_its_learning_rate(model: PreTrainedModel) -> None:
    mask_layers(model, [FC])
    freeze_except(model, ["transformer.h.1.mlp.c_fc.weight", "transformer.ln_f.weight"])
    groups = parameter_groups(
        model,
        learning_rate=1e-4,
        head_learning_rate=1e-3,
        score_learning_rate=0.1,
        weight_decay=0.01,
    )
    shown = {(g["name"], g["lr"], g["weight_decay"], len(g["params"])) for g in groups}
    assert shown == {
        ("scores", 0.1, 0.0, 1),
        ("head", 1e-3, 0.01, 1),
        ("weights", 1e-4, 0.01, 1),
        ("weights", 1e-4, 0.0, 1),
    }
    model.requires_grad_(False)
    with pytest.raises(SecondaryLearnersError, match="frozen"):
        parameter_groups(model, learning_rate=1e-4)


def test_patterns(model: PreTrainedModel) -> None:
    names = backbone_weights(model)
    found = matching(names, [r"h\.1\.mlp.*weight", r"h\.0\.mlp.*weight"])
    assert found == tuple(
        f"transformer.h.{block}.mlp.{kind}.weight"
        for block in (0, 1)
        for kind in ("c_fc", "c_proj")
    )
    with pytest.raises(UnknownNameError, match="query"):
        matching(names, ["query"])
    with pytest.raises(SecondaryLearnersError, match="regular expression"):
        matching(names, ["("])
