from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    PreTrainedModel,
)

from gains_helpers import OF_A_MODEL, VOCABULARY, contexts_of
from secondary_learners.errors import DivergedError, UnknownNameError
from secondary_learners.gains import objective as objective_module
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.optimizers import FirstStep
from secondary_learners.gains.rows import Rows, rows_of
from secondary_learners.learners.statistics import spearman
from tiny_models import tiny_llama, tiny_neox


def published(model: Any, context: torch.Tensor, objective: torch.Tensor, optimizer: str) -> float:
    """The plain loop: copy, one step of torch's own optimizer, objective one at a time, float64."""

    def loss_of(model: Any) -> float:
        with torch.no_grad():
            losses = [model(input_ids=row[None], labels=row[None]).loss for row in objective]
        return float(torch.stack(losses).mean())

    stepped = copy.deepcopy(model).eval().double()
    before = loss_of(stepped)
    kinds = {
        "adamw": lambda p: torch.optim.AdamW(p, lr=5e-5, eps=1e-8, weight_decay=0.0),
        "sgd": lambda p: torch.optim.SGD(p, lr=5e-2),
    }
    stepper = kinds[optimizer](stepped.parameters())
    stepped(input_ids=context[None], labels=context[None]).loss.backward()
    stepper.step()
    return before - loss_of(stepped)


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 5e-5), ("sgd", 5e-2)])
def test_exact_is_the_published_loop(model: PreTrainedModel, optimizer: str, rate: float) -> None:
    contexts, objective = contexts_of(6, seed=0), contexts_of(10, seed=1)
    expected = [
        published(model, row, torch.from_numpy(objective.input_ids), optimizer)
        for row in torch.from_numpy(contexts.input_ids)
    ]
    gains = information_gain(
        model.double(), contexts, objective, method="exact", optimizer=optimizer, learning_rate=rate
    )
    # The losses are float32 here even so (as they are summed), the steps are not.
    np.testing.assert_allclose(gains, expected, rtol=1e-2, atol=2e-7)


@pytest.mark.parametrize("method", OF_A_MODEL)
def test_weights_and_mode_come_back_bit_for_bit(model: PreTrainedModel, method: str) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    information_gain(model, contexts_of(5, seed=0), contexts_of(5, seed=1), method=method)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", OF_A_MODEL)
def test_weights_come_back_after_an_error(model: PreTrainedModel, method: str) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrong = np.full((1, 12), VOCABULARY)  # a token id that the model does not have
    with pytest.raises(IndexError):
        information_gain(model, wrong, contexts_of(5, seed=1), method=method)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", OF_A_MODEL)
def test_labels_repeat_and_do_not_depend_on_the_batch(model: PreTrainedModel, method: str) -> None:
    contexts, objective = contexts_of(9, seed=0), contexts_of(7, seed=1)
    whole = information_gain(model, contexts, objective, method=method)
    again = information_gain(model, contexts, objective, method=method)
    parts = information_gain(model, contexts, objective, method=method, batch_size=2)
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_allclose(whole, parts, rtol=2e-2, atol=2e-7)


def per_example_reference(
    model: nn.Module, contexts: torch.Tensor, objective: torch.Tensor, step: FirstStep
) -> list[float]:
    """lr · ⟨∇L(O), direction⟩ by one autograd call a context, in float64."""
    model = copy.deepcopy(model).eval().double()
    parameters = list(model.parameters())

    def gradient(ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(model(input_ids=ids, labels=ids).loss, parameters)

    towards = gradient(objective)
    return [
        step.learning_rate
        * sum(
            float((a * b).sum())
            for a, b in zip(towards, step.direction(gradient(row[None])), strict=True)
        )
        for row in contexts
    ]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_per_example_is_the_dot_product(model: PreTrainedModel, optimizer: str) -> None:
    contexts, objective = contexts_of(5, seed=0), contexts_of(8, seed=1)
    step = FirstStep(optimizer, 1e-4, eps=1e-6)
    expected = per_example_reference(
        model, torch.from_numpy(contexts.input_ids), torch.from_numpy(objective.input_ids), step
    )
    gains = information_gain(
        model,
        contexts,
        objective,
        method="per-example",
        optimizer=optimizer,
        learning_rate=1e-4,
        eps=1e-6,
    )
    np.testing.assert_allclose(gains, expected, rtol=2e-2, atol=1e-9)


def warmed(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A few steps on both domains: at random weights, gains have no structure to agree on."""
    ids = torch.from_numpy(contexts_of(64, seed=seed, domains=2).input_ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(15):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_fast_methods_rank_as_exact_does(model: PreTrainedModel) -> None:
    model = warmed(model, seed=5)
    contexts = contexts_of(80, seed=0, domains=2)
    objective = contexts_of(60, seed=1, domains=2).in_domain("domain 0")
    exact = information_gain(model, contexts, objective, method="exact")
    swapped = information_gain(model, contexts, objective, method="swapped")
    dots = information_gain(model, contexts, objective, method="per-example")
    assert spearman(dots, exact) > 0.97
    assert spearman(swapped, exact) > 0.9
    inside = contexts.domain == 0
    for gains in (exact, swapped, dots):  # positive means: training on it helps
        assert gains[inside].mean() > max(0.0, gains[~inside].mean())


def test_perplexity_is_the_same_ranking_in_another_unit(model: PreTrainedModel) -> None:
    contexts, objective = contexts_of(6, seed=0), contexts_of(10, seed=1)
    nats = information_gain(model, contexts, objective, method="exact")
    perplexity = information_gain(model, contexts, objective, method="exact", unit="perplexity")
    with torch.no_grad():
        ids = torch.from_numpy(objective.input_ids)
        loss = float(model.eval()(input_ids=ids, labels=ids).loss)
    np.testing.assert_allclose(perplexity, np.exp(loss) - np.exp(loss - nats), rtol=1e-4)


@pytest.mark.parametrize("method", OF_A_MODEL)
@pytest.mark.parametrize("family", ["llama", "neox"])
def test_other_families_of_models(method: str, family: str) -> None:
    model = (tiny_llama if family == "llama" else tiny_neox)(VOCABULARY)
    gains = information_gain(model, contexts_of(4, seed=0), contexts_of(4, seed=1), method=method)
    assert gains.shape == (4,)
    assert np.isfinite(gains).all()
    assert np.ptp(gains) > 0


def test_running_out_of_memory_halves_the_batch(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = objective_module.context_losses

    def limited(model: nn.Module, rows: Rows) -> torch.Tensor:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, rows)

    ids = rows_of(contexts_of(10, seed=0))
    expected = real(model.eval(), ids)
    found = objective_module.in_batches(lambda part: limited(model, part), ids, 120)
    torch.testing.assert_close(found, expected)
    assert sizes == [10, 5, 3, 3, 3, 1]


def test_errors_name_the_value(model: PreTrainedModel) -> None:
    contexts = contexts_of(4, seed=0)
    with pytest.raises(UnknownNameError, match="did you mean swapped"):
        information_gain(model, contexts, contexts, method="swaped")
    with pytest.raises(UnknownNameError, match="adamw"):
        information_gain(model, contexts, contexts, optimizer="adam")
    with pytest.raises(UnknownNameError, match="nats"):
        information_gain(model, contexts, contexts, unit="bits")
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    with pytest.raises(DivergedError, match="nan"):
        information_gain(model, contexts, contexts)
