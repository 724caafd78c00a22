"""The config.json of a learner of information gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from secondary_learners.gains.store import Labels
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.learners.fitting import Fit
from secondary_learners.recipes.gain_learner.bases import base_reference, tokenizer_reference
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.provenance import versions
from secondary_learners.recipes.sources import corpus_name, describe_sources

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["learner_config"]

# Of labels that look further than a step; "against" are the digests of the pools.
_LONGER = ("horizon", "repeats", "update_batch", "horizon_learning_rate", "combine", "against")


def learner_config(
    recipe: LearnerRecipe,
    labels: Labels,
    chosen: Fit,
    architecture: str,
    base: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> LearnerConfig:
    """What the learner is and where it comes from; base: the model and its tokenizer."""
    (model, tokenizer), facts = base, labels.facts
    subset = facts.get("trainable")
    # Left out where it is float32, as it was before there was a choice: the same bytes as then.
    lower = {k: v for k, v in facts.items() if k == "precision" and v != "float32"}
    return LearnerConfig(
        name=recipe.name,
        architecture=architecture,
        sizes=chosen.sizes,
        score=chosen.score,
        calibration=chosen.calibration,
        context_length=recipe.context_length,
        base_model=base_reference(recipe, model),
        tokenizer=tokenizer_reference(recipe, model, tokenizer),
        objective={
            "domain": recipe.objective_domain,
            "contexts": facts["objective_contexts"],
            "digest": facts["objective"],
        },
        corpus={
            "name": corpus_name(recipe.sources),
            "description": describe_sources(recipe.sources),
            "in_domain_share": recipe.in_domain_share,
            "digest": facts["contexts"],
            **_reading(recipe, facts),
        },
        optimizer={
            "name": facts["optimizer"],
            "learning_rate": facts["learning_rate"],
            "eps": facts["eps"],
            "weight_decay": 0.0,
        },
        labels={
            "count": facts["count"],
            "method": facts["method"],
            "spearman_with_exact": facts["spearman_with_exact"],
            "exact_count": facts["exact_count"],
            "model_fingerprint": facts["model_fingerprint"],
            "seed": facts["seed"],
            **({"trainable": subset} if subset is not None else {}),
            **lower,
            **{name: facts[name] for name in _LONGER if name in facts},
        },
        versions=versions(),
    )


def _reading(recipe: LearnerRecipe, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of instructions, what the learner reads and was calibrated on; nothing for running text."""
    if recipe.instructions is None:
        return {}
    return {
        "format": "instructions",
        **asdict(recipe.instructions),
        # A filter in a trainer sees token ids, and no mask that tells the completion from them.
        "learner_reads": "prompt and completion",
        "examples": facts["examples"],
    }
