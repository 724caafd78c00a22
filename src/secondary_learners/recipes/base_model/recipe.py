"""The record of a recipe for a small base model that is trained from text."""

from __future__ import annotations

from dataclasses import dataclass

from secondary_learners.errors import RecipeError
from secondary_learners.recipes.record import Record, check_name
from secondary_learners.text.corpus import Source

__all__ = ["RECIPE", "PretrainRecipe"]


@dataclass(frozen=True)
class PretrainRecipe(Record):
    """All that determines a small base model; sizes in tokens, rates per optimizer step.

    tokenizer: a file of the tokenizers library in the corpus folder, with `vocabulary` tokens; by
        default a byte-level BPE is trained on the sources.
    """

    name: str
    summary: str
    sources: tuple[Source, ...]
    kind: str = "base-model"
    license: str = "apache-2.0"
    attribution: str = ""
    language: str = ""
    vocabulary: int = 6144
    context_length: int = 128
    layers: int = 4
    width: int = 256
    heads: int = 4
    steps: int = 4000
    batch_size: int = 32
    matrix_learning_rate: float = 0.02
    other_learning_rate: float = 0.003
    held_out: float = 0.01
    held_out_tokens: int = 200_000
    mixed_precision: bool = True
    seed: int = 0
    tokenizer: str | None = None

    WHAT = "a base model"

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 257 <= self.vocabulary <= 65_536:
            raise RecipeError(
                f"recipe {self.name!r}: vocabulary {self.vocabulary} must lie between 257 (every "
                "byte and end-of-text) and 65,536 (ids of two bytes)."
            )


RECIPE = PretrainRecipe
