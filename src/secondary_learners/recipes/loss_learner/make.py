"""A multistage recipe: losses of a task → a learner of them → does asking it first pay? → package.

The learner predicts the loss that an example has under a classifier trained for a while on other
examples of the same task, so that `MultistageFilter(LearnerPredictor(learner))` can skip forward
passes from the first step on. Stages leave their results in `out/work`, as those of `run` do.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers

from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import LOSS_METHOD, card
from secondary_learners.cards.render import render_card
from secondary_learners.errors import CorpusError, SecondaryLearnersError
from secondary_learners.experiments.multistage import StagedSettings, summary
from secondary_learners.experiments.multistage_runs import (
    Arms,
    StagedTask,
    progress_line,
    run_arms,
    trained,
)
from secondary_learners.files import json_bytes, sha256_bytes, write_bytes, write_json
from secondary_learners.filtering.selection import pad
from secondary_learners.gains.fingerprints import embedding_fingerprint, weights_fingerprint
from secondary_learners.learners.artifact import Learner, save_learner, tokenizer_fingerprint
from secondary_learners.learners.config import LearnerConfig, Reference
from secondary_learners.learners.fitting import Fit, fit_linear
from secondary_learners.recipes.energy import open_meter
from secondary_learners.recipes.gain_learner.make import Finished, held_out_figures, token_weights
from secondary_learners.recipes.loss_learner.recipe import LossPlan, MultistageRecipe
from secondary_learners.recipes.parsing import find_recipe, recipe_names, recipe_toml
from secondary_learners.recipes.provenance import base_commit, device_name, file_digests, versions
from secondary_learners.registry.index import Entry, entry_toml
from secondary_learners.registry.load import load_base
from secondary_learners.tasks.training import example_losses, predict
from secondary_learners.text.corpus import read_files

__all__ = ["Losses", "loss_learner", "measure_losses", "read_staged_task", "run_multistage"]

log = logging.getLogger(__name__)


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


def run_multistage(
    recipe: MultistageRecipe,
    corpus: Path | None,
    out: Path,
    *,
    device: str,
    command: str,
    progress: bool = True,
    energy: str | None = None,
) -> Finished:
    """Make the learner of `recipe` in `out`, and compare filtering with it; see `run_learner`.

    progress: whether each run of the comparison is logged as it ends.
    """
    base, tokenizer = load_base(recipe.base)
    task = read_staged_task(recipe, corpus, base, tokenizer)
    used = _labelled(task, recipe.losses)
    plan = asdict(recipe) | {"seeds": None, "summary": None, "attribution": None, "license": None}
    digest = sha256_bytes(json_bytes([task.encoded.digest, plan]))
    work = out / "work" / digest[:12]
    meter = open_meter(
        out / "work" / "energy.json",
        energy,
        plan=digest,
        stages="training a classifier, measuring losses and fitting",
        begun=work.exists(),
    )
    with meter.running() if meter else contextlib.nullcontext():
        losses = _kept_losses(task, recipe, work / "losses.json", device)
        learner, fitted = loss_learner(
            task, losses, recipe.losses, name=recipe.name, base=(recipe.base, base, tokenizer)
        )
    log.info("Spearman %.3f with held-out losses", fitted.held_out_spearman)
    rest = task.part(2 * used)
    if recipe.settings.examples:
        rest = rest.part(0, recipe.settings.examples)
    plan_of_arms = Arms(recipe.epochs, range(recipe.seeds), recipe.settings, learner, device=device)
    done = []
    for run in run_arms(rest, plan_of_arms, work):
        log.log(logging.INFO if progress else logging.DEBUG, progress_line(run))
        done.append(run)
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
        "tokens": token_weights(learner, tokenizer, ids, mask),
        "command": command,
        "device": device_name(base) if device == "cpu" else torch.cuda.get_device_name(device),
    }
    if meter:
        evaluation["energy"] = meter.figures()
    own = any(find_recipe(name).name == recipe.name for name in recipe_names())
    about = About.of(recipe, reference=recipe.name if own else f"./{out.absolute().name}")
    readme = render_card(card("loss-learner"), learner.config.to_dict(), evaluation, about)
    save_learner(
        learner, out, recipe_toml=recipe_toml(recipe), evaluation=evaluation, readme=readme
    )
    write_bytes(out / "work" / f"{recipe.name}.toml", entry_toml(_entry(recipe, out)).encode())
    return Finished(out, evaluation, None)


def read_staged_task(
    recipe: MultistageRecipe,
    corpus: Path | None,
    base: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> StagedTask:
    """The recipe's task from its files or archive below `corpus`; raises CorpusError."""
    files = read_files(recipe.sources[0], corpus)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / recipe.task
        for file in ("train.tsv", "dev.tsv"):
            if file not in files:
                raise CorpusError(
                    f"{recipe.sources[0].files!r} gives {', '.join(files)}, and not {file}. "
                    "A task needs train.tsv and dev.tsv."
                )
            write_bytes(folder / file, files[file].encode())
        # Which examples take part in the comparison is chosen after the learner has had its own.
        everything = StagedSettings(**{**asdict(recipe.settings), "examples": 0})
        return StagedTask.read(folder, base, tokenizer, everything)


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
    commit = base_commit(model)
    repo = reference.partition("@")[0] if commit else reference
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


def _kept_losses(task: StagedTask, recipe: MultistageRecipe, path: Path, device: str) -> Losses:
    """As an earlier run of the same recipe left them, or measured now."""
    if path.is_file():
        return Losses(**json.loads(path.read_bytes()))
    log.info("taking losses from a classifier trained on part of %s", task.name)
    losses = measure_losses(task, recipe.settings, recipe.losses, device=device)
    if not np.isfinite(losses.values).all():
        raise SecondaryLearnersError(
            f"the classifier's losses on {task.name} are not finite. Try a learning_rate below "
            f"{recipe.settings.learning_rate:g} in the recipe."
        )
    write_json(path, asdict(losses))
    return losses


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


def _entry(recipe: MultistageRecipe, folder: Path) -> Entry:
    return Entry(
        name=recipe.name,
        kind="learner",
        summary=recipe.summary,
        base=recipe.base,
        tokenizer=recipe.base,
        corpus=recipe.task,
        objective=f"{recipe.task} losses",
        architecture="linear",
        optimizer="adamw",
        license=recipe.license,
        location="bundled",
        added=datetime.date.today(),
        **file_digests(folder),
    )
