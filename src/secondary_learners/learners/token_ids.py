"""Token ids as they are given to a learner, checked, and what its net says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from secondary_learners.errors import IncompatibleError, SecondaryLearnersError

if TYPE_CHECKING:
    from secondary_learners.learners.artifact import Learner

__all__ = ["contributions_of", "raw_of"]


def raw_of(learner: Learner, input_ids: Any, attention_mask: Any) -> Tensor:
    """Raw predictions [batch]."""
    ids, mask = _prepare(learner, input_ids, attention_mask)
    with torch.no_grad():
        raw: Tensor = learner.net(ids, mask)
    return raw


def contributions_of(learner: Learner, input_ids: Any, attention_mask: Any) -> Tensor:
    """What each token adds to the raw prediction [batch, length]."""
    ids, mask = _prepare(learner, input_ids, attention_mask)
    with torch.no_grad():
        return learner.net.contributions(ids, mask)


def _prepare(learner: Learner, input_ids: Any, attention_mask: Any) -> tuple[Tensor, Tensor]:
    ids = _matrix("input_ids", input_ids)
    if attention_mask is None:
        mask = torch.ones_like(ids, dtype=torch.bool)
    else:
        mask = _matrix("attention_mask", attention_mask).bool()
    if mask.shape != ids.shape:
        raise SecondaryLearnersError(
            f"input_ids is {list(ids.shape)} and attention_mask {list(mask.shape)}: "
            "they need the same shape [batch, length]."
        )
    mask = mask.to(ids.device)
    ids = ids.masked_fill(~mask, 0)  # padding may hold any number, such as -100
    if ids.numel():
        low, high = (int(value) for value in ids.aminmax())
        if low < 0 or high >= learner.net.vocabulary:
            raise IncompatibleError(
                f"token id {low if low < 0 else high} is outside the vocabulary of the learner "
                f"{learner.config.name!r} (0 to {learner.net.vocabulary - 1}). Use the tokenizer "
                f"of {learner.tokenizer_reference.repo}, or find a learner for yours with "
                "`learners list`."
            )
    return ids.to(learner.device), mask.to(learner.device)


def _matrix(name: str, value: Any) -> Tensor:
    """`value` as an int64 tensor [batch, length]; of booleans and integers only."""
    if not isinstance(value, Tensor):
        try:
            array = np.array(value)  # a copy: torch warns about read-only arrays
            value = torch.from_numpy(array.astype(np.int64)) if array.dtype.kind in "biu" else array
        except ValueError as error:
            raise SecondaryLearnersError(
                f"the rows of {name} have different lengths. Pad them and give an attention_mask."
            ) from error
    if 0 in value.shape:  # an empty list has no type of its own
        value = torch.zeros((value.shape[0], 0 if value.ndim < 2 else value.shape[1])).long()
    if not isinstance(value, Tensor) or value.ndim != 2 or value.is_floating_point():
        raise SecondaryLearnersError(
            f"{name} must be integers [batch, length], and is {value.dtype} {list(value.shape)}."
        )
    return value.detach().long()
