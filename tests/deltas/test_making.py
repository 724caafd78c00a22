from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from secondary_learners.deltas.layers import backbone_weights
from secondary_learners.deltas.making import fine_tune, tuned_layers
from secondary_learners.deltas.settings import Training, Tuning
from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.tasks.encoding import Encoded
from secondary_learners.tasks.training import evaluate

FAST = Training(epochs=4, batch_size=10, learning_rate=5e-3, score_learning_rate=0.3)


def test_only_what_is_chosen_changes(base: PreTrainedModel, examples: Encoded) -> None:
    tuning = Tuning(kind="layers", layers=(r"h\.1\.mlp.*weight",), training=FAST)
    tuned = fine_tune(base, examples, tuning)
    moved = {
        name
        for name, weight in backbone_weights(tuned.model).items()
        if not torch.equal(weight, base.get_parameter(name))
    }
    assert (
        moved == set(tuned.layers) == {f"transformer.h.1.mlp.c_{k}.weight" for k in ("fc", "proj")}
    )


def test_a_mask_is_learnt_over_unchanged_weights(base: PreTrainedModel, examples: Encoded) -> None:
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    training = replace(FAST, epochs=15, score_learning_rate=0.1, head_learning_rate=1e-2)
    tuning = Tuning(kind="mask", layers=(r"h\..*(attn|mlp).*weight",), training=training)
    tuned = fine_tune(base, examples, tuning)
    assert evaluate(tuned.model, examples).accuracy > 0.6
    assert 0.05 < tuned.sparsity < 0.9
    for name, weight in backbone_weights(tuned.model).items():
        assert torch.equal(weight, before[name])


def test_the_rule_chooses_matrices_within_the_share(
    base: PreTrainedModel, examples: Encoded
) -> None:
    tuning = Tuning(kind="layers", share=0.2, probe=50, training=FAST)
    names = tuned_layers(base, examples, tuning)
    sizes = {name: weight.numel() for name, weight in backbone_weights(base).items()}
    assert 0 < sum(sizes[name] for name in names) <= 0.2 * sum(sizes.values())
    assert all(".h." in name and name.endswith("weight") for name in names)
    assert names == tuned_layers(base, examples, tuning)
    assert tuned_layers(base, examples, Tuning(kind="full")) == ()


def test_settings_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="did you mean mask"):
        Tuning(kind="masks")  # type: ignore[arg-type]
    with pytest.raises(SecondaryLearnersError, match="share 2"):
        Tuning(share=2)
