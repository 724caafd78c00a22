"""From a base model and a task to a fine-tuned classifier, all of it, some layers, or a mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from secondary_learners.deltas.distances import (
    Distance,
    critical_layers,
    layer_distances,
)
from secondary_learners.deltas.layers import (
    backbone_weights,
    freeze_except,
    matching,
)
from secondary_learners.deltas.masks import mask_layers, sparsity_of
from secondary_learners.deltas.settings import Tuning
from secondary_learners.deltas.tasks import Examples, classifier, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Tuned", "fine_tune", "probe_distances", "tuned_layers"]

# Of the backbone's weights: masks then take under 1/25 of a model that is stored in 16 bits.
_SHARES = {"layers": 0.15, "mask": 0.6}


@dataclass(frozen=True)
class Tuned:
    """What `fine_tune` made. seconds: of CPU, training alone. sparsity: of the masked layers."""

    model: PreTrainedModel
    layers: tuple[str, ...]
    seconds: float
    sparsity: float


def probe_distances(
    base: PreTrainedModel, examples: Examples, tuning: Tuning, *, seed: int = 0
) -> tuple[Distance, ...]:
    """How far each layer moves in a full fine-tuning over one epoch of `tuning.probe` examples."""
    model = classifier(base, len(examples.names), seed=seed)
    few = examples.sample(tuning.probe, seed)
    epochs = min(1.0, tuning.training.epochs)
    train(model, few, replace(tuning.training, epochs=epochs), seed=seed)
    return layer_distances(base, model)


def tuned_layers(
    base: PreTrainedModel, examples: Examples, tuning: Tuning, *, seed: int = 0
) -> tuple[str, ...]:
    """The names, in a classifier on `base`, of the weights that are to be tuned or masked."""
    if tuning.kind == "full":
        return ()
    if tuning.layers:
        return matching(backbone_weights(classifier(base, 2)), tuning.layers)
    distances = probe_distances(base, examples, tuning, seed=seed)
    return critical_layers(distances, tuning.share or _SHARES[tuning.kind])


def fine_tune(
    base: PreTrainedModel,
    examples: Examples,
    tuning: Tuning,
    *,
    layers: Iterable[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tuned:
    """A classifier on a copy of `base` that has learnt `examples`.

    layers: the weights to tune or mask; by default `tuned_layers` says. A mask stays a mask, see
    `merge_masks`. seed: of the head, the scores, and the order of the examples.
    Raises DivergedError for a loss that is not finite.
    """
    names = tuple(tuned_layers(base, examples, tuning, seed=seed) if layers is None else layers)
    model = classifier(base, len(examples.names), seed=seed)
    if tuning.kind == "mask":
        mask_layers(model, names, sparsity=tuning.sparsity, start=tuning.start, seed=seed)
        freeze_except(model, [])
    elif tuning.kind == "layers":
        freeze_except(model, names)
    seconds = train(model, examples, tuning.training, seed=seed, progress=progress)
    return Tuned(model, names, seconds, sparsity_of(model))
