"""The record of a recipe for a learner of information gain."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from secondary_learners.errors import RecipeError
from secondary_learners.filtering.thresholds import parse_threshold
from secondary_learners.gains.methods import METHODS
from secondary_learners.gains.subsets import check_trainable
from secondary_learners.learners.architectures import ARCHITECTURES
from secondary_learners.recipes.record import Record, above_zero, check_name, one_of
from secondary_learners.text.corpus import Source
from secondary_learners.text.instructions import COLUMNS, TRUNCATIONS

__all__ = [
    "RECIPE",
    "EvaluationPlan",
    "InstructionPlan",
    "LabelPlan",
    "LearnerPlan",
    "LearnerRecipe",
    "Shares",
    "TokenizerPlan",
    "own_recipe",
]


# As `experiments.selectors` has them, which loads torch.
_FITTED = ("classifier", "dsir")  # on the objective against a pool
AGAINST = (*_FITTED, "perplexity", "middle-perplexity", "length", "everything")
_PRECISIONS = ("float32", "tf32", "bfloat16")  # as `gains.precision` has them


@dataclass(frozen=True)
class Shares:
    """How the text of each domain is dealt, by whole documents, to the four uses."""

    objective: float = 0.1
    labels: float = 0.4
    stream: float = 0.4
    test: float = 0.1

    def __post_init__(self) -> None:
        above_zero(**dataclasses.asdict(self))


@dataclass(frozen=True)
class LabelPlan:
    """How gains are measured; see `information_gain`.

    trainable: a word or a list of names. against_contexts: how many candidates are not labeled, but
        are the pool that a contrast or a selector holds the objective against; with 0, half as
        many as are labeled where the method or `combine` needs a pool, and none elsewhere.
    """

    method: str = "swapped"
    contexts: int = 3000
    objective_contexts: int = 160
    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    unit: str = "nats"
    exact: int = 64
    trainable: str | tuple[str, ...] | None = None
    precision: str = "float32"
    horizon: int = 1
    repeats: int = 1
    update_batch: int = 16
    horizon_learning_rate: float | None = None
    against_contexts: int = 0
    combine: dict[str, float] = field(default_factory=dict)

    @property
    def pool_contexts(self) -> int:
        """Candidates that are not labeled, but held against the objective."""
        needing = {self.method, *self.combine} & {"contrast", *_FITTED}
        return self.against_contexts or (self.contexts // 2 if needing else 0)

    def __post_init__(self) -> None:
        above_zero(
            contexts=self.contexts,
            objective_contexts=self.objective_contexts,
            learning_rate=self.learning_rate,
            horizon=self.horizon,
            repeats=self.repeats,
            update_batch=self.update_batch,
        )
        if self.horizon_learning_rate is not None:
            above_zero(horizon_learning_rate=self.horizon_learning_rate)
        if self.against_contexts < 0:
            raise RecipeError(f"against_contexts is {self.against_contexts}: it must be 0 or more.")
        one_of("method", self.method, tuple(METHODS))
        one_of("optimizer", self.optimizer, ("adamw", "sgd"))
        one_of("unit", self.unit, ("nats", "perplexity"))
        check_trainable(self.trainable)
        one_of("precision", self.precision, _PRECISIONS)
        if (self.precision, self.method) == ("bfloat16", "per-example"):
            raise RecipeError(
                "per-example labels are not computed in bfloat16. Try float32 or tf32."
            )


@dataclass(frozen=True)
class LearnerPlan:
    """Which learners are fitted; the best on held-out documents is packaged.

    embedding: the width of the conv learner's own, by default `fit_conv`'s.
    """

    architectures: tuple[str, ...] = ("linear",)
    counts: str = "sqrt"
    bigrams: int = 0
    embedding: int | None = None

    def __post_init__(self) -> None:
        if not self.architectures:
            raise RecipeError("architectures is empty: name linear, conv or both.")
        for architecture in self.architectures:
            one_of("architectures", architecture, tuple(sorted(ARCHITECTURES)))
        one_of("counts", self.counts, ("frequency", "sqrt"))
        if self.bigrams < 0 or self.bigrams & (self.bigrams - 1):
            raise RecipeError(f"bigrams is {self.bigrams}: it must be 0 or a power of two.")
        if self.embedding is not None:
            above_zero(embedding=self.embedding)


@dataclass(frozen=True)
class EvaluationPlan:
    """The equal-budget comparison; `seeds` 0 leaves it out.

    against: other ways to select, each an arm at the filter's own draws; see `selector_arms`, and
        "everything". trainable, precision, evaluate_every: of a run, see `Settings`.
    """

    seeds: int = 5
    updates: int = 60
    batch_size: int = 16
    learning_rate: float = 2e-4
    thresholds: tuple[str, ...] = ("1",)
    test_contexts: int = 500
    against: tuple[str, ...] = ()
    trainable: str | None = None
    precision: str = "float32"
    evaluate_every: int = 10

    def __post_init__(self) -> None:
        above_zero(
            updates=self.updates,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            test_contexts=self.test_contexts,
            evaluate_every=self.evaluate_every,
        )
        check_trainable(self.trainable)
        one_of("precision", self.precision, _PRECISIONS)
        for name in self.against:
            one_of("against", name, AGAINST)
        for threshold in self.thresholds:
            parse_threshold(threshold)


@dataclass(frozen=True)
class TokenizerPlan:
    """Whose token ids a learner reads: any base with that vocabulary can make its labels.

    repo: the model that the tokenizer is known by. fingerprint: see `tokenizer_fingerprint`.
    """

    repo: str
    fingerprint: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.fingerprint):
            raise RecipeError(f"fingerprint {self.fingerprint!r} is not a sha256 of 64 hex digits.")


@dataclass(frozen=True)
class InstructionPlan:
    """The sources hold prompts and completions, in these columns, or chat `messages`.

    What is labelled is then the loss of the completion alone; see `Examples`. truncate: how
    examples of more than the recipe's `context_length` tokens are shortened; see `encode`.
    """

    prompt: str = COLUMNS[0]
    completion: str = COLUMNS[1]
    truncate: str = "left"

    def __post_init__(self) -> None:
        if not self.prompt or not self.completion or self.prompt == self.completion:
            raise RecipeError(
                f"the columns {self.prompt!r} and {self.completion!r} must be two names."
            )
        one_of("truncate", self.truncate, TRUNCATIONS)


_LABEL_OPTIONS = frozenset(field.name for field in dataclasses.fields(LabelPlan))


@dataclass(frozen=True)
class LearnerRecipe(Record):
    """All that determines a learner: sources, base, objective, labels, learner, evaluation.

    context_length: tokens of a context; of instructions, the most that an example may have.
    instructions: None for running text.
    language: of the text, for the card: a code such as "en", or "" when it is not known.
    unseen: what the comparison draws from a second time beside the objective's domain, in place of
        the other sources: text that the learner was not made from, such as other genres.
    tokenizer: by default the base's own. With it a base of another name stands in for
        `tokenizer.repo`, and one with another vocabulary is refused.
    """

    name: str
    summary: str
    objective_domain: str
    sources: tuple[Source, ...]
    kind: str = "learner"
    base: str = "mini"
    license: str = "apache-2.0"
    attribution: str = ""
    language: str = ""
    context_length: int = 32
    in_domain_share: float = 0.3
    seed: int = 0
    split: Shares = field(default_factory=Shares)
    labels: LabelPlan = field(default_factory=LabelPlan)
    learner: LearnerPlan = field(default_factory=LearnerPlan)
    evaluation: EvaluationPlan = field(default_factory=EvaluationPlan)
    tokenizer: TokenizerPlan | None = None
    instructions: InstructionPlan | None = None
    unseen: tuple[Source, ...] = ()

    WHAT = "a learner of information gain"
    OPTIONS = _LABEL_OPTIONS | {"base", "context_length", "license", "seed", "seeds", "processes"}

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.context_length < 2:
            raise RecipeError(
                f"recipe {self.name!r}: context_length {self.context_length} is too short: the "
                "loss of a context needs at least 2 tokens."
            )
        domains = {source.domain for source in self.sources}
        if self.objective_domain not in domains:
            raise RecipeError(
                f"recipe {self.name!r}: objective_domain {self.objective_domain!r} is not one of "
                f"its sources' domains ({', '.join(sorted(domains))})."
            )
        if self.objective_domain in {source.domain for source in self.unseen}:
            raise RecipeError(
                f"recipe {self.name!r}: unseen names the objective's domain "
                f"{self.objective_domain!r}, whose unseen text is there anyway. Name others."
            )
        if not 0 < self.in_domain_share < 1:
            raise RecipeError(
                f"recipe {self.name!r}: in_domain_share {self.in_domain_share} must lie between "
                "0 and 1: a filter needs something to skip."
            )
        if self.instructions and self.evaluation.seeds:
            raise RecipeError(
                f"recipe {self.name!r}: the comparison in fine-tuning is for running text, and "
                f"evaluation.seeds is {self.evaluation.seeds}. Set it to 0, and compare "
                "FilteredSFTTrainer with LearnerFilter and with RandomFilter."
            )

    def changed(self, **options: Any) -> Self:
        labels = {name: options.pop(name) for name in options.keys() & _LABEL_OPTIONS}
        seeds = {"seeds": options.pop("seeds")} if "seeds" in options else {}
        return replace(
            self,
            labels=replace(self.labels, **labels),
            evaluation=replace(self.evaluation, **seeds),
            **options,
        )

    def on_text(
        self, objective: Path | None = None, pool: Path | None = None, *, context_length: int = 0
    ) -> LearnerRecipe:
        """Own text is split as the learner's was, so that what it was made from stays apart."""
        if objective is None or pool is None:
            return self
        return replace(
            own_recipe("own", objective, pool, self.instructions),
            base=self.base,
            context_length=self.context_length,
            seed=self.seed,
            split=self.split,
            in_domain_share=self.in_domain_share,
            labels=self.labels,
        )


OBJECTIVE, POOL = "objective", "pool"
_LONGEST = 128  # tokens of an example, unless --context-length says otherwise


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


RECIPE = LearnerRecipe
