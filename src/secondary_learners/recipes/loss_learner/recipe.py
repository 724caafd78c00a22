"""The record of a recipe for a learner of training losses, and its comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

from secondary_learners.errors import RecipeError
from secondary_learners.experiments.multistage import StagedSettings
from secondary_learners.recipes.gain_learner.recipe import LearnerPlan
from secondary_learners.recipes.record import Record, above_zero, check_name
from secondary_learners.text.corpus import Source

__all__ = ["RECIPE", "LossPlan", "MultistageRecipe"]


@dataclass(frozen=True)
class LossPlan:
    """How the losses are had that a learner of losses is fitted on.

    share: of the training examples that train a classifier, for `epochs`; as many others then get
    their losses from it. What is left is for the comparison.
    """

    share: float = 0.25
    epochs: int = 1
    seed: int = 1000
    counts: str = "sqrt"
    bigrams: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 0.5:
            raise RecipeError(
                f"share is {self.share}, and must lie between 0 and 0.5: twice that share of the "
                "examples makes the learner, and the comparison needs the rest."
            )
        above_zero(epochs=self.epochs)
        LearnerPlan(counts=self.counts, bigrams=self.bigrams)


@dataclass(frozen=True)
class MultistageRecipe(Record):
    """All that determines a learner of training losses, and multistage filtering with it.

    name: of the learner. sources: one, the files train.tsv and dev.tsv of a task that goes by the
    source's domain, or one file with both; see `read_task`. epochs, seeds: of the comparison;
    no seeds leave it out.
    """

    name: str
    summary: str
    sources: tuple[Source, ...]
    kind: str = "multistage"
    base: str = "mini"
    license: str = "apache-2.0"
    attribution: str = ""
    language: str = ""
    epochs: int = 1
    seeds: int = 3
    losses: LossPlan = field(default_factory=LossPlan)
    settings: StagedSettings = field(default_factory=StagedSettings)

    WHAT = "a learner of training losses"
    OPTIONS = frozenset(("base", "license", "seeds"))

    def __post_init__(self) -> None:
        check_name(self.name)
        above_zero(epochs=self.epochs)
        if len(self.sources) != 1 or self.sources[0].files is None:
            raise RecipeError(
                f"recipe {self.name!r}: one source with `files` is needed, the train.tsv and "
                "dev.tsv of a task, or one .tsv file."
            )

    @property
    def task(self) -> str:
        return self.sources[0].domain


RECIPE = MultistageRecipe
