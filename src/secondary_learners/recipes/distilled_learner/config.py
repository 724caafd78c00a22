"""The config.json of a distilled learner."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import torch
from tokenizers import Tokenizer

from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.learners.config import Calibration, LearnerConfig, Reference, Score
from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
from secondary_learners.recipes.distilled_learner.stages import Data, Floats
from secondary_learners.recipes.sources import describe_sources

__all__ = ["learner_config"]


def learner_config(
    recipe: DistilledRecipe,
    data: Data,
    raw: Floats,
    tokenizer: Tokenizer,
    text: str,
) -> LearnerConfig:
    """What the learner is; raw: its predictions out of fold [n]. text: the digest of the text."""
    published, labels = data.published, data.labels
    plan, student = recipe.labels, recipe.student
    return LearnerConfig(
        name=recipe.name,
        architecture="conv",
        sizes={
            "vocabulary": tokenizer.get_vocab_size(),
            "embedding": student.embedding,
            "channels": student.channels,
            "kernel": student.kernel,
            "hidden": student.hidden,
        },
        score=Score(labels.mean, labels.sd, plan.unit),
        calibration=Calibration(
            mean=float(raw.mean()),
            sd=float(raw.std()),
            quantiles=tuple(
                np.maximum.accumulate(np.quantile(raw, np.linspace(0, 1, 101))).tolist()
            ),
        ),
        context_length=published.fitted.input_ids.shape[1],
        # The weights themselves are never seen here, and so have no fingerprint.
        base_model=Reference(recipe.base, recipe.revision, "unknown"),
        tokenizer=Reference(recipe.base, recipe.revision, tokenizer_fingerprint(tokenizer)),
        objective={
            "domain": plan.corpus,
            "contexts": plan.objective_contexts,
            "digest": published.digest,
        },
        corpus={
            "name": plan.corpus,
            "description": f"{plan.corpus}, as published; unlabelled text: "
            + describe_sources(recipe.sources),
            "in_domain_share": 1.0,
            "digest": text,
        },
        optimizer={"name": plan.optimizer, "learning_rate": plan.learning_rate},
        labels={
            "count": len(labels.fitted),
            "reported": len(labels.reported),
            "method": plan.method,
            "spearman_with_exact": None,
            "source": plan.source,
            "commit": plan.commit,
            "license": plan.license,
        },
        versions={
            "secondary-learners": version("secondary-learners"),
            "torch": torch.__version__,
            "tokenizers": version("tokenizers"),
            "python": platform.python_version(),
        },
    )
