"""The kinds of cards: one row for each, and which one an artifact has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from secondary_learners.cards.card import Card, Data

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


def card_of(config: object) -> Card | None:
    """The card of the artifact with this config.json, or None for what is not an artifact's."""
    kind = _kind(config) if isinstance(config, Mapping) else None
    return None if kind is None else card(kind)


def _kind(config: Data) -> str | None:
    """Learners of gains, of losses and from published labels are one kind of artifact; what their
    labels are tells them apart.
    """
    if "model_type" in config:
        return "base-model"
    if "layers" in config:
        return "delta"
    labels = config.get("labels")
    if not isinstance(labels, Mapping):
        return None
    if labels.get("method") == LOSS_METHOD:
        return "loss-learner"
    return "distilled" if "source" in labels else "learner"
