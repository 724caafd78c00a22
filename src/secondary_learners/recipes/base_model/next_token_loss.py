"""The mean next-token loss of a causal model with a large vocabulary, its logits never held whole.

Softmax and cross-entropy know their own gradient as soon as they are computed, so one pass over
blocks of rows gives the loss and both gradients of the last layer (as Liger Kernel does on GPUs,
arXiv 2410.10989): three matrix products, and a block of logits instead of all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["next_token_loss"]

# Rows of logits per matrix product: enough to be worth reading the weights for.
_BLOCK_BYTES = 64 * 2**20
# Rows of probabilities at once: few enough to stay in a CPU's caches.
_SOFTMAX_BYTES = 4 * 2**20


def next_token_loss(model: Any, input_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """What `model(input_ids=input_ids, labels=input_ids).loss` is, with its gradient. A scalar.

    model: of transformers, with a linear `lm_head` without bias and nothing after it, as GPT-2's.
    input_ids: int64 [batch, length]. dtype: in which the last layer's products are computed, as
    under autocast; softmax and sums are in float32 or better.
    """
    hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1]
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden.flatten(0, 1), model.lm_head.weight, input_ids[:, 1:].flatten(), dtype
    )
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `hidden @ weight.T` [rows, vocabulary] against `targets` [rows]."""

    @staticmethod
    def forward(
        context: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        low, columns = weight.to(dtype), hidden.to(dtype)
        towards_hidden = torch.empty_like(hidden)
        towards_weight = torch.zeros_like(weight)
        total = hidden.new_zeros((), dtype=exact)
        rows = max(1, _BLOCK_BYTES // (low.element_size() * len(weight)))
        few = max(1, _SOFTMAX_BYTES // (exact.itemsize * len(weight)))
        block = low.new_empty(min(rows, len(hidden)), len(weight))
        with torch.autocast(hidden.device.type, enabled=False):
            for begin in range(0, len(hidden), rows):
                part = slice(begin, begin + rows)
                errors = torch.mm(columns[part], low.T, out=block[: len(columns[part])])
                for logits, target in zip(errors.split(few), targets[part].split(few), strict=True):
                    probabilities = torch.softmax(logits, 1, dtype=exact)
                    place = target.unsqueeze(1)
                    likelihood = probabilities.gather(1, place)
                    total -= likelihood.log().sum()
                    logits.copy_(probabilities.scatter_(1, place, likelihood - 1))
                towards_hidden[part] = errors @ low
                towards_weight += errors.T @ columns[part]
        context.save_for_backward(
            towards_hidden.div_(len(hidden)), towards_weight.div_(len(hidden))
        )
        return total / len(hidden)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        towards_hidden, towards_weight = context.saved_tensors
        return towards_hidden * gradients[0], towards_weight * gradients[0], None, None
