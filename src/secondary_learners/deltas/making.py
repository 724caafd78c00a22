"""From a base model and a task to a fine-tuned classifier, all of it, some layers, or a mask."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from secondary_learners.deltas.distances import (
    Distance,
    critical_layers,
    layer_distances,
)
from secondary_learners.deltas.layers import (
    backbone_weights,
    freeze_except,
    matching,
    parameter_groups,
)
from secondary_learners.deltas.masks import mask_layers, sparsity_of
from secondary_learners.deltas.settings import Training, Tuning
from secondary_learners.errors import DivergedError
from secondary_learners.tasks.batches import shuffled_batches
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import Encoded
from secondary_learners.tasks.training import rate_share, set_rates, update

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Tuned", "fine_tune", "probe_distances", "train", "tuned_layers"]

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
    base: PreTrainedModel, examples: Encoded, tuning: Tuning, *, seed: int = 0
) -> tuple[Distance, ...]:
    """How far each layer moves in a full fine-tuning over one epoch of `tuning.probe` examples."""
    model = classifier(base, len(examples.classes), seed=seed)
    few = examples.sample(tuning.probe, seed)
    epochs = min(1.0, tuning.training.epochs)
    train(model, few, replace(tuning.training, epochs=epochs), seed=seed)
    return layer_distances(base, model)


def tuned_layers(
    base: PreTrainedModel, examples: Encoded, tuning: Tuning, *, seed: int = 0
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
    examples: Encoded,
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
    model = classifier(base, len(examples.classes), seed=seed)
    if tuning.kind == "mask":
        mask_layers(model, names, sparsity=tuning.sparsity, start=tuning.start, seed=seed)
        freeze_except(model, [])
    elif tuning.kind == "layers":
        freeze_except(model, names)
    seconds = train(model, examples, tuning.training, seed=seed, progress=progress)
    return Tuned(model, names, seconds, sparsity_of(model))


def train(
    model: PreTrainedModel,
    examples: Encoded,
    training: Training,
    *,
    seed: int = 0,
    progress: bool = False,
) -> float:
    """Train what is not frozen of `model`, in place; CPU seconds of this process that it took.

    seed: the order of the examples, and dropout. Raises DivergedError for a loss that is not
    finite.
    """
    from tqdm import tqdm

    begun = time.process_time()
    groups = parameter_groups(
        model,
        learning_rate=training.learning_rate,
        head_learning_rate=training.head_learning_rate,
        score_learning_rate=training.score_learning_rate,
    )
    optimizer = torch.optim.AdamW(groups)
    updates = max(1, round(training.epochs * len(examples) / training.batch_size))
    rising = max(1, round(training.warm_up * updates))
    batches = islice(shuffled_batches(examples.lengths, training.batch_size, seed), updates)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bar = tqdm(batches, total=updates, unit="update", disable=not progress)
        for step, places in enumerate(bar, 1):
            set_rates(optimizer, rate_share(step, updates, rising))
            loss = update(
                model,
                optimizer,
                examples,
                [places],
                max_grad_norm=training.max_grad_norm,
                bfloat16=training.mixed_precision,
            )
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the loss became {loss}. Try lower learning rates than {training}."
                )
    model.eval()
    return time.process_time() - begun
