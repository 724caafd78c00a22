"""Each example's loss, against the model's own loss on that example alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.trainers.losses import example_losses, loss_items
from trainer_helpers import collate, make_model, make_rows


@pytest.mark.parametrize("causal", [False, True])
def test_are_those_of_the_model_on_each_example(causal):
    model = make_model(causal=causal).eval()
    rows = make_rows(9, causal=causal)
    batch = collate(rows)
    outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    losses = example_losses(outputs, {"labels": batch["labels"]}, shifted=causal)
    alone = torch.stack([model(**collate([row])).loss for row in rows])
    assert torch.allclose(losses, alone, atol=1e-5)
    items = loss_items(batch["labels"], shifted=causal)
    assert items.tolist() == [len(row["input_ids"]) - 1 if causal else 1 for row in rows]
    if causal:
        whole = model(**batch).loss
        assert torch.allclose((losses * items).sum() / items.sum(), whole, atol=1e-5)


def test_regression_and_several_classes_at_once():
    logits, labels = torch.randn(5, 1), torch.randn(5)
    losses = example_losses({"logits": logits}, {"labels": labels}, shifted=False)
    assert torch.allclose(losses, (logits.squeeze(1) - labels) ** 2)
    logits, labels = torch.randn(5, 3), torch.randint(2, (5, 3)).float()
    losses = example_losses({"logits": logits}, {"labels": labels}, shifted=False)
    assert torch.allclose(
        losses.mean(), functional.binary_cross_entropy_with_logits(logits, labels)
    )
    assert loss_items(labels, shifted=False).tolist() == [1] * 5


def test_fused_heads_of_trl():
    outputs = SimpleNamespace(
        log_probs=torch.tensor([[-1.0, -3.0, 0.0], [-2.0, 0.0, 0.0]]),
        label_mask=torch.tensor([[True, True, False], [True, False, False]]),
    )
    losses = example_losses(outputs, torch.zeros(2, 4).long(), shifted=True)
    assert losses.tolist() == [2.0, 2.0]


def test_an_example_without_labels_has_no_loss():
    labels = torch.tensor([[-100, -100, -100], [-100, 1, 2]])
    losses = example_losses({"logits": torch.randn(2, 3, 4)}, {"labels": labels}, shifted=True)
    assert losses[0] == 0 < losses[1]
    assert loss_items(labels, shifted=True).tolist() == [0, 2]
    assert loss_items(torch.tensor([1, -100]), shifted=False).tolist() == [1, 0]


def test_says_what_is_missing():
    with pytest.raises(SecondaryLearnersError, match="without logits"):
        example_losses({"start": torch.ones(1)}, {"labels": torch.ones(1).long()}, shifted=False)
