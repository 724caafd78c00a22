"""A learner from published labels: text → embeddings → teacher → student → evaluation → package.

The labels kept for reporting meet nothing but the report.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.errors import CorpusError
from secondary_learners.experiments.runs import StoredRun
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.learners.artifact import (
    Learner,
    read_learner,
    save_learner,
    tokenizer_fingerprint,
)
from secondary_learners.learners.nets import Net
from secondary_learners.recipes.distilled_learner import stages
from secondary_learners.recipes.distilled_learner.config import learner_config
from secondary_learners.recipes.distilled_learner.figures import (
    RESAMPLES,
    cross_validated_figures,
    reported_figures,
    scoring_speed,
)
from secondary_learners.recipes.distilled_learner.published import (
    PublishedRows,
    found_file,
    read_published_labels,
)
from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
from secondary_learners.recipes.distilled_learner.stages import Array, Data, Floats
from secondary_learners.recipes.gain_learner.figures import token_weights
from secondary_learners.recipes.gain_learner.make import report
from secondary_learners.recipes.likeness import Figure, compare_learners
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.provenance import processor
from secondary_learners.recipes.run import Made, Run, reference_of
from secondary_learners.text.corpus import Document, read_documents

__all__ = ["Material", "check", "compare", "digests", "make", "read", "report"]

log = logging.getLogger(__name__)

check = read_learner


@dataclass(frozen=True, eq=False)
class Material:
    """The labels that others published, the tokenizer of their contexts, and unlabelled text."""

    published: PublishedRows
    tokenizer: Tokenizer
    documents: list[Document]

    @property
    def text(self) -> str:
        """A digest of the text and of what its tokens are."""
        contents = [
            sha256_bytes(f"{d.domain}\n{d.name}\n{d.text}".encode()) for d in self.documents
        ]
        return _digest("text", tokenizer_fingerprint(self.tokenizer), *contents)


def read(recipe: DistilledRecipe, run: Run) -> Material:
    """Labels, tokenizer and text from the corpus folder; raises CorpusError for what is missing."""
    published = read_published_labels(recipe.labels, run.corpus)
    tokenizer = _tokenizer(found_file(recipe.tokenizer, run.corpus), published)
    return Material(
        published, tokenizer, read_documents(recipe.sources, run.corpus, clean=str.strip)
    )


@dataclass(frozen=True, eq=False)
class _Trained:
    """What the stages made, and the seconds that they took, then or now.

    raw: predictions of the fitted rows by the student that lacks their fold [n].
    """

    learner: Learner
    raw: Floats
    ridge: Mapping[str, Array]
    teacher: Floats
    tokens: int
    seconds: float


def make(recipe: DistilledRecipe, material: Material, run: Run) -> Made:
    """Train on the CPU, evaluate, package."""
    data = Data.of(recipe, material.published)
    plan = asdict(recipe) | {"summary": None, "attribution": None, "license": None}
    with run.measured(
        "all training", _digest(material.text, data.published.digest, plan)
    ) as energy:
        trained = _train(recipe, material, data, run)
    evaluation = {**_evaluate(recipe, data, trained, material), "command": run.command, **energy()}
    evaluation = json.loads(json_bytes(evaluation))  # as it will be read, for the card
    about = About.of(recipe, reference=reference_of(recipe, run.out))
    readme = render_card(card("distilled"), trained.learner.config.to_dict(), evaluation, about)
    save_learner(
        trained.learner,
        run.out,
        recipe_toml=recipe_toml(recipe),
        evaluation=evaluation,
        readme=readme,
        half=True,
    )
    return Made(run.out, evaluation)


def digests(material: Material, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Of the labels' file and of the text."""
    yield "labels", material.published.digest, config["objective"].get("digest")
    yield "text", material.text, config["corpus"].get("digest")


def compare(recipe: DistilledRecipe, material: Material, ours: Path, theirs: Path) -> list[Figure]:
    """The scores of both learners for the contexts kept for reporting."""
    unseen = material.published.reported.input_ids
    return compare_learners(ours, theirs, unseen, np.ones_like(unseen))


def _train(recipe: DistilledRecipe, material: Material, data: Data, run: Run) -> _Trained:
    """Each stage under a digest of all that determines it."""
    published, vocabulary = data.published, material.tokenizer.get_vocab_size()
    seconds: list[float] = []

    def kept(name: str, digest: str, make: partial[dict[str, Array]]) -> dict[str, Array]:
        stored = run.stage(name, digest, lambda: StoredRun({}, make()))
        seconds.append(stored.figures["stage_seconds"])
        return stored.arrays

    text = material.text
    tokens = kept(
        "tokens",
        text,
        partial(stages.encode, material.documents, material.tokenizer, run.progress),
    )
    rows = _digest(published.digest, recipe.labels.reported, recipe.teacher.folds, recipe.seed)
    known = _digest(text, rows, asdict(recipe.embeddings))
    table = kept("embeddings", known, partial(stages.embed, recipe, tokens, published, vocabulary))
    lesson = _digest(known, asdict(recipe.teacher), [asdict(part) for part in recipe.pool])
    taught = kept(
        "lesson", lesson, partial(stages.teach, recipe, tokens, data, table, run.progress)
    )
    nets = []
    for fit in range(recipe.teacher.folds + 1):
        log.info("student %d of %d", fit + 1, recipe.teacher.folds + 1)
        train = partial(stages.student, recipe, taught, table, data, fit, run.progress)
        weights = kept(f"student-{fit}", _digest(lesson, asdict(recipe.student), fit), train)
        nets.append(stages.net(recipe, weights))
    ridge = kept("ridge", _digest(rows, vocabulary), partial(stages.ridge, data, vocabulary))
    raw = np.empty(len(data.fold))
    for number, net in enumerate(nets[1:]):
        part = data.fold == number
        raw[part] = stages.raw(net, published.fitted.input_ids[part])
    config = learner_config(recipe, data, raw, material.tokenizer, text)
    teacher = taught["own"][np.arange(len(data.fold)), data.fold + 1].astype(np.float64)
    length = sum(map(len, tokens.values()))
    return _Trained(Learner(config, nets[0]), raw, ridge, teacher, length, sum(seconds))


def _evaluate(
    recipe: DistilledRecipe, data: Data, trained: _Trained, material: Material
) -> dict[str, Any]:
    """The figures, beside those of the baseline."""
    net, published, labels = trained.learner.net, data.published, data.labels
    predictions = _predictions(data, net, stages.linear(trained.ridge))
    models = {
        "conv": trained.raw,
        "ridge": trained.ridge["out_of_fold"],
        "teacher": trained.teacher,
    }
    return {
        **reported_figures(labels.reported, predictions, resamples=RESAMPLES, seed=recipe.seed),
        "cross_validation": cross_validated_figures(labels.fitted, data.fold, models),
        "ridge_strength": trained.ridge["strength"].item(),
        "speed": scoring_speed(net, published.reported.input_ids),
        "bytes": sum(2 * tensor.numel() for tensor in net.state_dict().values()),
        "tokens": token_weights(trained.learner, material.tokenizer, published.fitted.input_ids),
        "tokens_in_text": trained.tokens,
        "pool": {part.domain: part.contexts for part in recipe.pool},
        "readings": recipe.labels.readings,
        "fine_tuning": None,
        "training_seconds": round(trained.seconds),
        "device": processor(),
    }


def _predictions(data: Data, net: Net, baseline: Net) -> dict[str, Floats]:
    """Of the rows kept for reporting, in standard deviations of the labels."""
    published, labels = data.published, data.labels
    rows = published.reported
    line = np.polyfit(published.fitted.log_perplexity, labels.fitted, 1)
    return {
        "conv": stages.raw(net, rows.input_ids),
        "ridge": stages.raw(baseline, rows.input_ids),
        "log perplexity": line[0] * rows.log_perplexity + line[1],
    }


def _digest(*parts: object) -> str:
    return sha256_bytes(json_bytes(parts))


def _tokenizer(path: Path, published: PublishedRows) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CorpusError(f"{path} is not a file of tokenizers: {error}. Get it again.") from error
    highest = max(part.input_ids.max() for part in (published.fitted, published.reported))
    if highest >= tokenizer.get_vocab_size():
        raise CorpusError(
            f"the labels have the token {highest}, and {path} knows "
            f"{tokenizer.get_vocab_size()}. Give the tokenizer that they were made with."
        )
    return tokenizer
