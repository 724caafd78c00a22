"""The card of a base model: a small one that was trained here, or one fetched from a package."""

from __future__ import annotations

import math
from typing import Any

from secondary_learners.cards.card import Card, Data, Result

__all__ = ["CARD", "is_causal"]


def _tags(config: Data) -> list[str]:
    return [str(config.get("model_type", "gpt2"))]


def _results(config: Data, evaluation: Data) -> list[Result]:
    if "held_out_loss" not in evaluation:
        return []
    return [
        Result(
            *("text-generation", "pretraining", "unseen documents", "perplexity"),
            round(math.exp(evaluation["held_out_loss"]), 2),
            "Perplexity per token",
        )
    ]


def _values(config: Data, evaluation: Data) -> dict[str, Any]:
    loss = evaluation.get("held_out_loss")
    return {
        "perplexity": None if loss is None else math.exp(loss),
        "causal": is_causal(config) or loss is not None,
    }


def is_causal(config: Data) -> bool:
    """Whether transformers' config is that of a language model that writes from left to right."""
    names = config.get("architectures") or ()
    return any("CausalLM" in name or "LMHead" in name for name in names)


CARD = Card(
    template="base-model.md",
    task="text-generation",
    tags=_tags,
    results=_results,
    values=_values,
    library="transformers",
)
