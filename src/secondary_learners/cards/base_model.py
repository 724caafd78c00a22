"""The card of a small base model."""

from __future__ import annotations

import math
from typing import Any

from secondary_learners.cards.card import Card, Data, Result

__all__ = ["CARD"]


def _tags(config: Data) -> list[str]:
    return ["gpt2"]


def _results(config: Data, evaluation: Data) -> list[Result]:
    return [
        Result(
            *("text-generation", "pretraining", "unseen documents", "perplexity"),
            round(math.exp(evaluation["held_out_loss"]), 2),
            "Perplexity per token",
        )
    ]


def _values(config: Data, evaluation: Data) -> dict[str, Any]:
    return {"perplexity": math.exp(evaluation["held_out_loss"])}


CARD = Card(
    template="base-model.md",
    task="text-generation",
    tags=_tags,
    results=_results,
    values=_values,
    library="transformers",
)
