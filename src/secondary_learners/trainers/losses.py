"""One loss for each example of a batch, from what a model returned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["IGNORED", "example_losses", "loss_items"]

IGNORED = -100


def loss_items(labels: Tensor, *, shifted: bool) -> Tensor:
    """How many terms of the batch's loss each example has [batch] (int64).

    Its predicted tokens for token labels [batch, length] (with `shifted`, position 0 predicts
    nothing), else 1. Labels of -100 have no loss.
    """
    if labels.is_floating_point():
        return torch.ones(len(labels), dtype=torch.int64, device=labels.device)
    if labels.ndim == 1:
        return (labels != IGNORED).long()
    return ((labels[:, 1:] if shifted else labels) != IGNORED).sum(dim=1)


def example_losses(outputs: Any, labels: Tensor, *, shifted: bool) -> Tensor:
    """The mean loss of each example [batch] (float32), differentiable where `outputs` is.

    outputs: has `logits`: [batch, classes] or [batch, length, classes]; or, as TRL's fused head
        gives them, `log_probs` and `label_mask` [batch, positions].
    labels: classes [batch] or [batch, length]; floats [batch] for regression, [batch, classes] for
        several classes at once. An example without any label but -100 has the loss 0.
    shifted: whether the logits of a position predict the next one, as in causal language models.
    """
    if getattr(outputs, "log_probs", None) is not None:
        terms, mask = -outputs.log_probs, outputs.label_mask
        return _row_means(terms.float(), mask)
    logits = _logits(outputs).float()
    if labels.is_floating_point():
        if labels.ndim == 2 and logits.shape == labels.shape:
            terms = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        else:
            terms = functional.mse_loss(logits.view_as(labels), labels.float(), reduction="none")
        return terms.flatten(1).mean(dim=1) if terms.ndim > 1 else terms
    if logits.ndim == 2:
        return functional.cross_entropy(logits, labels.view(-1), reduction="none")
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    terms = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return _row_means(terms, labels != IGNORED)


def _row_means(terms: Tensor, mask: Tensor) -> Tensor:
    """The mean of each row's terms [batch, positions] where `mask` is true."""
    return (terms * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _logits(outputs: Any) -> Tensor:
    logits = outputs.get("logits") if isinstance(outputs, dict) else None
    if not isinstance(logits, Tensor):
        raise SecondaryLearnersError(
            f"the model returned {type(outputs).__name__} without logits, so an example's own loss "
            "is not known. Try a LearnerFilter, which needs no losses."
        )
    return logits
