"""The base model that a learner's recipe names: loaded, checked, and recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.artifacts.checks import read_json
from secondary_learners.errors import IncompatibleError
from secondary_learners.gains.fingerprints import embedding_fingerprint
from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.learners.config import Reference
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.provenance import base_commit
from secondary_learners.registry.load import load_base
from secondary_learners.registry.references import FolderReference, parse_reference

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "base_reference",
    "load_recipe_base",
    "published_base",
    "stand_in_facts",
    "tokenizer_reference",
]


def load_recipe_base(recipe: LearnerRecipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`load_base`; raises IncompatibleError for another tokenizer than the recipe is for."""
    model, tokenizer = load_base(recipe.base)
    wanted, fingerprint = recipe.tokenizer, tokenizer_fingerprint(tokenizer)
    if wanted is not None and fingerprint != wanted.fingerprint:
        raise IncompatibleError(
            f"the recipe {recipe.name!r} is for token ids of {wanted.repo} (vocabulary "
            f"{wanted.fingerprint}), and the vocabulary of {recipe.base} is {fingerprint}. "
            f"Give a --base with the tokenizer of {wanted.repo}, or copy the recipe and leave out "
            "its [tokenizer]."
        )
    return model, tokenizer


def base_reference(recipe: LearnerRecipe, model: PreTrainedModel) -> Reference:
    """Where the labels came from. A folder that stands in for a model goes by its own name."""
    commit = base_commit(model)
    base = recipe.base.partition("@")[0] if commit else recipe.base  # the commit says it better
    if _stand_in_folder(recipe):
        base = Path(base).absolute().name
    return Reference(base, commit, embedding_fingerprint(model))


def tokenizer_reference(
    recipe: LearnerRecipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Reference:
    """Where the tokenizer is found: the one that the recipe names, else the base's own."""
    base = base_reference(recipe, model)
    fingerprint = tokenizer_fingerprint(tokenizer)
    if recipe.tokenizer is None or recipe.tokenizer.repo == base.repo:
        return Reference(base.repo, base.revision, fingerprint)
    return Reference(recipe.tokenizer.repo, None, fingerprint)


def stand_in_facts(recipe: LearnerRecipe, model: PreTrainedModel) -> dict[str, Any] | None:
    """How large a stand-in is, and how good, where its folder says so; None without one."""
    if recipe.tokenizer is None or recipe.tokenizer.repo == base_reference(recipe, model).repo:
        return None
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    path = Path(recipe.base) / "evaluation.json"
    if path.is_file():
        evaluation = read_json(path)
        names = ("held_out_loss", "tokens_seen")
        facts |= {
            name: evaluation[name]
            for name in names
            if isinstance(evaluation.get(name), int | float)
        }
    return facts


def published_base(recipe: LearnerRecipe) -> LearnerRecipe:
    """`recipe` without the path of this machine that a stand-in's folder has."""
    if not _stand_in_folder(recipe):
        return recipe
    return replace(recipe, base=f"./{Path(recipe.base).absolute().name}")


def _stand_in_folder(recipe: LearnerRecipe) -> bool:
    return recipe.tokenizer is not None and isinstance(
        parse_reference(recipe.base), FolderReference
    )
