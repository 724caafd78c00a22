"""The kinds of cards: one row for each, and which one an artifact has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from secondary_learners.artifacts.checks import read_json
from secondary_learners.artifacts.kinds import kind_of
from secondary_learners.cards.card import Card
from secondary_learners.errors import ArtifactError

__all__ = ["CARDS", "LOSS_METHOD", "card", "card_of"]

LOSS_METHOD = "training loss"
"""`labels.method` in the config.json of a learner of training losses."""
# Each module has a CARD.
CARDS: Mapping[str, str] = {
    "learner": "secondary_learners.cards.learner",
    "loss-learner": "secondary_learners.cards.loss_learner",
    "distilled": "secondary_learners.cards.distilled",
    "delta": "secondary_learners.cards.delta",
    "base-model": "secondary_learners.cards.base_model",
}


def card(kind: str) -> Card:
    """The card of a kind; raises KeyError for a name that is not in the table."""
    row: Card = import_module(CARDS[kind]).CARD
    return row


def card_of(folder: Path) -> Card | None:
    """The card of the artifact in `folder`, by its config.json; None where there is no artifact.

    Learners of gains, of losses and from published labels are one kind of artifact; what their
    labels are tells them apart.
    """
    try:
        artifact = kind_of(folder).kind
        labels = read_json(folder / "config.json").get("labels")
    except ArtifactError:
        return None
    if artifact == "learner" and isinstance(labels, Mapping):
        if labels.get("method") == LOSS_METHOD:
            return card("loss-learner")
        if "source" in labels:
            return card("distilled")
    return card(artifact)
