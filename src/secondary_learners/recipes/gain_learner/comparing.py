"""The comparison in fine-tuning that a recipe's evaluation plan asks for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.errors import MissingExtraError, RecipeError
from secondary_learners.experiments.compare import Comparison, Settings, compare
from secondary_learners.experiments.selectors import EVERYTHING, selector_arms
from secondary_learners.filtering.thresholds import parse_threshold
from secondary_learners.learners.artifact import Learner
from secondary_learners.recipes.gain_learner.data import LabellingData
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.run import Run
from secondary_learners.text.sequences import Examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["OWN", "UNSEEN", "check_length", "compare_plan", "plotted", "selector_rows"]

OWN, UNSEEN = "own", "unseen"

log = logging.getLogger(__name__)


def compare_plan(
    recipe: LearnerRecipe,
    pools: Mapping[str, Examples],
    test: Examples,
    text: LabellingData | None,
    learner: Learner,
    base: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    folder: Path,
    run: Run,
) -> dict[str, Comparison]:
    """The equal-budget comparison of the recipe's evaluation plan on each pool, by its name.

    Resumable in `folder`, where the runs on `OWN` are, and the others each in a folder inside.
    text: what the labels were made of, which is what other ways to select know; None without any.
    """
    model, tokenizer = base
    check_length(recipe, model)
    plan = recipe.evaluation
    selectors = {}
    if text is not None:
        names = [name for name in plan.against if name != EVERYTHING]
        known = {"objective": text.objective, "pool": text.candidates}
        selectors = selector_arms(names, model, tokenizer, **known, seed=recipe.seed)
    return {
        name: compare(
            model,
            pool,
            test,
            learner,
            thresholds=[parse_threshold(threshold) for threshold in plan.thresholds],
            seeds=range(plan.seeds),
            settings=Settings(
                updates=plan.updates,
                batch_size=plan.batch_size,
                learning_rate=plan.learning_rate,
                evaluate_every=plan.evaluate_every,
                trainable=plan.trainable,
                precision=plan.precision,
            ),
            in_domain=recipe.objective_domain,
            selectors=selectors,
            everything=EVERYTHING in plan.against,
            folder=folder if name == OWN else folder / name,
            progress=run.progress,
            device=run.device,
        )
        for name, pool in pools.items()
    }


def selector_rows(comparisons: Mapping[str, Comparison]) -> list[dict[str, Any]]:
    """The arms of each pool as evaluation.json has them; see `cards.learner`."""
    return [
        {
            "pool": pool,
            "arm": row.arm,
            "perplexity": row.perplexity,
            "se": row.error,
            "p": row.p_filter,
            "change": row.change,
            "change_interval": row.change_interval,
            "kept_in_domain": row.in_domain,
            "seeds": [run.perplexity for run in comparison.of(arm)],
        }
        for pool, comparison in comparisons.items()
        for arm, row in zip(comparison.arms, comparison.rows(), strict=True)
    ]


def check_length(recipe: LearnerRecipe, model: PreTrainedModel) -> None:
    """Raise RecipeError unless `model` can read contexts as long as the recipe's."""
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and recipe.context_length > most:
        raise RecipeError(
            f"contexts of {recipe.context_length} tokens are longer than {recipe.base!r} can read "
            f"({most}). Try --context-length {most}, or less."
        )


def plotted(comparison: Comparison, path: Path) -> bool:
    """Whether the comparison could be drawn at `path`: matplotlib is an extra."""
    from secondary_learners.experiments.comparison_figure import plot_comparison

    try:
        plot_comparison(comparison, path)
    except MissingExtraError as error:
        log.warning("no plot: %s", error)
        return False
    return True
