"""The card of a learner of training losses."""

from __future__ import annotations

from typing import Any

from secondary_learners.cards.card import Card, Data, Result
from secondary_learners.cards.learner import SECTIONS

__all__ = ["CARD"]

_METRICS = {"accuracy": "accuracy", "f1": "f1", "matthews": "matthews_correlation"}


def _tags(config: Data) -> list[str]:
    return ["multistage-data-filtering", "data-selection", "loss-prediction"]


def _results(config: Data, evaluation: Data) -> list[Result]:
    """Held-out rank correlation, and the score of every arm."""
    task, comparison = evaluation["task"], evaluation["fine_tuning"] or {"rows": ()}
    held_out = evaluation["held_out"][config["architecture"]]
    results = [
        Result(
            *("text-ranking", task["name"], "unseen training examples", "spearmanr"),
            round(held_out["spearman"], 4),
            "Spearman correlation of scores with losses",
        )
    ]
    for row in comparison["rows"]:
        seeds = "1 seed" if comparison["seeds"] == 1 else f"{comparison['seeds']} seeds"
        results.append(
            Result(
                *("text-classification", task["name"], "development set"),
                _METRICS[task["metric"]],
                round(row["score"], 4),
                f"{task['metric']}, {row['arm']}, {seeds}",
            )
        )
    return results


def _values(config: Data, evaluation: Data) -> dict[str, Any]:
    task, comparison = evaluation["task"], evaluation["fine_tuning"]
    # Their number was once kept as "labels".
    values: dict[str, Any] = {"classes": task["classes"] if "classes" in task else task["labels"]}
    if comparison:
        rows = {row["arm"]: row for row in comparison["rows"]}
        mine, plain, blind = rows["learner"], rows["plain"], rows["random-learner"]
        values |= {
            "mine": mine,
            "lost": plain["score"] - mine["score"],
            "ahead": mine["score"] - blind["score"],
            "spread": max(mine["deviation"], blind["deviation"]),
        }
    return values


CARD = Card(
    template="loss-learner.md",
    task="text-ranking",
    tags=_tags,
    results=_results,
    values=_values,
    sections=SECTIONS,
)
