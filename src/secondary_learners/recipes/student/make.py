"""A student: text → contexts → the teacher's scores → ridge regression → evaluation → package."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.engines.scoring import text_scores
from secondary_learners.experiments.runs import StoredRun
from secondary_learners.files import json_bytes, sha256_bytes, sha256_file
from secondary_learners.learners.artifact import Learner, read_learner, save_learner
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.learners.hashed_text import HashedText
from secondary_learners.learners.statistics import spearman
from secondary_learners.learners.targets import Targets, calibrate, targets_of
from secondary_learners.learners.text_learner import TextLearner
from secondary_learners.recipes.likeness import Figure, compare_scores
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.provenance import processor, versions
from secondary_learners.recipes.run import Made, Run, reference_of
from secondary_learners.recipes.sources import corpus_name, describe_sources
from secondary_learners.recipes.student.contexts import TextContexts, cut
from secondary_learners.recipes.student.figures import (
    Floats,
    agreement,
    megabytes_a_second,
    word_weights,
)
from secondary_learners.recipes.student.fitting import fit_student
from secondary_learners.recipes.student.recipe import StudentRecipe, portable
from secondary_learners.registry.load import load_learner, load_tokenizer, locate
from secondary_learners.text.corpus import read_documents

__all__ = ["Material", "check", "compare", "digests", "make", "read", "report"]

log = logging.getLogger(__name__)

check = read_learner
_TOGETHER = 1024
_TIMED = 2000  # contexts
METHOD = "scores of a learner"


@dataclass(frozen=True, eq=False)
class Material:
    """The teacher, what its scores depend on (`digest`), and the contexts that it scores."""

    teacher: Learner
    tokenizer: Any
    digest: str
    contexts: TextContexts
    unseen: TextContexts | None

    def scores(self, texts: Sequence[str]) -> Floats:
        """The teacher's."""
        parts = (texts[n : n + _TOGETHER] for n in range(0, len(texts), _TOGETHER))
        return np.concatenate(
            [text_scores(self.teacher, self.tokenizer, part).values for part in parts]
        )


def read(recipe: StudentRecipe, run: Run) -> Material:
    """The teacher, unlocked: `labels` of the student's config.json pins its bytes."""
    teacher = load_learner(recipe.teacher, locked=False)
    folder = locate(recipe.teacher, kind="learner", locked=False).folder
    files = [sha256_file(folder / name) for name in ("config.json", "model.safetensors")]
    contexts = cut(
        read_documents(recipe.sources, run.corpus),
        recipe.contexts,
        words=recipe.context_words,
        shares=recipe.shares,
        seed=recipe.seed,
    )
    unseen = recipe.unseen and cut(
        read_documents(recipe.unseen, run.corpus),
        recipe.unseen_contexts,
        words=recipe.context_words,
        shares={source.domain: 1.0 for source in recipe.unseen},
        seed=recipe.seed,
    )
    digest = sha256_bytes(json_bytes(files))
    return Material(teacher, load_tokenizer(teacher), digest, contexts, unseen or None)


def make(recipe: StudentRecipe, material: Material, run: Run) -> Made:
    """Let the teacher score, fit, evaluate, package."""
    contexts = material.contexts
    plan = sha256_bytes(json_bytes([asdict(recipe), material.digest, contexts.digest]))
    with run.measured("scoring and fitting", plan) as energy:
        log.info("%s scores %d contexts", recipe.teacher, len(contexts.texts))
        taught = run.stage("teacher", plan, lambda: StoredRun({}, _taught(material)))
        gains = np.array([material.teacher.gain_of(score) for score in taught.arrays["seen"]])
        targets = targets_of(
            gains,
            contexts.documents,
            contexts.domain,
            unit=material.teacher.config.score.unit,
            seed=recipe.seed,
        )
        log.info("fitting %d + %d buckets", recipe.words, recipe.grams)
        fitted = run.stage("student", plan, lambda: _fitted(recipe, material, targets))
    learner = _learner(recipe, material, targets, fitted)
    evaluation = {
        **_evaluation(material, learner, targets.held_out, taught, fitted),
        "regularization": fitted.figures["regularization"],
        "making_seconds": round(sum(s.figures["stage_seconds"] for s in (taught, fitted)), 1),
        "command": run.command,
        "device": processor(),
        **energy(),
    }
    evaluation = json.loads(json_bytes(evaluation))  # as it will be read, for the card
    about = About.of(recipe, reference=reference_of(recipe, run.out))
    readme = render_card(card("student"), learner.config.to_dict(), evaluation, about)
    save_learner(
        learner,
        run.out,
        recipe_toml=recipe_toml(portable(recipe)),
        evaluation=evaluation,
        readme=readme,
        half=True,
    )
    return Made(run.out, evaluation)


def digests(material: Material, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Of the teacher and of the text."""
    yield "teacher", material.digest, config["labels"].get("teacher_digest")
    yield "text", material.contexts.digest, config["corpus"].get("digest")


def compare(recipe: StudentRecipe, material: Material, ours: Path, theirs: Path) -> list[Figure]:
    """The scores of both students for the contexts that nothing is fitted on, or for all."""
    texts = (material.unseen or material.contexts).texts
    return compare_scores(*(read_learner(folder).score_texts(texts) for folder in (ours, theirs)))


def report(made: Made) -> str:
    """How well it agrees with its teacher, and how long that took."""
    figures = made.evaluation
    held, unseen = figures["held_out"], figures["unseen"]
    lines = [
        f"Spearman {row['spearman']:.3f} with {figures['teacher']} on {row['contexts']:,} {what}"
        for what, row in (("held-out contexts", held), ("contexts of unseen kinds", unseen))
        if row
    ]
    lines.append(
        f"made in {figures['making_seconds']:.0f} seconds; it reads "
        f"{figures['speed']['student']:.1f} MB of text a second, and its teacher "
        f"{figures['speed']['teacher']:.1f}"
    )
    return "\n".join([*lines, f'the learner is in {made.folder}: load_learner("{made.folder}")'])


def _taught(material: Material) -> dict[str, Floats]:
    unseen = material.unseen.texts if material.unseen else []
    answers = {"seen": material.scores(material.contexts.texts)}
    return answers | ({"unseen": material.scores(unseen)} if unseen else {})


def _fitted(recipe: StudentRecipe, material: Material, targets: Targets) -> StoredRun:
    weight, fitted = fit_student(
        material.contexts.texts,
        targets,
        words=recipe.words,
        grams=recipe.grams,
        window=recipe.window,
    )
    arrays = {"weight": weight, "bias": fitted.bias.numpy(), "predictions": fitted.predictions}
    return StoredRun({"regularization": fitted.strength}, arrays)


def _learner(
    recipe: StudentRecipe, material: Material, targets: Targets, fitted: StoredRun
) -> TextLearner:
    arrays, teacher = fitted.arrays, material.teacher.config
    truth = targets.labels.numpy()[targets.held_out]
    config = LearnerConfig(
        name=recipe.name,
        architecture="hashed-text",
        sizes={"words": recipe.words, "grams": recipe.grams},
        score=targets.score,
        calibration=calibrate(arrays["predictions"], "hashed-text"),
        context_length=recipe.window,
        base_model=teacher.base_model,
        tokenizer=None,
        objective=teacher.objective,
        corpus={
            "name": corpus_name(recipe.sources),
            "description": describe_sources(portable(recipe).sources),
            "digest": material.contexts.digest,
        },
        optimizer=teacher.optimizer,
        labels={
            "count": len(material.contexts.texts),
            "method": METHOD,
            "teacher": teacher.name,
            "teacher_digest": material.digest,
            "spearman_with_teacher": spearman(truth, arrays["predictions"]),
        },
        versions=versions(),
    )
    bias = float(np.float32(arrays["bias"]))
    net = HashedText(arrays["weight"], bias, words=recipe.words, length=recipe.window)
    return TextLearner(config, net)


def _evaluation(
    material: Material,
    learner: TextLearner,
    held_out: npt.NDArray[np.bool_],
    taught: StoredRun,
    fitted: StoredRun,
) -> dict[str, Any]:
    """Held-out figures are of the regression without those documents; unseen ones of the net."""
    held, unseen = material.contexts.select(np.flatnonzero(held_out)), material.unseen
    timed = held.texts[:_TIMED]
    scores = taught.arrays
    return {
        "teacher": material.teacher.config.name,
        "held_out": agreement(scores["seen"][held_out], fitted.arrays["predictions"], held),
        "unseen": unseen and agreement(scores["unseen"], learner.score_texts(unseen.texts), unseen),
        "tokens": word_weights(learner, timed),
        "speed": {
            "student": megabytes_a_second(lambda: learner.score_texts(timed), timed),
            "teacher": megabytes_a_second(lambda: material.scores(timed), timed),
        },
        "bytes": 2 * len(learner.hashed.weight),
    }
