from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from gains_helpers import OF_A_MODEL, VOCABULARY, contexts_of
from secondary_learners.errors import (
    LabelStoreError,
    MissingExtraError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.store import LabelSettings, label_to_store
from secondary_learners.gains.subsets import Trainable, trained
from tiny_models import BigramModel, tiny_llama

BLOCK = ["transformer.h.1.*"]
CONTEXTS, OBJECTIVE = contexts_of(5, seed=0), contexts_of(8, seed=1)


def stepped_by_torch(model: nn.Module, moving: set[str]) -> list[float]:
    """Gains by the plain loop in float64: torch's AdamW on the parameters of these names."""
    found = []
    ids = torch.from_numpy(OBJECTIVE.input_ids)
    for row in torch.from_numpy(CONTEXTS.input_ids):
        stepped = copy.deepcopy(model).eval().double()
        for name, parameter in stepped.named_parameters():
            parameter.requires_grad_(name in moving)
        optimizer = torch.optim.AdamW(
            [p for p in stepped.parameters() if p.requires_grad], lr=5e-4, weight_decay=0.0
        )
        with torch.no_grad():
            before = float(stepped(input_ids=ids, labels=ids).loss)
        stepped(input_ids=row[None], labels=row[None]).loss.backward()
        optimizer.step()
        with torch.no_grad():
            found.append(before - float(stepped(input_ids=ids, labels=ids).loss))
    return found


def names(model: nn.Module, part: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if part in name}


@pytest.mark.parametrize(
    ("trainable", "part"),
    [("last-layers", ".h.1."), ("last-layers:2", ".h."), (BLOCK, ".h.1."), (["*.mlp.*"], "mlp")],
)
def test_the_step_moves_the_subset_and_nothing_else(
    model: PreTrainedModel, trainable: Trainable, part: str
) -> None:
    expected = stepped_by_torch(model, names(model, part))
    gains = information_gain(
        model, CONTEXTS, OBJECTIVE, method="exact", trainable=trainable, learning_rate=5e-4
    )
    np.testing.assert_allclose(gains, expected, rtol=2e-2, atol=2e-6)


def adapted(model: PreTrainedModel) -> Any:
    """A PEFT model as one that was trained for a while: its B is not zero."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["c_fc"], fan_in_fan_out=True)
    wrapped = peft.get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return wrapped


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
def test_the_adapters_of_a_peft_model_are_the_subset(model: PreTrainedModel) -> None:
    wrapped = adapted(model)
    expected = stepped_by_torch(wrapped, names(wrapped, "lora_"))
    settings: dict[str, Any] = {"method": "exact", "learning_rate": 5e-4}
    as_it_is = information_gain(wrapped, CONTEXTS, OBJECTIVE, **settings)
    np.testing.assert_allclose(as_it_is, expected, rtol=2e-2, atol=2e-6)
    wrapped.requires_grad_(False)  # as one that was loaded to be used
    by_name = information_gain(wrapped, CONTEXTS, OBJECTIVE, trainable="lora", **settings)
    np.testing.assert_array_equal(by_name, as_it_is)
    assert not any(parameter.requires_grad for parameter in wrapped.parameters())


def test_a_model_without_adapters_gets_some_and_loses_them_again(model: PreTrainedModel) -> None:
    pytest.importorskip("peft")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules, random = dict(model.eval().named_modules()), torch.get_rng_state()
    with trained(model, "lora"):
        moving = [name for name, p in model.named_parameters() if p.requires_grad]
        assert len(moving) == 2 * 2 * 4  # A and B of two blocks' four linear layers, no head
        assert all("lora_" in name for name in moving)
        ids = torch.from_numpy(CONTEXTS.input_ids)
        model(input_ids=ids, labels=ids).loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:  # as the docstring says: B is zero, so A feels nothing
                assert parameter.grad is not None
                assert bool(parameter.grad.any()) == ("lora_B" in name)
    assert dict(model.named_modules()) == modules
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("method", OF_A_MODEL)
def test_adapters_are_the_same_ones_each_time(model: PreTrainedModel, method: str) -> None:
    pytest.importorskip("peft")
    first, second = (
        information_gain(model, CONTEXTS, OBJECTIVE, method=method, trainable="lora")
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert np.ptp(first) > 0


@pytest.mark.parametrize("trainable", ["lora", "last-layers", "all", BLOCK])
def test_flags_come_back_after_an_error(model: PreTrainedModel, trainable: Trainable) -> None:
    if trainable == "lora":
        pytest.importorskip("peft")
    model.transformer.h[0].requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    wrong = np.full((1, 12), VOCABULARY)  # a token id that the model does not have
    with pytest.raises(IndexError):
        information_gain(model, wrong, OBJECTIVE, trainable=trainable)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


@pytest.mark.parametrize("method", OF_A_MODEL)
def test_frozen_weights_may_be_in_half_precision(method: str) -> None:
    pytest.importorskip("peft")
    model = tiny_llama(VOCABULARY).bfloat16()
    with trained(model, "lora"):
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    gains = information_gain(
        model, CONTEXTS, OBJECTIVE, method=method, trainable="lora", learning_rate=1e-2
    )
    assert np.isfinite(gains).all() and np.ptp(gains) > 0
    with pytest.raises(SecondaryLearnersError, match="lost in rounding"):
        information_gain(model, CONTEXTS, OBJECTIVE, method=method, trainable="last-layers")


@pytest.mark.parametrize(
    ("trainable", "error", "message"),
    [
        ("last-layer", UnknownNameError, "did you mean last-layers"),
        ("last-layers:0", UnknownNameError, "last-layers:0"),
        ("all:2", UnknownNameError, "all:2"),
        ("last-layers:3", SecondaryLearnersError, "has 2 blocks"),
        (["transformer.h.1.atn.*"], SecondaryLearnersError, r"did you mean .*attn.* names: tr"),
        ([*BLOCK, "nothing like it"], SecondaryLearnersError, "named 'nothing like it': Some of"),
        ([], SecondaryLearnersError, "empty list"),
    ],
)
def test_what_the_model_has_not_is_named(
    model: PreTrainedModel, trainable: Trainable, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        information_gain(model, CONTEXTS, OBJECTIVE, trainable=trainable)


def test_a_tied_weight_is_found_by_both_its_names(model: PreTrainedModel) -> None:
    for name in ("lm_head.weight", "transformer.wte.weight"):
        with trained(model, [name]):
            moving = [n for n, p in model.named_parameters() if p.requires_grad]
        assert moving == ["transformer.wte.weight"]


def test_a_model_with_everything_frozen_is_refused_unless_told_what_moves() -> None:
    model = BigramModel().requires_grad_(False)
    with pytest.raises(SecondaryLearnersError, match='trainable="all"'):
        information_gain(model, CONTEXTS, OBJECTIVE)
    assert information_gain(model, CONTEXTS, OBJECTIVE, trainable="all").any()


def test_without_peft_the_extra_is_named(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"secondary-learners\[lora\]"):
        information_gain(model, CONTEXTS, OBJECTIVE, trainable="lora")


def stored(folder: Path, model: nn.Module, trainable: str | Sequence[str] | None) -> Any:
    settings = LabelSettings(method="exact", trainable=trainable)
    return label_to_store(model, CONTEXTS, OBJECTIVE, folder, settings, progress=False)


@pytest.mark.parametrize("trainable", [("head",), ["head"], "all"])
def test_a_store_says_what_moved_and_is_gone_on_with(
    tmp_path: Path, trainable: str | Sequence[str]
) -> None:
    model = BigramModel()
    first = stored(tmp_path, model, trainable)
    assert first.facts["trainable"] == (trainable if isinstance(trainable, str) else ["head"])
    moved = model.head.numel() + (model.embedding.numel() if trainable == "all" else 0)
    assert first.facts["trainable_parameters"] == moved
    (tmp_path / "part-00000.parquet").unlink()
    np.testing.assert_array_equal(stored(tmp_path, model, trainable).gains, first.gains)
    with pytest.raises(LabelStoreError, match="trainable"):
        stored(tmp_path, model, ["embedding"])


def test_a_store_without_the_field_is_of_all_parameters(tmp_path: Path) -> None:
    first = stored(tmp_path, BigramModel(), None)
    path = tmp_path / "labels.json"
    facts = json.loads(path.read_text())
    facts.pop("trainable", None)
    path.write_text(json.dumps(facts))
    np.testing.assert_array_equal(stored(tmp_path, BigramModel(), None).gains, first.gains)
    with pytest.raises(LabelStoreError, match="trainable None"):
        stored(tmp_path, BigramModel(), "all")


def test_no_store_is_begun_with_a_subset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SecondaryLearnersError, match="body"):
        stored(tmp_path / "new", BigramModel(), ["body"])
    assert not (tmp_path / "new").exists()
