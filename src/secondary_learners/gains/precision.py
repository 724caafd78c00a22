"""The number format that a model's passes are computed in while it labels.

float32    every product in float32
tf32       float32 weights and activations, products with mantissas of 10 bits: NVIDIA GPUs from
           compute capability 8.0
bfloat16   autocast: products in bfloat16, weights, steps and losses in float32
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError

__all__ = ["PRECISIONS", "check_precision", "computed_in"]

PRECISIONS = ("float32", "tf32", "bfloat16")


@contextmanager
def computed_in(model: nn.Module, precision: str) -> Iterator[None]:
    """Inside the block `model` computes in `precision`, whatever is set around it.

    precision: one that `check_precision` lets pass. A backward pass follows the forward pass that
    it belongs to. Raises SecondaryLearnersError for tf32 on a device that has none.
    """
    device = next(model.parameters()).device
    _check_device(precision, device)
    known: Any = torch.backends  # its types lack some of these
    backends = (known.cuda.matmul, known.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    changed: Any = model
    own = vars(model).get("forward")
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        with torch.autocast(device.type, enabled=False):
            if precision == "bfloat16":
                # Around each pass by itself, and without autocast's cache of cast weights, which
                # would not see that a step has changed them.
                lower = torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
                changed.forward = lower(model.forward)
            yield
    finally:
        if own is not None:
            changed.forward = own
        else:
            vars(model).pop("forward", None)
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


def check_precision(precision: str) -> None:
    """Raise UnknownNameError for one that does not exist."""
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS, "learners gains --help")


def _check_device(precision: str, device: torch.device) -> None:
    if precision != "tf32":
        return
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        raise SecondaryLearnersError(
            f"the device {str(device)!r} does not compute in tf32: that takes an NVIDIA GPU of "
            "compute capability 8.0 or above. Try --precision float32."
        )
