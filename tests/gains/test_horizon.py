"""Labels that look further than one step, against plain loops in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from gains_helpers import contexts_of
from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.settings import LabelSettings
from secondary_learners.gains.training import update_batches
from secondary_learners.text.sequences import Examples

CONTEXTS = contexts_of(9, seed=0, domains=2)
OBJECTIVE = contexts_of(10, seed=1, domains=2).in_domain("domain 0")
POOL = contexts_of(14, seed=2, domains=2)
RATE = 1e-3


def losses(model: Any, examples: Examples) -> np.ndarray:
    rows = torch.from_numpy(examples.input_ids)
    with torch.no_grad():
        return np.array([float(model(input_ids=row[None], labels=row[None]).loss) for row in rows])


def after(model: Any, text: Examples, settings: LabelSettings, repeat: int = 0) -> Any:
    """torch's own optimizer over the batches that the labels say they take."""
    trained = copy.deepcopy(model)
    kinds = {
        "adamw": lambda p: torch.optim.AdamW(p, lr=RATE, eps=1e-8, weight_decay=0.0),
        "sgd": lambda p: torch.optim.SGD(p, lr=RATE),
    }
    optimizer = kinds[settings.optimizer](trained.parameters())
    for batch in update_batches(len(text), settings, repeat):
        rows = torch.from_numpy(text.input_ids[batch])
        optimizer.zero_grad()
        trained(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    return trained


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_horizon_is_the_fall_of_the_loss_over_plain_training(
    model: PreTrainedModel, optimizer: str
) -> None:
    model = model.double().eval()
    settings = LabelSettings(optimizer=optimizer, horizon=5, update_batch=3, seed=4)
    expected = losses(model, CONTEXTS) - losses(after(model, OBJECTIVE, settings), CONTEXTS)
    gains = information_gain(
        model,
        CONTEXTS,
        OBJECTIVE,
        optimizer=optimizer,
        learning_rate=RATE,
        horizon=5,
        update_batch=3,
        seed=4,
    )
    np.testing.assert_allclose(gains, expected, rtol=1e-3, atol=2e-6)


def test_a_contrast_is_against_as_many_updates_on_the_pool(model: PreTrainedModel) -> None:
    model = model.double().eval()
    settings = LabelSettings(horizon=4, update_batch=4, repeats=2)
    ends = [
        np.mean([losses(after(model, text, settings, n), CONTEXTS) for n in range(2)], axis=0)
        for text in (POOL, OBJECTIVE)
    ]
    gains = information_gain(
        model,
        CONTEXTS,
        OBJECTIVE,
        against=POOL,
        learning_rate=RATE,
        horizon=4,
        update_batch=4,
        repeats=2,
    )
    np.testing.assert_allclose(gains, ends[0] - ends[1], rtol=1e-3, atol=2e-6)
    inside = CONTEXTS.domain == 0
    assert gains[inside].mean() > gains[~inside].mean()


def test_a_horizon_of_one_is_one_step_to_the_bit(model: PreTrainedModel) -> None:
    plain = information_gain(model, CONTEXTS, OBJECTIVE)
    np.testing.assert_array_equal(
        information_gain(model, CONTEXTS, OBJECTIVE, horizon=1, update_batch=3, seed=9), plain
    )


def test_components_are_standardized_weighted_and_added(model: PreTrainedModel) -> None:
    options: dict[str, Any] = {"learning_rate": RATE, "horizon": 3, "update_batch": 4}
    step = information_gain(model, CONTEXTS, OBJECTIVE, learning_rate=RATE)
    contrast = information_gain(model, CONTEXTS, OBJECTIVE, against=POOL, **options)

    def standard(values: np.ndarray) -> np.ndarray:
        return (values - values.mean()) / values.std()

    both = information_gain(
        model, CONTEXTS, OBJECTIVE, against=POOL, combine={"step": 1, "contrast": 2}, **options
    )
    np.testing.assert_allclose(both, standard(step) + 2 * standard(contrast), rtol=1e-4, atol=1e-4)


def test_every_row_is_taken_before_one_is_taken_again() -> None:
    settings = LabelSettings(horizon=7, update_batch=4, seed=3)
    batches = update_batches(10, settings, 0)
    assert [len(batch) for batch in batches] == [4] * 7
    order = np.concatenate(batches)
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    again, other = update_batches(10, settings, 0), update_batches(10, settings, 1)
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))
    assert not np.array_equal(order, np.concatenate(other))


def test_weights_come_back_bit_for_bit(model: PreTrainedModel) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    information_gain(model, CONTEXTS, OBJECTIVE, against=POOL, horizon=3, learning_rate=RATE)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_settings_that_do_not_go_together_are_refused(model: PreTrainedModel) -> None:
    def refused(error: type[Exception], match: str, **options: Any) -> None:
        with pytest.raises(error, match=match):
            information_gain(model, CONTEXTS, OBJECTIVE, **options)

    refused(SecondaryLearnersError, "horizon is 3, and exact labels", method="exact", horizon=3)
    refused(SecondaryLearnersError, "repeats is 2", repeats=2)
    refused(SecondaryLearnersError, "horizon is 0", horizon=0)
    refused(UnknownNameError, "did you mean contrast", combine={"contrasts": 1})
    refused(SecondaryLearnersError, "contrast labels are against a pool", combine={"contrast": 1})
