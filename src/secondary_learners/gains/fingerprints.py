"""Digests of a model's weights: what labels and learners were made from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["embedding_fingerprint", "weights_fingerprint"]


def embedding_fingerprint(model: PreTrainedModel) -> str:
    """sha256 of the input embedding matrix in float32: names a base model and its vocabulary."""
    weight = cast("torch.Tensor", model.get_input_embeddings().weight)
    return _digest({"embedding": weight})


def weights_fingerprint(model: torch.nn.Module) -> str:
    """sha256 of every parameter in float32, in the order of their names."""
    return _digest(dict(model.named_parameters()))


def _digest(parameters: dict[str, torch.Tensor]) -> str:
    state = hashlib.sha256()
    for name in sorted(parameters):
        tensor = parameters[name].detach().float().cpu().contiguous()
        state.update(f"{name} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.numpy().data.cast("B"))
    return state.hexdigest()
