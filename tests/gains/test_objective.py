from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from gains_helpers import OF_A_MODEL, VOCABULARY, contexts_of
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.objective import context_losses, evaluation_mode, losses_of
from secondary_learners.gains.rows import Rows
from tiny_models import tiny_gpt2


def test_losses_are_the_means_of_next_token_losses(model: PreTrainedModel) -> None:
    ids = torch.from_numpy(contexts_of(9, seed=0).input_ids)
    model.eval()
    with torch.no_grad():
        expected = torch.stack([model.double()(row[None], labels=row[None]).loss for row in ids])
    model.float()
    expected = expected.double()
    with evaluation_mode(model):
        torch.testing.assert_close(losses_of(model, Rows(ids), 48), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            context_losses(model, Rows(ids)).double(), expected, rtol=1e-5, atol=1e-5
        )


def test_a_large_vocabulary_is_summed_in_parts() -> None:
    large = tiny_gpt2(300_000, n_embd=8, n_layer=1, n_head=1).eval()
    ids = torch.randint(0, 300_000, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.stack([large(row[None], labels=row[None]).loss for row in ids])
    torch.testing.assert_close(
        losses_of(large, Rows(ids), 2), expected.double(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("bias", [True, False])
def test_other_linear_layers_are_as_without_onednn(bias: bool) -> None:
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, 8)
            self.linear = nn.Linear(8, VOCABULARY, bias=bias)

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> object:
            return type("Output", (), {"logits": self.linear(self.embedding(input_ids))})

    ids = torch.from_numpy(contexts_of(5, seed=0).input_ids)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        other = Model().to(dtype)
        with torch.no_grad():
            expected = context_losses(other, Rows(ids)).double()
        torch.testing.assert_close(losses_of(other, Rows(ids), 36), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", OF_A_MODEL)
def test_a_padding_token_changes_nothing(model: PreTrainedModel, method: str) -> None:
    contexts, objective = contexts_of(4, seed=0), contexts_of(4, seed=1)
    expected = information_gain(model, contexts, objective, method=method)
    model.config.pad_token_id = int(contexts.input_ids[0, 0])
    np.testing.assert_array_equal(
        information_gain(model, contexts, objective, method=method), expected
    )
    assert model.config.pad_token_id == contexts.input_ids[0, 0]
