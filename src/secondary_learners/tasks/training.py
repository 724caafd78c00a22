"""One update of a classifier, its learning rate, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from secondary_learners.tasks.batches import Places, by_length, collate
from secondary_learners.tasks.encoding import Encoded
from secondary_learners.tasks.metrics import Metrics, metrics_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["evaluate", "example_losses", "predict", "rate_share", "set_rates", "update"]

_TOKENS_TOGETHER = 1024  # what a core does fastest
_LOSSES_TOGETHER = 64


def update(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    examples: Encoded,
    parts: Iterable[Sequence[int] | npt.NDArray[np.int64]],
    *,
    max_grad_norm: float,
    bfloat16: bool = False,
) -> float:
    """One step on the mean loss of the examples at these places; returns that loss, in nats.

    parts: the places, in groups that go through the model one after the other. bfloat16: the type
    of the passes; weights and their updates stay as they are.
    """
    groups = [list(map(int, part)) for part in parts]
    count = sum(map(len, groups))
    model.train()
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for places in groups:
        logits, targets = _logits(model, examples, places, bfloat16)
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / count
        loss.backward()
        total += loss.item()
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, max_grad_norm)
    optimizer.step()
    return total


def rate_share(step: int, steps: int, rising: float) -> float:
    """The share of the rate at step 1, 2, ... `steps`: up over `rising` of them, then down to 0."""
    return step / rising if step <= rising else (steps - step + 1) / max(1.0, steps - rising)


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Give each group of `optimizer` this share of the learning rate that it began with."""
    for group in optimizer.param_groups:
        group["lr"] = share * group.setdefault("initial_lr", group["lr"])


def _logits(
    model: PreTrainedModel, examples: Encoded, places: Places, bfloat16: bool
) -> tuple[Tensor, Tensor]:
    """Logits [examples, classes] in float32, and the targets [examples]."""
    batch = collate(examples, places, model.config.pad_token_id)
    inputs = {name: value.to(model.device) for name, value in batch.items()}
    targets = inputs.pop("labels")
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        logits: Tensor = model(**inputs).logits
    return logits.float(), targets


def predict(
    model: PreTrainedModel, examples: Encoded, *, bfloat16: bool = False
) -> npt.NDArray[np.float32]:
    """Logits [examples, classes], in evaluation mode; the model keeps its mode."""
    mode = model.training
    model.eval()
    logits = np.empty((len(examples), len(examples.classes)), np.float32)
    with torch.inference_mode():
        for places in by_length(examples.lengths, _TOKENS_TOGETHER):
            logits[places] = _logits(model, examples, places, bfloat16)[0].cpu().numpy()
    model.train(mode)
    return logits


def evaluate(model: PreTrainedModel, examples: Encoded) -> Metrics:
    """How well `model` tells the classes of `examples`."""
    return metrics_of(predict(model, examples), examples.targets)


def example_losses(model: PreTrainedModel, examples: Encoded) -> list[float]:
    """The loss (nats) of each example, without dropout; leaves the model in evaluation mode."""
    losses: list[float] = []
    model.eval()
    with torch.no_grad():
        for begin in range(0, len(examples), _LOSSES_TOGETHER):
            places = range(begin, min(begin + _LOSSES_TOGETHER, len(examples)))
            logits, targets = _logits(model, examples, places, bfloat16=False)
            losses += torch.nn.functional.cross_entropy(logits, targets, reduction="none").tolist()
    return losses
