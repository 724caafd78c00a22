"""A recipe's text, dealt by whole documents to its four uses and cut into contexts."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from secondary_learners.errors import CorpusError
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.recipes.sources import portable_names
from secondary_learners.registry.load import locate
from secondary_learners.text.contexts import cut, mixture, split_documents
from secondary_learners.text.corpus import Document, read_documents
from secondary_learners.text.instructions import Group, read_groups
from secondary_learners.text.sequences import Examples, encode

__all__ = [
    "FinetuningData",
    "LabellingData",
    "Splits",
    "finetuning_data",
    "fresh_data",
    "labelling_data",
    "learner_recipe",
    "portable",
    "read_splits",
    "unseen_pool",
]

log = logging.getLogger(__name__)

Splits = dict[str, list[Document | Group]]


@dataclass(frozen=True)
class LabellingData:
    """objective: contexts whose loss is to fall. candidates: the mixture that is labeled.

    pool: more of that mixture, not labeled; None where the labels are against nothing.
    """

    objective: Examples
    candidates: Examples
    pool: Examples | None = None


@dataclass(frozen=True)
class FinetuningData:
    """stream: the mixture to draw from. test: contexts of the objective's domain."""

    stream: Examples
    test: Examples


def read_splits(recipe: LearnerRecipe, corpus: Path | None) -> Splits:
    """The recipe's documents, dealt to the names of `Shares`; raises CorpusError for too few."""
    documents: list[Document | Group]
    if recipe.instructions:
        columns = recipe.instructions.prompt, recipe.instructions.completion
        documents = [*read_groups(recipe.sources, corpus, columns)]
    else:
        documents = [*read_documents(recipe.sources, corpus)]
    splits: Splits = split_documents(documents, asdict(recipe.split), seed=recipe.seed)
    for name, part in splits.items():
        if not any(document.domain == recipe.objective_domain for document in part):
            raise CorpusError(
                f"too few documents of {recipe.objective_domain!r}: none was left for {name!r}. "
                "Add text: each of the four uses needs documents of its own."
            )
    return splits


def labelling_data(recipe: LearnerRecipe, splits: Splits, tokenizer: Any) -> LabellingData:
    """What is labelled, and on what; documents apart from those of `finetuning_data`."""
    objective = _inside(recipe, splits["objective"], tokenizer, recipe.labels.objective_contexts)
    return _labelled(recipe, objective, splits["labels"], tokenizer, recipe.labels.contexts)


def finetuning_data(recipe: LearnerRecipe, splits: Splits, tokenizer: Any) -> FinetuningData:
    """What fine-tuning draws from and is tested on: documents that no label was made of."""
    return FinetuningData(
        stream=_mixed(recipe, splits["stream"], tokenizer, None),
        test=_inside(recipe, splits["test"], tokenizer, recipe.evaluation.test_contexts),
    )


def unseen_pool(
    recipe: LearnerRecipe, splits: Splits, tokenizer: Any, corpus: Path | None
) -> Examples | None:
    """The stream's objective text among that of the recipe's `unseen` sources, if it has any."""
    if not recipe.unseen or recipe.instructions:
        return None
    inside = [one for one in splits["stream"] if one.domain == recipe.objective_domain]
    return _mixed(recipe, [*inside, *read_documents(recipe.unseen, corpus)], tokenizer, None)


def fresh_data(
    recipe: LearnerRecipe, splits: Splits, tokenizer: Any, contexts: int, *, seed: int = 0
) -> LabellingData:
    """The objective, and a mixture of documents that no label was made of nor any model tuned on.

    Contexts of the recipe's own length and share; fewer than asked for where the text is short.
    seed: of the sample.
    """
    objective = _inside(recipe, splits["objective"], tokenizer, recipe.labels.objective_contexts)
    sampled = replace(recipe, seed=seed)
    return _labelled(sampled, objective, splits["test"], tokenizer, contexts)


def _labelled(
    recipe: LearnerRecipe,
    objective: Examples,
    documents: Sequence[Document | Group],
    tokenizer: Any,
    contexts: int,
) -> LabellingData:
    """`contexts` of the mixture to label, and as many more as the labels are against."""
    more = recipe.labels.pool_contexts
    both = _mixed(recipe, documents, tokenizer, contexts + more)
    if not more:
        return LabellingData(objective, both)
    more = len(both) * more // (contexts + more)  # a share of them, should the text be short
    places = np.arange(len(both))
    return LabellingData(objective, both.select(places[:-more]), both.select(places[-more:]))


def _cut(recipe: LearnerRecipe, documents: Sequence[Document | Group], tokenizer: Any) -> Examples:
    plan = recipe.instructions
    if plan is None:
        texts = [document for document in documents if isinstance(document, Document)]
        return cut(texts, tokenizer, recipe.context_length)
    groups = [group for group in documents if isinstance(group, Group)]
    domains = tuple(sorted({group.domain for group in groups}))
    members = [(number, one) for number, group in enumerate(groups) for one in group.instructions]
    return encode(
        [one for _, one in members],
        tokenizer,
        document=[number for number, _ in members],
        domain=[domains.index(groups[number].domain) for number, _ in members],
        domains=domains,
        longest=recipe.context_length,
        truncate=plan.truncate,
    )


def _inside(
    recipe: LearnerRecipe, documents: Sequence[Document | Group], tokenizer: Any, most: int
) -> Examples:
    domain = recipe.objective_domain
    inside = [document for document in documents if document.domain == domain]
    contexts = _cut(recipe, inside, tokenizer)
    count = min(most, len(contexts))
    return mixture(contexts, count, domain=domain, share=1.0, seed=recipe.seed)


def _mixed(
    recipe: LearnerRecipe, documents: Sequence[Document | Group], tokenizer: Any, most: int | None
) -> Examples:
    contexts = _cut(recipe, documents, tokenizer)
    domain, share = recipe.objective_domain, recipe.in_domain_share
    available = mixture(contexts, None, domain=domain, share=share, seed=recipe.seed)
    if most is None:
        return available
    if most > len(available):
        log.warning(
            "the text holds %d of the %d contexts asked for (%d %% from %s): using these",
            *(len(available), most, round(100 * share), domain),
        )
        return available
    return mixture(contexts, most, domain=domain, share=share, seed=recipe.seed)


def learner_recipe(
    learner: str | Path, objective: Path | None = None, pool: Path | None = None
) -> LearnerRecipe:
    """The recorded recipe of a learner, or given own text, its choices with that text.

    Raises what `load_learner` raises, and RecipeError.
    """
    located = locate(learner, kind="learner")
    located.read("recipe.toml")  # compares its digest
    recipe = find_recipe(str(located.folder / "recipe.toml"))
    config = LearnerConfig.from_dict(json.loads(located.read("config.json")))
    return recipe.on_text(objective, pool, context_length=config.context_length)


def portable(recipe: LearnerRecipe) -> LearnerRecipe:
    """`recipe` as it is published: own text by its name, below a corpus folder, not by its path."""
    both = (*recipe.sources, *recipe.unseen)
    names = portable_names(source.files for source in both if source.files)
    sources, unseen = (
        tuple(replace(source, files=names.get(source.files or "", source.files)) for source in some)
        for some in (recipe.sources, recipe.unseen)
    )
    return replace(recipe, sources=sources, unseen=unseen)
