"""Which base model a delta is for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from secondary_learners.deltas.layers import is_scores, plain_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["base_fingerprint"]


def base_fingerprint(model: PreTrainedModel) -> str:
    """The sha256 of every weight and stored buffer of the backbone of `model`, without its head.

    A mask acts on weights it does not hold, and changed layers work only between unchanged ones: so
    all of them matter, and the embedding, which is enough to tell a tokenizer, is not enough here.
    Fine-tuning often leaves it as it was. Heads are left out: a task brings its own, and a language
    model and a classifier on the same weights have one fingerprint. Masks to be learnt do not
    count, nor does the type that the numbers are held in, as long as they are the same numbers.

    The cost: one pass over the weights at the speed of sha256, 0.5 to 2 seconds a gigabyte of
    float32, with a copy of one tensor at a time.
    """
    tensors = {
        plain_name(name): tensor
        for name, tensor in model.base_model.state_dict().items()
        if not is_scores(name)
    }
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        if tensor.is_floating_point() and tensor.dtype != torch.float64:
            tensor = tensor.float()
        state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        state.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
