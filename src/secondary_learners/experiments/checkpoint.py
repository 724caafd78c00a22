"""Where training is: a model's weights and its optimizers' state, as tensors by name and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["held", "restore"]


def _weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Each once, where a state_dict would hold tied weights twice."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def held(model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Copies on the CPU, for a file of safetensors."""
    tensors = {f"model.{name}": value for name, value in _weights(model).items()}
    for number, optimizer in enumerate(optimizers):
        for place, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{place}.{key}": v for key, v in state.items()}
    return {name: v.detach().cpu().contiguous().clone() for name, v in tensors.items()}


def restore(
    model: torch.nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
) -> None:
    """Set `model` and `optimizers` to what `held` gave; raises KeyError for another model's."""
    with torch.no_grad():
        for name, value in _weights(model).items():
            value.copy_(tensors[f"model.{name}"])
    for number, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        whole["state"] = {}
        for name, tensor in tensors.items():
            kind, which, place, key = (*name.split(".", 3), "", "", "")[:4]
            if (kind, which) == ("optimizer", str(number)):
                whole["state"].setdefault(int(place), {})[key] = tensor
        optimizer.load_state_dict(whole)
