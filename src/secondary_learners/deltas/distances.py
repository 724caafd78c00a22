"""How far each layer moved in fine-tuning, and which layers that makes the ones that matter.

After Radiya-Dixit and Wang 2020 (arXiv 2004.14129), who found fine-tuned weights close to the
pretrained ones, and some kinds of layer closer than others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from secondary_learners.deltas.layers import (
    backbone_prefix,
    backbone_weights,
    owner_of,
    plain_name,
)
from secondary_learners.errors import IncompatibleError, SecondaryLearnersError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Distance",
    "Kind",
    "_acting_weights",
    "critical_layers",
    "distance_table",
    "layer_distances",
]

Kind = Literal["embedding", "matrix", "vector"]


@dataclass(frozen=True)
class Distance:
    """How far one weight tensor moved.

    l0: the share of its numbers that differ at all. l1: the mean absolute difference of a number,
    which is the L1 distance over the size, so that layers of any size compare. relative: `l1` over
    the mean absolute pretrained number; None where that is 0. angular: the angle between the two
    tensors as vectors over pi, from 0 (one direction) to 1 (opposite), 0.5 for unrelated ones.
    """

    name: str
    kind: Kind
    size: int
    l0: float
    l1: float
    relative: float | None
    angular: float


def layer_distances(pretrained: PreTrainedModel, tuned: PreTrainedModel) -> tuple[Distance, ...]:
    """The distance of every weight of the backbone, in the model's order; heads are left out.

    The names are those in `tuned`; a masked weight counts as what its mask leaves. In float64.
    Raises IncompatibleError unless the two backbones have the same weights in the same shapes.
    """
    old, new = _acting_weights(pretrained), _acting_weights(tuned)
    if {name: w.shape for name, w in old.items()} != {name: w.shape for name, w in new.items()}:
        raise IncompatibleError(
            f"a {type(pretrained).__name__} and a {type(tuned).__name__} with other weights cannot "
            "be compared. Give a base model and what was fine-tuned from it."
        )
    prefix = backbone_prefix(tuned)
    embeddings = _embeddings(tuned.base_model)
    return tuple(
        _distance(f"{prefix}{name}", _kind(name, new[name], embeddings), old[name], new[name])
        for name in new
    )


def _acting_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The backbone's weights as they act, under their masks, by their names within the backbone."""
    prefix = backbone_prefix(model)
    weights: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in backbone_weights(model):
            module, last = owner_of(model, name)
            weights[name.removeprefix(prefix)] = getattr(module, last).detach()
    return weights


def _embeddings(model: nn.Module) -> set[str]:
    return {
        f"{path}.{plain_name(name)}" if path else plain_name(name)
        for path, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        for name, _ in module.named_parameters()
    }


def _kind(name: str, weight: Tensor, embeddings: set[str]) -> Kind:
    return "embedding" if name in embeddings else "matrix" if weight.ndim > 1 else "vector"


def _distance(name: str, kind: Kind, old: Tensor, new: Tensor) -> Distance:
    u, v = (tensor.detach().double().flatten().cpu() for tensor in (old, new))
    size, moved = u.numel(), (v - u).abs()
    l1, before = float(moved.mean()), float(u.abs().mean())
    return Distance(
        name=name,
        kind=kind,
        size=size,
        l0=float((moved != 0).double().mean()),
        l1=l1,
        relative=l1 / before if before else None,
        angular=_angle(u, v) / math.pi,
    )


def _angle(u: Tensor, v: Tensor) -> float:
    """The angle from 0 to pi; a right one beside a vector of zeros, and 0 between two of them.

    By the tangent of its half: an arc cosine would lose small angles, which are what matters here.
    """
    a, b = float(u.norm()), float(v.norm())
    if a == 0 or b == 0:
        return 0.0 if a == b else math.pi / 2
    u, v = u / a, v / b
    return 2 * math.atan2(float((u - v).norm()), float((u + v).norm()))


def critical_layers(
    distances: Sequence[Distance], share: float, *, kinds: Iterable[Kind] = ("matrix",)
) -> tuple[str, ...]:
    """The layers that matter: those that fine-tuning turned most, within a budget of weights.

    The rule: layers of the given `kinds` in the order of their angular distance, largest first;
    each is taken unless it would make all that are taken more than `share` of the backbone's
    weights. The angle, unlike L1, does not depend on the scale of a layer. Embeddings are left out
    because they are a large part of a small model, and most of their rows never occur in a task.

    The names are in the order of `distances`. Raises SecondaryLearnersError when not one fits.
    """
    kinds = set(kinds)
    budget = share * sum(distance.size for distance in distances)
    taken, total = set(), 0
    candidates = [distance for distance in distances if distance.kind in kinds]
    for distance in sorted(candidates, key=lambda d: (-d.angular, d.name)):
        if total + distance.size <= budget:
            taken.add(distance.name)
            total += distance.size
    if not taken:
        least = min((distance.size for distance in candidates), default=0)
        raise SecondaryLearnersError(
            f"no layer fits in {share:g} of the weights ({budget:,.0f}); the smallest has "
            f"{least:,}. Raise the share."
        )
    return tuple(distance.name for distance in distances if distance.name in taken)


def distance_table(distances: Sequence[Distance]) -> str:
    """The distances as aligned text, in their order."""
    rows = [("layer", "weights", "L0", "L1", "L1/|w|", "angular")]
    rows += [
        (
            d.name,
            f"{d.size:,}",
            f"{d.l0:.4f}",
            f"{d.l1:.3g}",
            "–" if d.relative is None else f"{d.relative:.3g}",
            f"{d.angular:.4f}",
        )
        for d in distances
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
