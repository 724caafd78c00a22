"""One loss for each example of a batch, from what a model returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["IGNORED", "SPAN", "example_losses", "loss_items"]

IGNORED = -100
SPAN = ("start_positions", "end_positions")  # what extractive question answering has for labels


def loss_items(labels: Tensor, *, shifted: bool) -> Tensor:
    """How many terms of the batch's loss each example has [batch] (int64).

    Its predicted tokens for token labels [batch, length] (with `shifted`, position 0 predicts
    nothing), else 1. Labels of -100 have no loss.
    """
    if labels.is_floating_point():
        return torch.ones(len(labels), dtype=torch.int64, device=labels.device)
    if labels.ndim == 1:
        return (labels != IGNORED).long()
    return ((labels[:, 1:] if shifted else labels) != IGNORED).flatten(1).sum(dim=1)


def example_losses(outputs: Any, labels: Mapping[str, Any], *, shifted: bool) -> Tensor:
    """The mean loss of each example [batch] (float32), differentiable where `outputs` is.

    outputs: has `logits`: [batch, classes] or [batch, length, classes]; or `start_logits` and
        `end_logits` [batch, length]; or, as TRL's fused head gives them, `log_probs` and
        `label_mask` [batch, positions].
    labels: "labels": classes [batch] or [batch, length]; floats [batch] for regression, [batch,
        classes] for several classes at once. Or "start_positions" and "end_positions" [batch]. An
        example without any label but -100 has the loss 0.
    shifted: whether the logits of a position predict the next one, as in causal language models.

    Raises SecondaryLearnersError where an example's own loss cannot be told from the outputs.
    """
    if getattr(outputs, "log_probs", None) is not None:
        return _row_means((-outputs.log_probs).float(), outputs.label_mask)
    if set(labels) == set(SPAN):
        return _span_losses(outputs, labels)
    if set(labels) != {"labels"}:
        raise _unknown(f"it is labeled by {', '.join(sorted(labels)) or 'nothing'}")
    logits, given = _logits(outputs).float(), labels["labels"]
    if given.is_floating_point():
        if given.ndim == 2 and logits.shape == given.shape:
            terms = functional.binary_cross_entropy_with_logits(logits, given, reduction="none")
        elif logits.numel() == given.numel():
            terms = functional.mse_loss(logits.view_as(given), given.float(), reduction="none")
        else:
            raise _unknown(_shapes(logits, given))
        return terms.flatten(1).mean(dim=1) if terms.ndim > 1 else terms
    if logits.ndim == 2 and given.numel() == len(logits):
        return functional.cross_entropy(logits, given.view(-1), reduction="none")
    if logits.ndim != 3 or logits.shape[:2] != given.shape:
        raise _unknown(_shapes(logits, given))
    if shifted:
        logits, given = logits[:, :-1], given[:, 1:]
    terms = functional.cross_entropy(logits.transpose(1, 2), given, reduction="none")
    return _row_means(terms, given != IGNORED)


def _span_losses(outputs: Any, labels: Mapping[str, Tensor]) -> Tensor:
    """The mean of the losses of an answer's start and end; a place outside of the row has none."""
    losses = []
    for name, position in labels.items():
        logits = outputs.get(name.replace("positions", "logits"))
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise _unknown(f"the model returned no {name.replace('positions', 'logits')}")
        place = position.view(-1).clamp(0, logits.shape[1])
        losses.append(
            functional.cross_entropy(
                logits.float(), place, reduction="none", ignore_index=logits.shape[1]
            )
        )
    return torch.stack(losses).mean(dim=0)


def _row_means(terms: Tensor, mask: Tensor) -> Tensor:
    """The mean of each row's terms [batch, positions] where `mask` is true."""
    return (terms * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def _logits(outputs: Any) -> Tensor:
    logits = outputs.get("logits") if isinstance(outputs, dict) else None
    if not isinstance(logits, Tensor):
        raise _unknown(f"the model returned {type(outputs).__name__} without logits")
    return logits


def _shapes(logits: Tensor, labels: Tensor) -> str:
    return f"logits have the shape {list(logits.shape)} and labels {list(labels.shape)}"


def _unknown(why: str) -> SecondaryLearnersError:
    return SecondaryLearnersError(
        f"an example's own loss is not known, which the filter or the weights need: {why}. "
        "Try a LearnerFilter or a RandomFilter without weights, which need no losses."
    )
