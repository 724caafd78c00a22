"""The card of a learner that reads text, taught by one of token ids."""

from __future__ import annotations

from secondary_learners.cards.card import Card, Data, Result
from secondary_learners.cards.learner import SECTIONS

__all__ = ["CARD"]


def _tags(config: Data) -> list[str]:
    return ["information-gain-filtration", "data-selection", config["architecture"]]


def _results(config: Data, evaluation: Data) -> list[Result]:
    """Rank correlation with the teacher, where nothing was fitted."""
    rows = (("unseen documents", evaluation["held_out"]), ("unseen kinds", evaluation["unseen"]))
    return [
        Result(
            *("text-ranking", config["corpus"]["name"], split, "spearmanr"),
            round(row["spearman"], 4),
            f"Spearman correlation with the scores of {config['labels']['teacher']}, {split}",
        )
        for split, row in rows
        if row
    ]


CARD = Card(
    template="student.md",
    task="text-ranking",
    tags=_tags,
    results=_results,
    sections=(*SECTIONS, "how it was made"),
)
