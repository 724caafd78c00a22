"""Which device a command runs on."""

from __future__ import annotations

import os

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["resolve_device"]


def resolve_device(name: str) -> str:
    """`auto` is CUDA where there is one; a device that is not there is refused.

    Of several processes on a machine each gets the GPU of its number (LOCAL_RANK).
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch says it in either way
        raise SecondaryLearnersError(
            f"the device {name!r} cannot be used: {str(error).splitlines()[0]} Try --device cpu."
        ) from error
    return name
