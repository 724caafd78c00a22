"""The record of a recipe for a delta."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from secondary_learners.deltas.settings import Tuning
from secondary_learners.errors import RecipeError
from secondary_learners.recipes.record import Record, above_zero, check_name

__all__ = ["RECIPE", "DeltaRecipe"]


@dataclass(frozen=True, kw_only=True)
class DeltaRecipe(Record):
    """All that determines a delta.

    train, test: TSV files, see `read_examples`. examples: to train on, 0 for all of the file.
    max_length: in tokens. stored: the type of changed weights. language: as of a learner.
    """

    name: str
    task: str
    summary: str = ""
    kind: str = "delta"
    license: str = "unknown"
    attribution: str = ""
    language: str = ""
    base: str = "mini"
    train: str
    test: str
    examples: int = 0
    max_length: int = 128
    stored: Literal["bfloat16", "float16", "float32"] = "float16"
    seed: int = 0
    tuning: Tuning = field(default_factory=Tuning)

    WHAT = "a delta"

    def __post_init__(self) -> None:
        check_name(self.name)
        above_zero(max_length=self.max_length)
        if self.examples < 0:
            raise RecipeError(f"examples is {self.examples}, and must be 0 (all of them) or more.")


RECIPE = DeltaRecipe
