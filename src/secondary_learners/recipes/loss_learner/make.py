"""A multistage recipe: losses of a task → a learner of them → does asking it first pay? → package.

The learner predicts the loss that an example has under a classifier trained for a while on other
examples of the same task, so that `MultistageFilter(LearnerPredictor(learner))` can skip forward
passes from the first step on.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import transformers

from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.errors import CorpusError, SecondaryLearnersError
from secondary_learners.experiments.multistage import HEADER, StagedSettings, cells, summary
from secondary_learners.experiments.multistage_runs import (
    Arms,
    StagedTask,
    progress_line,
    run_arms,
    trained,
)
from secondary_learners.experiments.runs import StoredRun
from secondary_learners.experiments.tables import columns
from secondary_learners.files import json_bytes, sha256_bytes, write_bytes
from secondary_learners.filtering.selection import pad
from secondary_learners.gains.fingerprints import embedding_fingerprint, weights_fingerprint
from secondary_learners.learners.artifact import (
    Learner,
    read_learner,
    save_learner,
    tokenizer_fingerprint,
)
from secondary_learners.learners.config import LearnerConfig, Reference
from secondary_learners.learners.fitting import Fit, fit_linear
from secondary_learners.learners.kind import LOSS_METHOD
from secondary_learners.recipes.gain_learner.figures import held_out_figures, token_weights
from secondary_learners.recipes.likeness import Figure, compare_learners
from secondary_learners.recipes.loss_learner.recipe import LossPlan, MultistageRecipe
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.provenance import device_name, repository_of, versions
from secondary_learners.recipes.run import Made, Run, reference_of
from secondary_learners.registry.load import load_base
from secondary_learners.tasks.training import example_losses, predict
from secondary_learners.text.corpus import read_files

__all__ = [
    "Losses",
    "Material",
    "check",
    "compare",
    "digests",
    "loss_learner",
    "make",
    "measure_losses",
    "read",
    "read_staged_task",
    "report",
]

log = logging.getLogger(__name__)

check = read_learner
_PARTS = {"train.tsv", "dev.tsv"}
_SCORED = 4000  # unseen examples that both learners score, when one is rebuilt


@dataclass(frozen=True)
class Losses:
    """values: the losses (nats) of the examples of a task from place `begin` on, in their order.

    They are those of a classifier trained on the `begin` examples before them; score: its own, on
    the development set. cpu_seconds: of all that.
    """

    begin: int
    values: list[float]
    score: float
    cpu_seconds: float

    @classmethod
    def of(cls, stored: StoredRun) -> Losses:
        return cls(**{field.name: stored.figures[field.name] for field in fields(cls)})


@dataclass(frozen=True, eq=False)
class Material:
    """The base under the classifiers, and the task."""

    base: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    task: StagedTask


def read(recipe: MultistageRecipe, run: Run) -> Material:
    """The base model, and the task's files, encoded."""
    base, tokenizer = load_base(recipe.base)
    return Material(base, tokenizer, read_staged_task(recipe, run.corpus, base, tokenizer))


def make(recipe: MultistageRecipe, material: Material, run: Run) -> Made:
    """Measure losses, fit a learner of them, compare filtering with it, package."""
    task, base = material.task, material.base
    used = _labelled(task, recipe.losses)
    digest = _digest(recipe, task)
    with run.measured("training a classifier, measuring losses and fitting", digest) as energy:
        stored = run.stage("losses", digest, lambda: _measured(recipe, task, run))
        losses = Losses.of(stored)
        learner, fitted = loss_learner(
            task,
            losses,
            recipe.losses,
            name=recipe.name,
            base=(recipe.base, base, material.tokenizer),
        )
    log.info("Spearman %.3f with held-out losses", fitted.held_out_spearman)
    rest = task.part(2 * used)
    if recipe.settings.examples:
        rest = rest.part(0, recipe.settings.examples)
    arms = Arms(recipe.epochs, range(recipe.seeds), recipe.settings, learner, device=run.device)
    done = []
    for each in run_arms(rest, arms, run.work / digest[:12]):
        log.log(logging.INFO if run.progress else logging.DEBUG, progress_line(each))
        done.append(each)
    ids, mask = _padded(task, losses)
    evaluation: dict[str, Any] = {
        "task": {
            "name": task.name,
            "metric": task.encoded.metric,
            "classes": len(task.encoded.classes),
            "tested": len(task.encoded.dev),
            "floor": task.encoded.floor,
        },
        "losses": {
            "trained_on": losses.begin,
            "labelled": len(losses.values),
            "epochs": recipe.losses.epochs,
            "score": losses.score,
            "cpu_seconds": losses.cpu_seconds,
        },
        "held_out": {"linear": held_out_figures(fitted)},
        "fine_tuning": _comparison(recipe, len(rest.used), summary(done)) if done else None,
        "tokens": token_weights(learner, material.tokenizer, ids, mask),
        "command": run.command,
        "device": device_name(run.device),
        **energy(),
    }
    about = About.of(recipe, reference=reference_of(recipe, run.out))
    readme = render_card(card("loss-learner"), learner.config.to_dict(), evaluation, about)
    text = recipe_toml(recipe)
    save_learner(learner, run.out, recipe_toml=text, evaluation=evaluation, readme=readme)
    return Made(run.out, evaluation)


def digests(material: Material, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Of the task's examples, as they are encoded."""
    yield "examples", material.task.encoded.digest, config["corpus"].get("digest")


def compare(recipe: MultistageRecipe, material: Material, ours: Path, theirs: Path) -> list[Figure]:
    """The scores of both learners for the development set."""
    return compare_learners(ours, theirs, *pad(material.task.encoded.dev.ids[:_SCORED]))


def report(made: Made) -> str:
    """The table of the comparison, and how the learner did."""
    comparison = made.evaluation["fine_tuning"]
    lines = [columns([HEADER, *map(cells, comparison["rows"])]), ""] if comparison else []
    figures = made.evaluation["held_out"]["linear"]
    lines += [
        f"Spearman {figures['spearman']:.3f} with losses of held-out examples",
        f'the learner is in {made.folder}: load_learner("{made.folder}")',
    ]
    return "\n".join(lines)


def _digest(recipe: MultistageRecipe, task: StagedTask) -> str:
    """Of all that determines the learner, and the runs of the comparison but for arm and seed."""
    plan = asdict(recipe) | {"seeds": None, "summary": None, "attribution": None, "license": None}
    return sha256_bytes(json_bytes([task.encoded.digest, plan]))


def read_staged_task(
    recipe: MultistageRecipe,
    corpus: Path | None,
    base: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> StagedTask:
    """The recipe's task from its files or archive below `corpus`; see `read_task`.

    Raises CorpusError, also for files that are neither train.tsv and dev.tsv nor one other.
    """
    files = read_files(recipe.sources[0], corpus)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / recipe.task
        if files.keys() >= _PARTS:
            for file in _PARTS:
                write_bytes(path / file, files[file].encode())
        elif len(files) == 1 and not _PARTS & files.keys():
            path = path.with_name(f"{recipe.task}.tsv")
            write_bytes(path, next(iter(files.values())).encode())
        else:
            raise CorpusError(
                f"{recipe.sources[0].files!r} gives {', '.join(files)}. A task is train.tsv and "
                "dev.tsv, or one .tsv file of another name."
            )
        # Which examples take part in the comparison is chosen after the learner has had its own.
        everything = StagedSettings(**{**asdict(recipe.settings), "examples": 0})
        return StagedTask.read(path, base, tokenizer, everything)


def measure_losses(
    task: StagedTask, settings: StagedSettings, plan: LossPlan, *, device: str = "cpu"
) -> Losses:
    """Train a classifier on some examples and take the losses of as many others from it."""
    begun = time.process_time()
    count = _labelled(task, plan)
    trainer = trained(task.part(0, count), settings, plan.epochs, plan.seed, device=device)
    model = cast(transformers.PreTrainedModel, trainer.model)
    on_dev = task.score(predict(model, task.encoded.dev, bfloat16=settings.bf16))
    values = example_losses(model, task.part(count, 2 * count).used)
    return Losses(count, values, on_dev, time.process_time() - begun)


def loss_learner(
    task: StagedTask,
    losses: Losses,
    plan: LossPlan,
    *,
    name: str,
    base: tuple[str, transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase],
) -> tuple[Learner, Fit]:
    """A linear learner of the losses, and how it was fitted.

    base: its reference, the model and its tokenizer.
    """
    ids, mask = _padded(task, losses)
    reference, model, tokenizer = base
    fitted = fit_linear(
        ids,
        np.array(losses.values),
        np.arange(len(ids)),
        vocabulary=task.vocabulary,
        bigrams=plan.bigrams,
        counts=plan.counts,
        unit="nats",
        attention_mask=mask,
    )
    repo, commit = repository_of(reference, model)
    config = LearnerConfig(
        name=name,
        architecture="linear",
        sizes=fitted.sizes,
        score=fitted.score,
        calibration=fitted.calibration,
        context_length=ids.shape[1],
        base_model=Reference(repo, commit, embedding_fingerprint(model)),
        tokenizer=Reference(repo, commit, tokenizer_fingerprint(tokenizer)),
        objective={
            "domain": task.name,
            "metric": task.encoded.metric,
            "classes": list(task.encoded.classes),
        },
        corpus={"name": task.name, "digest": task.encoded.digest},
        optimizer={"name": "adamw"},
        labels={
            "count": len(losses.values),
            "method": LOSS_METHOD,
            "trained_on": losses.begin,
            "epochs": plan.epochs,
            "seed": plan.seed,
            "model_fingerprint": weights_fingerprint(model),
        },
        versions=versions(),
    )
    return Learner(config, fitted.net), fitted


def _labelled(task: StagedTask, plan: LossPlan) -> int:
    count = int(len(task.used) * plan.share)
    if count < 20:
        raise CorpusError(
            f"{task.name} has {len(task.used)} training examples, and a share of {plan.share:g} "
            f"of them is {count}: too few to learn losses from."
        )
    return count


def _measured(recipe: MultistageRecipe, task: StagedTask, run: Run) -> StoredRun:
    log.info("taking losses from a classifier trained on part of %s", task.name)
    losses = measure_losses(task, recipe.settings, recipe.losses, device=run.device)
    if not np.isfinite(losses.values).all():
        raise SecondaryLearnersError(
            f"the classifier's losses on {task.name} are not finite. Try a learning_rate below "
            f"{recipe.settings.learning_rate:g} in the recipe."
        )
    return StoredRun(asdict(losses))


def _padded(task: StagedTask, losses: Losses) -> tuple[Any, Any]:
    return pad(task.used.ids[losses.begin : losses.begin + len(losses.values)])


def _comparison(
    recipe: MultistageRecipe, examples: int, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "seeds": recipe.seeds,
        "epochs": recipe.epochs,
        "examples": examples,
        "settings": asdict(recipe.settings),
        "rows": [{**row, "seconds": row["cpu_seconds"]} for row in rows],
    }
