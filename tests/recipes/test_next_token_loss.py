"""The loss in blocks against transformers' own, in float64 and as autocast computes it."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2LMHeadModel

from secondary_learners.recipes.base_model import next_token_loss as module
from secondary_learners.recipes.base_model.next_token_loss import next_token_loss
from tiny_models import tiny_gpt2

VOCABULARY = 331


def gpt2(dtype: torch.dtype) -> tuple[GPT2LMHeadModel, torch.Tensor]:
    still = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    # initializer_range: for probabilities far from even
    model = tiny_gpt2(VOCABULARY, n_embd=24, initializer_range=0.3, **still)
    ids = torch.randint(0, VOCABULARY, (5, 12), generator=torch.Generator().manual_seed(1))
    return model.to(dtype), ids


def gradients(model: GPT2LMHeadModel, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("blocks", [(1, 1), (7, 2), (1000, 1000)])
def test_the_loss_and_its_gradient_are_transformers_own(
    blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = gpt2(torch.float64)
    rows, few = (8 * VOCABULARY * count for count in blocks)
    monkeypatch.setattr(module, "_BLOCK_BYTES", rows)
    monkeypatch.setattr(module, "_SOFTMAX_BYTES", few)
    expected = model(input_ids=ids, labels=ids).loss
    found = next_token_loss(model, ids, torch.float64)
    # transformers sums its loss in float32.
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=0)
    reference = torch.nn.functional.cross_entropy(
        model(input_ids=ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    )
    torch.testing.assert_close(found, reference, rtol=1e-12, atol=0)
    for ours, theirs in zip(gradients(model, found), gradients(model, reference), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_in_bfloat16_it_is_as_near_the_truth_as_autocast() -> None:
    model, ids = gpt2(torch.float32)
    truth = gradients(model, model(input_ids=ids, labels=ids).loss)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(input_ids=ids, labels=ids).loss
        found = next_token_loss(model, ids, torch.bfloat16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain, rtol=2e-3, atol=0)

    def error(loss: torch.Tensor) -> float:
        pairs = zip(gradients(model, loss), truth, strict=True)
        return sum(float((ours - right).square().sum()) for ours, right in pairs) ** 0.5

    assert error(found) < 1.1 * error(plain)


def test_a_scaled_loss_scales_its_gradient() -> None:
    model, ids = gpt2(torch.float64)
    once = gradients(model, next_token_loss(model, ids, torch.float64))
    thrice = gradients(model, 3 * next_token_loss(model, ids, torch.float64))
    for small, large in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * small, large)
