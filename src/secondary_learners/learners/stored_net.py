"""A net of token ids as the bytes of model.safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from secondary_learners.artifacts.folders import parse_tensors
from secondary_learners.errors import ArtifactError
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.learners.nets import Net, build_net, round_to_half

__all__ = ["net_bytes", "read_net"]


def net_bytes(config: LearnerConfig, net: Net, *, half: bool) -> bytes:
    """`half`: in float16, to which the weights of `net` itself are rounded first.

    Raises ArtifactError for weights that are not finite.
    """
    tensors = {
        name: (tensor.half().float() if half else tensor).detach().cpu().contiguous()
        for name, tensor in net.state_dict().items()
    }
    with torch.device("meta"):
        expected = build_net(config.architecture, config.sizes).state_dict()
    _check_tensors(config, expected, tensors)
    if half:  # only what was found finite
        round_to_half(net)
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    return safetensors.torch.save(tensors)


def read_net(config: LearnerConfig, folder: Path, contents: Mapping[str, bytes]) -> Net:
    """The net of an artifact; raises ArtifactError."""
    tensors = {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor
        for name, tensor in parse_tensors(folder, contents).items()
    }
    with torch.device("meta"):  # no memory, no random numbers: the weights come from the file
        net = build_net(config.architecture, config.sizes)
    _check_tensors(config, net.state_dict(), tensors)
    net.load_state_dict(tensors, assign=True)
    return net


def _is_finite(tensor: Tensor) -> bool:
    # Eight times faster than isfinite().all(): nothing of the tensor's size is made.
    return tensor.numel() == 0 or all(map(math.isfinite, tensor.aminmax()))


def _check_tensors(
    config: LearnerConfig, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """The tensors are exactly those of the architecture, float32 (once widened) and finite."""
    if set(tensors) != set(expected):
        raise ArtifactError(
            f"the tensors of {config.name!r} are {', '.join(sorted(tensors))}, and a "
            f"{config.architecture} learner has {', '.join(sorted(expected))}. "
            "Rebuild it with `learners run RECIPE`."
        )
    for name, tensor in tensors.items():
        shape, right = list(tensor.shape), list(expected[name].shape)
        if shape != right or tensor.dtype != torch.float32:
            raise ArtifactError(
                f"the tensor {name!r} of {config.name!r} is {tensor.dtype} {shape}, and must be "
                f"torch.float32 (or float16) {right}. Rebuild it with `learners run RECIPE`."
            )
        if not _is_finite(tensor):
            raise ArtifactError(
                f"the tensor {name!r} of {config.name!r} holds numbers that are not finite. "
                "Rebuild it with `learners run RECIPE`."
            )
