"""The record of a recipe for a learner distilled from a teacher on published labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path

from secondary_learners.errors import RecipeError
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe, own_recipe
from secondary_learners.recipes.record import Record, above_zero, check_name
from secondary_learners.text.corpus import Source

__all__ = [
    "RECIPE",
    "SPLICED",
    "DistilledRecipe",
    "EmbeddingPlan",
    "PoolPlan",
    "PublishedLabels",
    "StudentPlan",
    "TeacherPlan",
]


@dataclass(frozen=True)
class PublishedLabels:
    """Labels that others measured and published, and what they say of how.

    file: an .npz in the corpus folder with `contexts` [n, length], `information_gain` [n],
        `perplexity` [n] (of each context, under the base model) and `row` [n].
    reported: rows below this number are for reporting and for nothing else. readings: how often
        they were read for it, in words for the card.
    source, commit, license: where the file is from. corpus: what its contexts are from.
    """

    file: str
    source: str
    commit: str
    license: str
    corpus: str
    objective_contexts: int
    readings: str
    reported: int = 512
    method: str = "exact"
    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    unit: str = "standardised perplexity, as published"

    def __post_init__(self) -> None:
        above_zero(reported=self.reported, learning_rate=self.learning_rate)


@dataclass(frozen=True)
class EmbeddingPlan:
    """Token embeddings from unlabelled text; see `token_embeddings`."""

    dimensions: int = 128
    neighbors: int = 4000
    labelled_weight: float = 3.0  # of a pair in a labelled context

    def __post_init__(self) -> None:
        above_zero(dimensions=self.dimensions, neighbors=self.neighbors)


@dataclass(frozen=True)
class TeacherPlan:
    """The kernel ridge regression, and the cross-validation of everything."""

    strength: float = 0.4
    folds: int = 5

    def __post_init__(self) -> None:
        above_zero(strength=self.strength, folds=self.folds - 1)


SPLICED = "spliced"  # a domain of the pool that is not text


@dataclass(frozen=True)
class PoolPlan:
    """Unlabelled contexts for the teacher: cut from text of a domain of the sources.

    The domain "spliced" is made of two labelled contexts each.
    """

    domain: str
    contexts: int

    def __post_init__(self) -> None:
        above_zero(contexts=self.contexts)


@dataclass(frozen=True)
class StudentPlan:
    """The net that ships, stored in float16, and its training; see `distil`."""

    embedding: int = 32
    channels: int = 128
    kernel: int = 3
    hidden: int = 32
    epochs: int = 3
    batch_size: int = 256
    learning_rate: float = 3e-3
    embedding_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        above_zero(**dataclasses.asdict(self))


@dataclass(frozen=True)
class DistilledRecipe(Record):
    """All that determines a learner distilled from a teacher on published labels.

    sources: unlabelled text, which is spelled as WikiText is. base, revision: the model that the
        labels were measured on. tokenizer: its file in the corpus folder, of tokenizers' format.
    """

    name: str
    summary: str
    base: str
    revision: str
    tokenizer: str
    labels: PublishedLabels
    sources: tuple[Source, ...]
    pool: tuple[PoolPlan, ...]
    kind: str = "distilled"
    license: str = "apache-2.0"
    attribution: str = ""
    language: str = ""
    seed: int = 0
    embeddings: EmbeddingPlan = field(default_factory=EmbeddingPlan)
    teacher: TeacherPlan = field(default_factory=TeacherPlan)
    student: StudentPlan = field(default_factory=StudentPlan)

    WHAT = "made from published labels"

    def on_text(
        self, objective: Path | None = None, pool: Path | None = None, *, context_length: int = 0
    ) -> LearnerRecipe:
        if objective is None or pool is None:
            raise RecipeError(
                f"{self.name} was made from published labels, so its recipe has no text of its "
                "own. Give --objective and --pool."
            )
        own = own_recipe("own", objective, pool)
        return replace(own, base=self.base, context_length=context_length)

    def __post_init__(self) -> None:
        check_name(self.name)
        domains = {source.domain for source in self.sources}
        for part in self.pool:
            if part.domain not in domains | {SPLICED}:
                raise RecipeError(
                    f"recipe {self.name!r}: the pool's domain {part.domain!r} is not one of its "
                    f"sources' ({', '.join(sorted(domains))}), nor {SPLICED!r}."
                )
        if self.student.embedding > self.embeddings.dimensions:
            raise RecipeError(
                f"recipe {self.name!r}: the student's embedding of {self.student.embedding} is "
                f"wider than the {self.embeddings.dimensions} dimensions that it begins from."
            )


RECIPE = DistilledRecipe
