"""A recipe's TOML file as frozen dataclasses, checked field by field, and back to TOML."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from secondary_learners.artifacts.records import read_record, read_toml, record_toml
from secondary_learners.content import content
from secondary_learners.deltas.settings import Tuning
from secondary_learners.errors import RecipeError, UnknownNameError
from secondary_learners.experiments.multistage import Settings
from secondary_learners.filtering.thresholds import parse_threshold
from secondary_learners.gains.subsets import check_trainable
from secondary_learners.text.corpus import Source
from secondary_learners.text.instructions import COLUMNS, TRUNCATIONS

__all__ = [
    "SPLICED",
    "DeltaRecipe",
    "DistilledRecipe",
    "EmbeddingPlan",
    "EvaluationPlan",
    "InstructionPlan",
    "LabelPlan",
    "LearnerPlan",
    "LearnerRecipe",
    "LossPlan",
    "MultistageRecipe",
    "PoolPlan",
    "PretrainRecipe",
    "PublishedLabels",
    "Recipe",
    "Shares",
    "StudentPlan",
    "TeacherPlan",
    "TokenizerPlan",
    "find_recipe",
    "parse_recipe",
    "recipe_names",
    "recipe_toml",
]


@dataclass(frozen=True)
class Shares:
    """How the text of each domain is dealt, by whole documents, to the four uses."""

    objective: float = 0.1
    labels: float = 0.4
    stream: float = 0.4
    test: float = 0.1

    def __post_init__(self) -> None:
        _above_zero(**dataclasses.asdict(self))


@dataclass(frozen=True)
class LabelPlan:
    """How gains are measured; see `information_gain`. trainable: a word or a list of names."""

    method: str = "swapped"
    contexts: int = 3000
    objective_contexts: int = 160
    optimizer: str = "adamw"
    learning_rate: float = 5e-5
    unit: str = "nats"
    exact: int = 64
    trainable: str | tuple[str, ...] | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        _above_zero(
            contexts=self.contexts,
            objective_contexts=self.objective_contexts,
            learning_rate=self.learning_rate,
        )
        _one_of("method", self.method, ("exact", "per-example", "swapped"))
        _one_of("optimizer", self.optimizer, ("adamw", "sgd"))
        _one_of("unit", self.unit, ("nats", "perplexity"))
        check_trainable(self.trainable)
        _one_of("precision", self.precision, ("float32", "tf32", "bfloat16"))
        if (self.precision, self.method) == ("bfloat16", "per-example"):
            raise RecipeError(
                "per-example labels are not to be had in bfloat16, only in the others."
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
            _one_of("architectures", architecture, ("conv", "linear"))
        _one_of("counts", self.counts, ("frequency", "sqrt"))
        if self.bigrams < 0 or self.bigrams & (self.bigrams - 1):
            raise RecipeError(f"bigrams is {self.bigrams}: it must be 0 or a power of two.")
        if self.embedding is not None:
            _above_zero(embedding=self.embedding)


@dataclass(frozen=True)
class EvaluationPlan:
    """The equal-budget comparison; `seeds` 0 leaves it out."""

    seeds: int = 5
    updates: int = 60
    batch_size: int = 16
    learning_rate: float = 2e-4
    thresholds: tuple[str, ...] = ("1",)
    test_contexts: int = 500

    def __post_init__(self) -> None:
        _above_zero(
            updates=self.updates,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            test_contexts=self.test_contexts,
        )
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
            raise RecipeError(f"fingerprint {self.fingerprint!r} is no sha256 of 64 hex digits.")


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
        _one_of("truncate", self.truncate, TRUNCATIONS)


@dataclass(frozen=True)
class LearnerRecipe:
    """All that determines a learner: sources, base, objective, labels, learner, evaluation.

    context_length: tokens of a context; of instructions, the most that an example may have.
    instructions: None for running text.
    language: of the text, for the card: a code such as "en", or "" when it is not known.
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

    def __post_init__(self) -> None:
        _check_name(self.name)
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


@dataclass(frozen=True)
class PretrainRecipe:
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

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not 257 <= self.vocabulary <= 65_536:
            raise RecipeError(
                f"recipe {self.name!r}: vocabulary {self.vocabulary} must lie between 257 (every "
                "byte and end-of-text) and 65,536 (ids of two bytes)."
            )


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
        _above_zero(epochs=self.epochs)
        LearnerPlan(counts=self.counts, bigrams=self.bigrams)


@dataclass(frozen=True)
class MultistageRecipe:
    """All that determines a learner of training losses, and multistage filtering with it.

    name: of the learner. sources: one, the files train.tsv and dev.tsv of a task that goes by the
    source's domain; see `read_task`. epochs, seeds: of the comparison; no seeds leave it out.
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
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        _check_name(self.name)
        _above_zero(epochs=self.epochs)
        if len(self.sources) != 1 or self.sources[0].files is None:
            raise RecipeError(
                f"recipe {self.name!r}: one source with `files` is needed, the train.tsv and "
                "dev.tsv of a task."
            )

    @property
    def task(self) -> str:
        return self.sources[0].domain


@dataclass(frozen=True, kw_only=True)
class DeltaRecipe:
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

    def __post_init__(self) -> None:
        _check_name(self.name)
        _above_zero(max_length=self.max_length)
        if self.examples < 0:
            raise RecipeError(f"examples is {self.examples}, and must be 0 (all of them) or more.")


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
        _above_zero(reported=self.reported, learning_rate=self.learning_rate)


@dataclass(frozen=True)
class EmbeddingPlan:
    """Token embeddings from unlabelled text; see `token_embeddings`."""

    dimensions: int = 128
    neighbors: int = 4000
    labelled_weight: float = 3.0  # of a pair in a labelled context

    def __post_init__(self) -> None:
        _above_zero(dimensions=self.dimensions, neighbors=self.neighbors)


@dataclass(frozen=True)
class TeacherPlan:
    """The kernel ridge regression, and the cross-validation of everything."""

    strength: float = 0.4
    folds: int = 5

    def __post_init__(self) -> None:
        _above_zero(strength=self.strength, folds=self.folds - 1)


SPLICED = "spliced"  # a domain of the pool that is no text


@dataclass(frozen=True)
class PoolPlan:
    """Unlabelled contexts for the teacher: cut from text of a domain of the sources.

    The domain "spliced" is made of two labelled contexts each.
    """

    domain: str
    contexts: int

    def __post_init__(self) -> None:
        _above_zero(contexts=self.contexts)


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
        _above_zero(**dataclasses.asdict(self))


@dataclass(frozen=True)
class DistilledRecipe:
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

    def __post_init__(self) -> None:
        _check_name(self.name)
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


Recipe = LearnerRecipe | MultistageRecipe | PretrainRecipe | DeltaRecipe | DistilledRecipe
_KINDS: dict[str, type[Recipe]] = {
    "learner": LearnerRecipe,
    "multistage": MultistageRecipe,
    "base-model": PretrainRecipe,
    "delta": DeltaRecipe,
    "distilled": DistilledRecipe,
}


_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


def _check_name(name: str) -> None:
    """The registry takes no other; better known before hours of labelling than after."""
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"the name {name!r} must be lower-case words joined by - . or _, such as my-learner."
        )


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise RecipeError(f"{name} is {value}, and must be above 0.")


def _one_of(where: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(f"{where} is {value!r}, and must be one of {', '.join(known)}.")


def recipe_names() -> list[str]:
    """The names of the bundled recipes."""
    return sorted(path.stem for path in content("recipes").glob("*.toml"))


def find_recipe(ref: str) -> Recipe:
    """A bundled recipe by name, or the recipe in a TOML file; UnknownNameError otherwise."""
    path = Path(ref)
    if path.suffix != ".toml":
        path = content("recipes") / f"{ref}.toml"
    if not path.is_file():
        raise UnknownNameError("recipe", ref, recipe_names(), "learners list --recipes")
    return parse_recipe(path.read_text(encoding="utf-8"), str(path))


def parse_recipe(text: str, where: str = "recipe") -> Recipe:
    """Parse and check; RecipeError names the file, the field and what was expected."""
    values = read_toml(text, where, RecipeError)
    kind = values.get("kind", "learner")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise RecipeError(f"{where}: kind {kind!r} is not one of {', '.join(sorted(_KINDS))}.")
    return read_record(_KINDS[kind], values, where, RecipeError)


def recipe_toml(recipe: Recipe) -> str:
    """The resolved recipe, every default written out; `parse_recipe` reads it back equal."""
    return record_toml(recipe)
