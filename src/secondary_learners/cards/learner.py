"""The card of a learner of information gain.

The keys of evaluation.json that it shows where they are there, and that `learners card check` asks
for from evaluation format 2 on (`"format": 2`), in `held_out[ARCHITECTURE]`:

- `interval`: [low, high], 95 %, of its `spearman`.
- `within`: {domain: Spearman of score and measured gain among that domain's contexts}.
- `domain_variance`: the share of the measured gains' variance that the domain alone explains.
- `keep_rate`: {domain: the share of its held-out contexts with a score of 1 or more}.

and `selectors`: a list of {pool, arm, perplexity, se, p, change, change_interval, kept_in_domain},
one for each way to select and pool: the perplexity after fine-tuning on what it kept and its
standard error, the p of the paired test against this learner, how far it is above this learner's
(a share, and 95 % over seeds and test documents), the share of objective text in what it kept, and
the perplexity of each of the `seeds`; null where there is none. It is asked for where the learner
was tried in fine-tuning.
"""

from __future__ import annotations

import shlex
from typing import Any

from secondary_learners.cards.card import EVERY, Card, Data, Result

__all__ = ["CARD", "SECTIONS"]

SECTIONS = (*EVERY, "what it looks for", "energy and CO₂")
_NEEDED = ("interval", "within", "domain_variance", "keep_rate")


def _tags(config: Data) -> list[str]:
    return ["information-gain-filtration", "data-selection", config["architecture"]]


def _results(config: Data, evaluation: Data) -> list[Result]:
    """Held-out rank correlation, and perplexity of every run."""
    objective, held_out = config["objective"]["domain"], evaluation["held_out"]
    results = [
        Result(
            *("text-ranking", config["corpus"]["name"], "unseen documents", "spearmanr"),
            round(held_out[config["architecture"]]["spearman"], 4),
            "Spearman correlation of scores with measured gains",
        )
    ]
    comparison: Data = evaluation.get("fine_tuning") or {"rows": ()}
    for row in comparison["rows"]:
        results.append(
            Result(
                *("text-generation", objective, "unseen documents", "perplexity"),
                round(row["perplexity"], 2),
                f"Perplexity after {comparison['settings']['updates']} updates, {row['arm']}, "
                f"{comparison['seeds']} seeds",
            )
        )
    return results


def _values(config: Data, evaluation: Data) -> dict[str, Any]:
    base, meant = config["base_model"]["repo"], config["tokenizer"]["repo"]
    trainable = config["labels"].get("trainable", "all")
    return {
        "stand_in": None if base == meant else evaluation.get("stand_in") or {},
        "command_for_tokenizer": _with_base(evaluation["command"], meant),
        "moved": []
        if trainable == "all"
        else [trainable]
        if isinstance(trainable, str)
        else trainable,
    }


def _with_base(command: str, base: str) -> str:
    """The command that made a learner, for another base model."""
    words = shlex.split(command)
    if words[:2] != ["learners", "run"]:  # labels and fit by themselves
        words = ["learners", "run", "recipe.toml"]
    if "--base" in words:
        at = words.index("--base")
        del words[at : at + 2]
    words = [word for word in words if not word.startswith("--base=")]
    return shlex.join([*words, "--base", base])


def _missing(config: Data, evaluation: Data) -> list[str]:
    if evaluation.get("format", 1) < 2:
        return []
    figures = evaluation["held_out"][config["architecture"]]
    missing = [f"held_out.{config['architecture']}.{key}" for key in _NEEDED if key not in figures]
    tried = evaluation.get("fine_tuning") and not evaluation.get("selectors")
    return missing + (["selectors"] if tried else [])


CARD = Card(
    template="learner.md",
    task="text-ranking",
    tags=_tags,
    results=_results,
    values=_values,
    missing=_missing,
    sections=SECTIONS,
)
