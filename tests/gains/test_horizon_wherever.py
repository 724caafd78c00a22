"""Horizon, contrast and selectors: every subset, precision and kind of text, and stored."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from gains_helpers import VOCABULARY, contexts_of, examples_of
from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.gains import store
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.settings import LabelSettings
from secondary_learners.gains.store import label_to_store
from secondary_learners.gains.subsets import trained
from secondary_learners.gains.training import update_batches
from secondary_learners.learners.selectors import fit_selector, net_scores
from secondary_learners.learners.statistics import spearman
from secondary_learners.text.sequences import Examples

CONTEXTS = contexts_of(40, seed=0, domains=2)
OBJECTIVE = contexts_of(10, seed=1, domains=2).in_domain("domain 0")
POOL = contexts_of(14, seed=2, domains=2)
OTHER = contexts_of(9, seed=5, domains=2)
OPTIONS: dict[str, Any] = {"horizon": 3, "update_batch": 4, "horizon_learning_rate": 2e-3}


def own_losses(model: Any, text: Examples) -> np.ndarray:
    """One example after the other: nothing is padded, nothing shared."""
    losses = []
    for n in range(len(text)):
        one = text.select(np.array([n]))
        ids, counted = torch.from_numpy(one.tokens)[None], torch.from_numpy(one.loss_mask)[None]
        losses.append(model(input_ids=ids, labels=ids.where(counted, -100)).loss.reshape(1))
    return torch.cat(losses).detach().numpy()


def after(model: Any, text: Examples) -> Any:
    """torch's own optimizer at the horizon's rate, on the parameters that require gradients."""
    model = copy.deepcopy(model)
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=2e-3, eps=1e-8, weight_decay=0.0)
    for batch in update_batches(len(text), LabelSettings(**OPTIONS), 0):
        optimizer.zero_grad()
        total = 0.0
        for n in batch:
            one = text.select(np.array([n]))
            ids, counted = torch.from_numpy(one.tokens)[None], torch.from_numpy(one.loss_mask)[None]
            total = total + model(input_ids=ids, labels=ids.where(counted, -100)).loss
        (total / len(batch)).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("trainable", ["all", "last-layers", "lora"])
def test_a_contrast_trains_the_subset_and_nothing_else(
    model: PreTrainedModel, trainable: str
) -> None:
    model = model.double().eval()
    with trained(model, trainable):
        ends = [own_losses(after(model, text), CONTEXTS) for text in (POOL, OBJECTIVE)]
    gains = information_gain(
        model, CONTEXTS, OBJECTIVE, against=POOL, trainable=trainable, **OPTIONS
    )
    np.testing.assert_allclose(gains, ends[0] - ends[1], rtol=2e-3, atol=2e-5)


def test_prompts_with_completions_are_trained_on_their_completions(model: PreTrainedModel) -> None:
    model = model.double().eval()
    texts = [examples_of(12, seed=seed) for seed in (0, 1, 2)]
    ends = [own_losses(after(model, text), texts[0]) for text in (texts[2], texts[1])]
    gains = information_gain(model, texts[0], texts[1], against=texts[2], **OPTIONS)
    np.testing.assert_allclose(gains, ends[0] - ends[1], rtol=2e-3, atol=2e-5)


def test_several_pools_are_averaged(model: PreTrainedModel) -> None:
    one, two, both = (
        information_gain(model, CONTEXTS, OBJECTIVE, against=pools, **OPTIONS)
        for pools in (POOL, OTHER, [POOL, OTHER])
    )
    np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-4, atol=1e-6)


def test_bfloat16_ranks_them_alike(model: PreTrainedModel) -> None:
    plain, low = (
        information_gain(model, CONTEXTS, OBJECTIVE, against=POOL, precision=precision, **OPTIONS)
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(plain, low)
    assert spearman(plain, low) > 0.9


@pytest.mark.parametrize("name", ["classifier", "dsir"])
def test_a_selector_is_a_method_and_a_component(model: PreTrainedModel, name: str) -> None:
    fitted = fit_selector(name, OBJECTIVE, POOL, vocabulary=VOCABULARY)
    expected = net_scores(fitted.net, CONTEXTS.input_ids)
    alone = information_gain(model, CONTEXTS, OBJECTIVE, against=POOL, method=name)
    np.testing.assert_allclose(alone, expected, rtol=1e-6)
    assert alone[CONTEXTS.domain == 0].min() > alone[CONTEXTS.domain == 1].max()
    only = information_gain(model, CONTEXTS, OBJECTIVE, against=POOL, combine={name: 2})
    np.testing.assert_allclose(
        only, 2 * (expected - expected.mean()) / expected.std(), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(SecondaryLearnersError, match=f"{name} labels are against a pool"):
        information_gain(model, CONTEXTS, OBJECTIVE, method=name)
    with pytest.raises(SecondaryLearnersError, match="horizon is 3"):
        information_gain(model, CONTEXTS, OBJECTIVE, against=POOL, method=name, horizon=3)


def test_components_are_stored_and_gone_on_with_to_the_same_bits(
    model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method_named("swapped"), "PART", 16)
    settings = LabelSettings(
        exact=0, combine={"step": 1, "contrast": 1, "classifier": 2}, **OPTIONS
    )
    whole = label_to_store(
        model, CONTEXTS, OBJECTIVE, tmp_path / "whole", settings, against=[POOL], progress=False
    )
    written, write = [], store._write_part

    def stopping(*arguments: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(True)
        write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "_write_part", stopping)
        label_to_store(
            model, CONTEXTS, OBJECTIVE, tmp_path / "cut", settings, against=[POOL], progress=False
        )
    resumed = label_to_store(
        model, CONTEXTS, OBJECTIVE, tmp_path / "cut", settings, against=[POOL], progress=False
    )
    np.testing.assert_array_equal(resumed.gains, whole.gains)
    assert resumed.facts == whole.facts
    direct = information_gain(
        model,
        CONTEXTS,
        OBJECTIVE,
        against=POOL,
        combine={"step": 1, "contrast": 1, "classifier": 2},
        **OPTIONS,
    )
    np.testing.assert_allclose(whole.gains, direct, rtol=1e-3, atol=1e-4)
