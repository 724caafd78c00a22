from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from gains_helpers import contexts_of
from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.precision import computed_in
from secondary_learners.learners.statistics import spearman
from tiny_models import BigramModel

CONTEXTS, OBJECTIVE = contexts_of(6, seed=0), contexts_of(10, seed=1)


def lowered(model: Any, context: torch.Tensor, objective: torch.Tensor) -> float:
    """The gain of one context: a copy of the model, torch's AdamW, autocast around each pass."""

    def losses(model: Any, ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids).logits
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()
        )

    stepped = copy.deepcopy(model).eval()
    with torch.no_grad():
        before = losses(stepped, objective)
    optimizer = torch.optim.AdamW(stepped.parameters(), lr=5e-3, weight_decay=0.0)
    losses(stepped, context[None]).backward()
    optimizer.step()
    with torch.no_grad():
        return float(before - losses(stepped, objective))


def test_bfloat16_is_autocast_with_steps_and_losses_in_float32(model: PreTrainedModel) -> None:
    rows, target = (torch.from_numpy(part.input_ids) for part in (CONTEXTS, OBJECTIVE))
    # A step large enough to stand out from bfloat16's rounding, and to show cast weights that are
    # kept over it.
    gains = information_gain(
        model, CONTEXTS, OBJECTIVE, method="exact", learning_rate=5e-3, precision="bfloat16"
    )
    expected = [lowered(model, row, target) for row in rows]
    np.testing.assert_allclose(gains, expected, rtol=0.03, atol=2e-4)
    full = information_gain(model, CONTEXTS, OBJECTIVE, method="exact", learning_rate=5e-3)
    assert not np.array_equal(gains, full)


@pytest.mark.parametrize("method", ["exact", "swapped"])
def test_bfloat16_ranks_as_float32_does_and_leaves_the_model_as_it_was(
    model: PreTrainedModel, method: str
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    contexts, rate = contexts_of(40, seed=4), 5e-3
    full, low = (
        information_gain(
            model, contexts, OBJECTIVE, method=method, learning_rate=rate, precision=precision
        )
        for precision in ("float32", "bfloat16")
    )
    assert spearman(low, full) > 0.95
    assert "forward" not in vars(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.fixture
def lax() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("method", ["exact", "per-example", "swapped"])
def test_float32_is_float32_whatever_is_set_around_it(
    model: PreTrainedModel, method: str, lax: None
) -> None:
    expected = information_gain(model, CONTEXTS, OBJECTIVE, method=method)
    with torch.autocast("cpu", torch.bfloat16):
        found = information_gain(model, CONTEXTS, OBJECTIVE, method=method)
    np.testing.assert_array_equal(found, expected)
    with computed_in(model, "float32"):
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.get_float32_matmul_precision() == "high"


def test_a_forward_of_its_own_is_put_back() -> None:
    model = BigramModel()
    own = model.forward
    model.forward = own  # type: ignore[method-assign]  # as accelerate's hooks do
    with computed_in(model, "bfloat16"):
        assert model(torch.zeros(1, 4, dtype=torch.int64)).logits.dtype == torch.bfloat16
    assert vars(model)["forward"] is own


def test_what_cannot_be_computed_is_refused() -> None:
    model = BigramModel()
    with pytest.raises(UnknownNameError, match="did you mean bfloat16"):
        information_gain(model, CONTEXTS, OBJECTIVE, precision="bfloat")
    with pytest.raises(SecondaryLearnersError, match=r"'cpu' does not compute in tf32.*float32"):
        information_gain(model, CONTEXTS, OBJECTIVE, precision="tf32")
    with pytest.raises(SecondaryLearnersError, match="cannot be computed in bfloat16"):
        information_gain(model, CONTEXTS, OBJECTIVE, method="per-example", precision="bfloat16")
