from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from secondary_learners.deltas.making import train
from secondary_learners.deltas.settings import Training
from secondary_learners.errors import DivergedError, SecondaryLearnersError
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import Encoded
from secondary_learners.tasks.training import evaluate, predict


def test_a_classifier_has_the_base_and_a_head_of_its_seed(base: PreTrainedModel) -> None:
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    first, same, other = (classifier(base, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), drawn)  # the caller's random numbers are left alone
    for name, weight in base.base_model.named_parameters():
        assert torch.equal(first.base_model.get_parameter(name), weight)
        assert first.base_model.get_parameter(name) is not weight
    heads = [model.get_parameter("score.weight") for model in (first, same, other)]
    assert heads[0].shape == (3, base.config.n_embd)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_training_learns_and_repeats(trainable: PreTrainedModel, examples: Encoded) -> None:
    again = copy.deepcopy(trainable)
    training = Training(epochs=4, batch_size=10, learning_rate=5e-3, mixed_precision=False)
    assert train(trainable, examples, training, seed=1) > 0
    train(again, examples, training, seed=1)
    assert evaluate(trainable, examples).accuracy > 0.9
    for name, weight in trainable.named_parameters():
        assert torch.equal(weight, again.get_parameter(name)), name


def test_predictions_do_not_depend_on_their_neighbors(
    model: PreTrainedModel, examples: Encoded
) -> None:
    together = predict(model, examples)
    for place in (0, 57, 119):
        one = Encoded(examples.ids[place : place + 1], (0,), examples.classes)
        np.testing.assert_allclose(predict(model, one)[0], together[place], atol=1e-5)


def test_divergence_and_settings(trainable: PreTrainedModel, examples: Encoded) -> None:
    with torch.no_grad():
        trainable.get_parameter("score.weight").fill_(torch.nan)
    with pytest.raises(DivergedError, match="nan"):
        train(trainable, examples, Training())
    with pytest.raises(SecondaryLearnersError, match="epochs is 0"):
        Training(epochs=0)
