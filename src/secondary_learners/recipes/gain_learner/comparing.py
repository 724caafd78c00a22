"""The comparison in fine-tuning that a recipe's evaluation plan asks for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from secondary_learners.errors import MissingExtraError, RecipeError
from secondary_learners.experiments.compare import Comparison, Settings, compare
from secondary_learners.filtering.thresholds import parse_threshold
from secondary_learners.learners.artifact import Learner
from secondary_learners.recipes.gain_learner.data import FinetuningData
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_length", "compare_plan", "plotted"]

log = logging.getLogger(__name__)


def compare_plan(
    recipe: LearnerRecipe,
    data: FinetuningData,
    learner: Learner,
    model: PreTrainedModel,
    folder: Path,
    run: Run,
) -> Comparison:
    """The equal-budget comparison of the recipe's evaluation plan, resumable in `folder`."""
    check_length(recipe, model)
    plan = recipe.evaluation
    return compare(
        model,
        data.stream,
        data.test,
        learner,
        thresholds=[parse_threshold(text) for text in plan.thresholds],
        seeds=range(plan.seeds),
        settings=Settings(
            updates=plan.updates, batch_size=plan.batch_size, learning_rate=plan.learning_rate
        ),
        in_domain=recipe.objective_domain,
        folder=folder,
        progress=run.progress,
        device=run.device,
    )


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
