"""The card of a learner that was distilled from a teacher on published labels."""

from __future__ import annotations

from typing import Any

from secondary_learners.cards.card import Card, Data, Result
from secondary_learners.cards.learner import SECTIONS

__all__ = ["CARD"]

_AIM = 0.88  # Spearman on the rows kept for reporting
_SHOWN = ("conv", "ridge", "log perplexity", "teacher")  # the rows of the tables, in their order


def _tags(config: Data) -> list[str]:
    return [
        *("information-gain-filtration", "data-selection", "distilled"),
        config["architecture"],
    ]


def _results(config: Data, evaluation: Data) -> list[Result]:
    """Rank correlation and R² on the rows kept for reporting."""
    figures = evaluation["held_out"]["conv"]
    rows = f"{figures['contexts']} rows kept for reporting"
    return [
        Result("text-ranking", config["corpus"]["name"], rows, kind, round(figures[key], 4), name)
        for kind, key, name in (
            ("spearmanr", "spearman", "Spearman correlation of scores with measured gains"),
            ("r_squared", "r2", "Share of the variance of measured gains"),
        )
    ]


def _values(config: Data, evaluation: Data) -> dict[str, Any]:
    return {"aim": _AIM, "shown": _SHOWN}


CARD = Card(
    template="distilled.md",
    task="text-ranking",
    tags=_tags,
    results=_results,
    values=_values,
    sections=(*SECTIONS, "how it was made"),
)
