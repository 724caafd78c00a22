"""The kinds of cards: one row for each, and which one an artifact has."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from secondary_learners.artifacts.checks import read_json
from secondary_learners.artifacts.kinds import kind_of
from secondary_learners.cards.card import Card
from secondary_learners.errors import ArtifactError

__all__ = ["CARDS", "card", "card_of"]

# Each module has a CARD.
CARDS: Mapping[str, str] = {
    "learner": "secondary_learners.cards.learner",
    "loss-learner": "secondary_learners.cards.loss_learner",
    "distilled": "secondary_learners.cards.distilled",
    "student": "secondary_learners.cards.student",
    "delta": "secondary_learners.cards.delta",
    "base-model": "secondary_learners.cards.base_model",
}


def card(kind: str) -> Card:
    """The card of a kind; raises KeyError for a name that is not in the table."""
    row: Card = import_module(CARDS[kind]).CARD
    return row


def card_of(folder: Path) -> Card | None:
    """The card of the artifact in `folder`, by its config.json; None where there is no artifact."""
    try:
        return card(kind_of(folder).card(read_json(folder / "config.json")))
    except ArtifactError:
        return None
