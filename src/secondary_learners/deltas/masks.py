"""Binary multiplicative masks over pretrained weights, learnt in place of the weights.

After Radiya-Dixit and Wang 2020 (arXiv 2004.14129). A mask is a parametrization of torch's own: the
model keeps its classes, its forward pass and its place in any training loop, and a checkpoint
holds the scores beside the pretrained weights, which never change. Such a checkpoint goes back into
a model with the same masks; for a model that `from_pretrained` reads, `merge_masks` first, and for
the task alone, `make_delta`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secondary_learners.deltas.layers import owner_of, plain_name
from secondary_learners.deltas.settings import Start
from secondary_learners.errors import SecondaryLearnersError

__all__ = ["Mask", "mask_layers", "masks_of", "merge_masks", "remove_masks", "sparsity_of"]


class _Masked(torch.autograd.Function):
    """weight where scores > 0, else 0; backwards the threshold is the identity."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, weight: Tensor, scores: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.where(scores > 0, weight, weight.new_zeros(()))

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[None, Tensor]:
        (weight,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return None, gradients[0] * weight


class Mask(nn.Module):
    """The parametrization: `scores` has the weight's shape, and keeps it where it is above 0."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)

    @property
    def kept(self) -> Tensor:
        """True where the weight stays, of the weight's shape."""
        return self.scores.detach() > 0

    def forward(self, weight: Tensor) -> Tensor:
        masked: Tensor = _Masked.apply(weight, self.scores)  # type: ignore[no-untyped-call]
        return masked


def mask_layers(
    model: nn.Module,
    names: Iterable[str],
    *,
    sparsity: float = 0.2,
    start: Start = "magnitude",
    seed: int = 0,
) -> None:
    """Put a mask to be learnt on each of the weights `names`, and freeze them.

    sparsity: the share of each weight that is zero at the start, 0 <= sparsity < 1.
    start: "magnitude" begins by masking the smallest weights, and the further a weight is from
        that border the longer it takes to cross it; "random" draws the scores evenly from
        (-sparsity, 1 - sparsity), the same ones for a seed.

    Scores vary by about 1, which is what the learning rate for them relates to. Raises
    SecondaryLearnersError for a name that is not a floating-point weight of the model, that is
    shared with another module (a mask would part the two), or that has a mask already.
    """
    if not 0 <= sparsity < 1:
        raise SecondaryLearnersError(
            f"the initial sparsity is a share of the weights, 0 to below 1, and is {sparsity!r}."
        )
    if start not in ("magnitude", "random"):
        raise SecondaryLearnersError(f"a mask starts by 'magnitude' or 'random', not {start!r}.")
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(set(names)):
        module, last = owner_of(model, name, alone=True)
        if parametrize.is_parametrized(module, last):
            raise SecondaryLearnersError(
                f"the weight {name!r} is parametrized already. Merge or remove its mask first."
            )
        weight = cast(Tensor, getattr(module, last))
        if not weight.is_floating_point():
            raise SecondaryLearnersError(f"the weight {name!r} is {weight.dtype}, not floating.")
        scores = _first_scores(weight.detach(), sparsity, start, generator)
        weight.requires_grad_(False)
        parametrize.register_parametrization(module, last, Mask(scores), unsafe=True)


def _first_scores(
    weight: Tensor, sparsity: float, start: Start, generator: torch.Generator
) -> Tensor:
    if start == "random":
        drawn = 1 - torch.rand(weight.shape, generator=generator)  # (0, 1]
        return (drawn - sparsity).to(weight.device)
    size = weight.float().abs()
    zeros = round(sparsity * size.numel())
    if zeros == 0:
        border = torch.zeros((), device=weight.device)
        size = size + torch.finfo(torch.float32).tiny  # weights that are 0 are kept, too
    else:
        border = size.flatten().kthvalue(zeros).values
    spread = size.std(correction=0)
    return (size - border) / torch.where(spread > 0, spread, torch.ones_like(spread))


def _masks(model: nn.Module) -> dict[str, tuple[nn.Module, str, Mask]]:
    masks = {}
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for last, chain in cast(nn.ModuleDict, module.parametrizations).items():
            for step in cast(nn.ModuleList, chain):
                if isinstance(step, Mask):
                    masks[plain_name(f"{path}.{last}" if path else last)] = (module, last, step)
    return masks


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """The masks that `model` has now, by the weights' names: True where the weight stays."""
    return {name: mask.kept for name, (_, _, mask) in sorted(_masks(model).items())}


def sparsity_of(model: nn.Module) -> float:
    """The share of the masked layers' weights that is zeroed by the masks; 0 without masks."""
    masks = masks_of(model).values()
    total = sum(mask.numel() for mask in masks)
    return sum(int((~mask).sum()) for mask in masks) / total if total else 0.0


def merge_masks(model: nn.Module) -> None:
    """Write the masks into the weights: a plain model again, with the same outputs exactly."""
    for module, last, _ in _masks(model).values():
        parametrize.remove_parametrizations(module, last, leave_parametrized=True)


def remove_masks(model: nn.Module) -> None:
    """Take the masks off: the pretrained weights again, bit for bit."""
    for module, last, _ in _masks(model).values():
        parametrize.remove_parametrizations(module, last, leave_parametrized=False)
