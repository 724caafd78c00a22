"""Does a learner still hold? Fresh labels at a model's weights of today against its predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from secondary_learners.artifacts.checks import read_json
from secondary_learners.errors import ArtifactError, SecondaryLearnersError
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.gains.store import LabelSettings, label_to_store
from secondary_learners.learners.statistics import spearman, spearman_interval
from secondary_learners.text.sequences import Examples

if TYPE_CHECKING:
    from secondary_learners.learners.artifact import Learner

__all__ = ["Freshness", "Refreshed", "card_figure", "judge", "refresh"]

_SHARE = 0.5
_SCORED_TOGETHER = 512


class Freshness(StrEnum):
    """HOLDS: at least half of the card's figure, STALE: less; UNCLEAR: the sample cannot say.

    Of the contexts above a threshold, the mean gain in standard deviations grows in proportion to
    the correlation of scores with gains (for jointly normal ones exactly). So half of the
    correlation is half of what the filter was worth: below that a new learner is worth its labels.
    The whole 95 % interval must lie on one side.
    """

    HOLDS = "holds"
    STALE = "stale"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Refreshed:
    """Spearman of predictions with fresh labels, its 95 % interval, and what the card has.

    low, high: by a bootstrap over documents. bar: half of `card`, what the verdict compares with.
    changed: the weights are not those that the learner's labels came from.
    """

    learner: str
    spearman: float
    low: float
    high: float
    card: float
    bar: float
    verdict: Freshness
    contexts: int
    documents: int
    objective_contexts: int
    method: str
    changed: bool


def judge(low: float, high: float, card: float) -> Freshness:
    """The verdict for an interval from `low` to `high`; `card` is the figure at the making."""
    bar = _SHARE * card
    if low >= bar:
        return Freshness.HOLDS
    return Freshness.STALE if high < bar else Freshness.UNCLEAR


def card_figure(folder: Path) -> float:
    """The Spearman correlation on held-out documents that the card of an artifact shows.

    Raises ArtifactError for a folder whose evaluation.json has none.
    """
    evaluation, config = (read_json(folder / f"{name}.json") for name in ("evaluation", "config"))
    try:
        return float(evaluation["held_out"][config["architecture"]]["spearman"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder / 'evaluation.json'} has no correlation on held-out documents to compare "
            "with. Try `learners rebuild`, or another learner of `learners list`."
        ) from error


def _further(labels: Mapping[str, Any]) -> dict[str, Any]:
    """How a learner's labels look further than a step, of its config."""
    names = ("horizon", "repeats", "update_batch", "horizon_learning_rate", "combine")
    return {name: labels[name] for name in names if name in labels}


def refresh(
    learner: Learner,
    model: torch.nn.Module,
    contexts: Examples,
    objective: Examples,
    *,
    card: float,
    against: Sequence[Examples] = (),
    method: str | None = None,
    progress: bool = True,
) -> Refreshed:
    """Label `contexts` at the weights that `model` has now and compare with what `learner` says.

    Labels are made as the learner's own were: method, optimizer, its learning rate, subset of the
    parameters, horizon and what they are combined of. It is the ranking that is judged, by its
    correlation: what the filter is worth in fine-tuning, `compare` tells.

    Args:
        learner: The learner to judge.
        model: As it is now; its weights are as before afterwards.
        contexts: At least 20 that the learner was not fitted on.
        objective: What the model should get better at.
        card: The learner's own correlation on held-out documents, see `card_figure`.
        against: Pools that the labels are against, where the learner's own were; see
            `information_gain`.
        method: Of measuring gains, by default the learner's own; another one is of one step.
        progress: Whether a bar is shown.

    Returns:
        Spearman's correlation of predictions with fresh labels, its 95 % interval and the verdict.

    Raises:
        SecondaryLearnersError: For fewer than 20 contexts.
        IncompatibleError: For tokens that are not the learner's.
        DivergedError: For gains that are not finite.
    """
    if len(contexts) < 20:
        raise SecondaryLearnersError(
            f"{len(contexts)} contexts say nothing of a correlation. Try --contexts 500, and more "
            "text if there is not as much."
        )
    config = learner.config
    predictions = torch.cat(
        [
            learner.score(*rows)
            for rows in zip(
                torch.from_numpy(contexts.input_ids).split(_SCORED_TOGETHER),
                torch.from_numpy(contexts.attention_mask).split(_SCORED_TOGETHER),
                strict=True,
            )
        ]
    )
    settings = LabelSettings(
        method=method or config.labels["method"],
        optimizer=config.optimizer["name"],
        learning_rate=config.optimizer["learning_rate"],
        eps=config.optimizer["eps"],
        unit="nats",  # ranks are compared, and they are the same in every unit
        trainable=config.labels.get("trainable"),
        exact=0,
        **(_further(config.labels) if method in (None, config.labels["method"]) else {}),
    )
    with tempfile.TemporaryDirectory() as name:
        labels = label_to_store(
            model,
            contexts,
            objective,
            Path(name) / "labels",
            settings,
            against=against,
            progress=progress,
        )
    scores = predictions.cpu().numpy()
    low, high = spearman_interval(scores, labels.gains, contexts.document)
    return Refreshed(
        learner=config.name,
        spearman=spearman(scores, labels.gains),
        low=low,
        high=high,
        card=card,
        bar=_SHARE * card,
        verdict=judge(low, high, card),
        contexts=len(contexts),
        documents=len(set(contexts.document.tolist())),
        objective_contexts=len(objective),
        method=settings.method,
        changed=weights_fingerprint(model) != config.labels.get("model_fingerprint"),
    )
