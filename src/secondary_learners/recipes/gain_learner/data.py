"""A recipe's text, dealt by whole documents to its four uses and cut into contexts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from secondary_learners.errors import CorpusError, RecipeError
from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
from secondary_learners.recipes.gain_learner.recipe import (
    EvaluationPlan,
    InstructionPlan,
    LabelPlan,
    LearnerRecipe,
)
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.registry.load import load_learner, locate
from secondary_learners.text.contexts import Contexts, cut, mixture, split_documents
from secondary_learners.text.corpus import Document, Source, read_documents
from secondary_learners.text.examples import Examples, encode
from secondary_learners.text.instructions import Group, read_groups

__all__ = [
    "FinetuningData",
    "LabellingData",
    "Splits",
    "describe_sources",
    "finetuning_data",
    "fresh_data",
    "labelling_data",
    "learner_recipe",
    "own_recipe",
    "portable",
    "portable_names",
    "read_splits",
]

log = logging.getLogger(__name__)
OBJECTIVE, POOL = "objective", "pool"
_LONGEST = 128  # tokens of an example, unless --context-length says otherwise

Splits = dict[str, list[Document | Group]]


@dataclass(frozen=True)
class LabellingData:
    """objective: contexts whose loss is to fall. candidates: the mixture that is labelled."""

    objective: Contexts | Examples
    candidates: Contexts | Examples


@dataclass(frozen=True)
class FinetuningData:
    """stream: the mixture to draw from. test: contexts of the objective's domain."""

    stream: Contexts | Examples
    test: Contexts | Examples


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
    return LabellingData(
        objective=_inside(recipe, splits["objective"], tokenizer, recipe.labels.objective_contexts),
        candidates=_mixed(recipe, splits["labels"], tokenizer, recipe.labels.contexts),
    )


def finetuning_data(recipe: LearnerRecipe, splits: Splits, tokenizer: Any) -> FinetuningData:
    """What fine-tuning draws from and is tested on: documents that no label was made of."""
    return FinetuningData(
        stream=_mixed(recipe, splits["stream"], tokenizer, None),
        test=_inside(recipe, splits["test"], tokenizer, recipe.evaluation.test_contexts),
    )


def fresh_data(
    recipe: LearnerRecipe, splits: Splits, tokenizer: Any, contexts: int, *, seed: int = 0
) -> LabellingData:
    """The objective, and a mixture of documents that no label was made of nor any model tuned on.

    Contexts of the recipe's own length and share; fewer than asked for where the text is short.
    seed: of the sample.
    """
    return LabellingData(
        objective=_inside(recipe, splits["objective"], tokenizer, recipe.labels.objective_contexts),
        candidates=_mixed(replace(recipe, seed=seed), splits["test"], tokenizer, contexts),
    )


def _cut(
    recipe: LearnerRecipe, documents: Sequence[Document | Group], tokenizer: Any
) -> Contexts | Examples:
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
) -> Contexts | Examples:
    domain = recipe.objective_domain
    inside = [document for document in documents if document.domain == domain]
    contexts = _cut(recipe, inside, tokenizer)
    count = min(most, len(contexts))
    return mixture(contexts, count, domain=domain, share=1.0, seed=recipe.seed)


def _mixed(
    recipe: LearnerRecipe, documents: Sequence[Document | Group], tokenizer: Any, most: int | None
) -> Contexts | Examples:
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


def own_recipe(
    name: str, objective: Path, pool: Path, instructions: InstructionPlan | None = None
) -> LearnerRecipe:
    """The recipe for a user's own text: a file or folder to get better at, one to choose from.

    With `instructions` both hold prompts and completions, a row each, instead of running text;
    their labels are per-example ones, as swapped ones favour short completions.
    Long files are divided at blank lines into documents of a few thousand characters, so that one
    file is enough. It is not tried in fine-tuning unless `evaluation.seeds` is raised.
    """
    sources = tuple(
        Source(domain, files=str(path.absolute()), block_characters=2000)
        for domain, path in ((OBJECTIVE, objective), (POOL, pool))
    )
    return LearnerRecipe(
        name=name,
        summary=f"Made from {objective.name} and {pool.name}.",
        objective_domain=OBJECTIVE,
        sources=sources,
        license="unknown",  # only its maker can say, and publishing asks
        evaluation=EvaluationPlan(seeds=0),
        context_length=_LONGEST if instructions else LearnerRecipe.context_length,
        instructions=instructions,
        labels=LabelPlan(method="per-example") if instructions else LabelPlan(),
    )


def learner_recipe(
    learner: str | Path, objective: Path | None = None, pool: Path | None = None
) -> LearnerRecipe:
    """The recorded recipe of a learner, or given own text, its choices with that text.

    The own text is split as the learner's was, so that what it was made from stays apart. Raises
    what `load_learner` raises, and RecipeError.
    """
    found = locate(learner, kind="learner")
    found.read("recipe.toml")  # compares its digest
    recipe = find_recipe(str(found.folder / "recipe.toml"))
    if not isinstance(recipe, LearnerRecipe | DistilledRecipe):
        raise RecipeError(
            f"{recipe.name} does not predict information gain (its recipe is of the kind "
            f"{recipe.kind!r}), so it is not tried on text. Try `learners show {recipe.name}`."
        )
    if objective is None or pool is None:
        if isinstance(recipe, LearnerRecipe):
            return recipe
        raise RecipeError(
            f"{recipe.name} was made from published labels, so its recipe has no text of its own. "
            "Give --objective and --pool."
        )
    if not isinstance(recipe, LearnerRecipe):
        config = load_learner(learner).config
        own = own_recipe("own", objective, pool)
        return replace(own, base=config.base_model.repo, context_length=config.context_length)
    return replace(
        own_recipe("own", objective, pool, recipe.instructions),
        base=recipe.base,
        context_length=recipe.context_length,
        seed=recipe.seed,
        split=recipe.split,
        in_domain_share=recipe.in_domain_share,
        labels=recipe.labels,
    )


def portable(recipe: LearnerRecipe) -> LearnerRecipe:
    """`recipe` as it is published: own text by its name, below a corpus folder, not by its path."""
    names = portable_names(source.files for source in recipe.sources if source.files)
    sources = tuple(
        replace(source, files=names.get(source.files or "", source.files))
        for source in recipe.sources
    )
    return replace(recipe, sources=sources)


def portable_names(files: Iterable[str]) -> dict[str, str]:
    """For each absolute path its name, by which it is found below a corpus folder.

    Two files of the same name keep as much of their folders as tells them apart.
    """
    own = {name: Path(name) for name in files if Path(name).is_absolute()}
    names: dict[str, str] = {}
    for name, path in own.items():
        others = [other for other in own.values() if other != path]
        parts = path.parts[1:]
        kept = 1
        while kept < len(parts) and any(o.parts[-kept:] == parts[-kept:] for o in others):
            kept += 1
        names[name] = "/".join(parts[-kept:])
    return names


def describe_sources(sources: tuple[Source, ...]) -> str:
    """One line for a card: each domain and where its text comes from."""
    return "; ".join(
        f"{source.domain} ({source.builtin or source.dataset or source.files})"
        for source in sources
    )
