"""The card of a delta."""

from __future__ import annotations

from typing import Any

from secondary_learners.cards.card import Card, Data, Result

__all__ = ["CARD"]


def _tags(config: Data) -> list[str]:
    return ["delta", "close-fine-tuning", config["kind"]]


def _results(config: Data, evaluation: Data) -> list[Result]:
    name, metrics = config["task"]["name"], evaluation["metrics"]
    split = f"{metrics['examples']} unseen examples"
    return [
        Result("text-classification", name, split, metric, round(metrics[key], 4))
        for metric, key in (("accuracy", "accuracy"), ("matthews_correlation", "mcc"))
    ]


def _values(config: Data, evaluation: Data) -> dict[str, Any]:
    # Their names were once kept as "labels".
    return {"classes": config["classes"] if "classes" in config else config["labels"]}


CARD = Card(
    template="delta.md",
    task="text-classification",
    tags=_tags,
    results=_results,
    values=_values,
)
