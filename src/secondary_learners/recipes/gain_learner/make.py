"""Running a recipe: corpus → contexts → labels → learner → evaluation → package, resumable.

Each stage leaves its result in `out/work`, so that a killed run goes on where it was; the artifact
itself (and for a named recipe its registry entry) appears in `out` at the end.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.errors import MissingExtraError, RecipeError
from secondary_learners.experiments.compare import Comparison, Settings, compare
from secondary_learners.experiments.summary import summary
from secondary_learners.files import json_bytes, sha256_bytes, write_bytes
from secondary_learners.filtering.thresholds import parse_threshold
from secondary_learners.gains.processes import ALONE, Team
from secondary_learners.gains.store import Labels, LabelSettings, label_to_store, read_labels
from secondary_learners.learners.artifact import Learner, read_learner, save_learner
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.learners.fitting import Fit, fit
from secondary_learners.learners.statistics import spearman
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.base_model.training import pretrain
from secondary_learners.recipes.energy import Meter, open_meter
from secondary_learners.recipes.gain_learner.bases import (
    base_reference,
    load_recipe_base,
    published_base,
    stand_in_facts,
    tokenizer_reference,
)
from secondary_learners.recipes.gain_learner.data import (
    FinetuningData,
    LabellingData,
    Splits,
    describe_sources,
    finetuning_data,
    labelling_data,
    portable,
    read_splits,
)
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import recipe_names, recipe_toml
from secondary_learners.recipes.provenance import device_name, file_digests, versions
from secondary_learners.registry.index import Entry, entry_toml
from secondary_learners.text.contexts import Contexts
from secondary_learners.text.examples import Examples, matrices

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Finished",
    "card_of",
    "check_length",
    "compare_plan",
    "fit_labels",
    "fit_learners",
    "held_out_figures",
    "label_recipe",
    "run_learner",
    "run_pretraining",
    "token_weights",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """What a run made: the artifact's folder and all its figures (evaluation.json)."""

    folder: Path
    evaluation: dict[str, Any]
    comparison: Comparison | None


def run_pretraining(
    recipe: PretrainRecipe,
    corpus: Path | None,
    out: Path,
    *,
    device: str,
    command: str,
    progress: bool = True,
) -> Finished:
    """Train a base model and write its folder, card and registry entry."""
    evaluation = pretrain(recipe, corpus, out, device=device, progress=progress)
    _package_base(recipe, evaluation, out, command)
    return Finished(out, evaluation, None)


def _package_base(
    recipe: PretrainRecipe, evaluation: dict[str, Any], out: Path, command: str
) -> None:
    write_bytes(out / "recipe.toml", recipe_toml(recipe).encode())
    shown = {**evaluation, "command": command}
    readme = render_card(card("base-model"), {}, shown, About.of(recipe))
    write_bytes(out / "README.md", readme.encode())
    entry = Entry(
        name=recipe.name,
        kind="base-model",
        summary=recipe.summary,
        tokenizer=recipe.name,
        corpus=_corpus_name(recipe.sources),
        architecture="gpt2",
        optimizer="muon+adamw",
        license=recipe.license,
        location="bundled",
        added=datetime.date.today(),
        **file_digests(out),
    )
    write_bytes(out / "work" / f"{recipe.name}.toml", entry_toml(entry).encode())


def run_learner(
    recipe: LearnerRecipe,
    corpus: Path | None,
    out: Path,
    *,
    device: str,
    command: str,
    progress: bool = True,
    energy: str | None = None,
    look: Callable[[Splits, LabellingData], None] | None = None,
    team: Team = ALONE,
) -> Finished:
    """Make the learner of `recipe` in `out`; raises what each stage raises, naming the way out.

    team: the processes that share the labelling. This is called by its first; the others call
    `label_recipe` with the folder out/work/labels.

    energy: the country (ISO code, or `energy.WORLD`) for which the energy of labelling and fitting
    is measured; a run that was begun so goes on so without it. look: shown the text before any
    work is done on it.
    """
    work = out / "work"
    meter = _meter(recipe, work, energy)
    model, tokenizer = load_recipe_base(recipe)
    torch.nn.Module.to(model, device)  # PreTrainedModel.to lost its types
    splits = read_splits(recipe, corpus)
    text = labelling_data(recipe, splits, tokenizer)
    if look:
        look(splits, text)
    with meter.running() if meter else contextlib.nullcontext():
        labels = _label(recipe, text, model, work / "labels", team, progress=progress)
        fits = fit_learners(recipe, labels, vocabulary=len(tokenizer))

    def evaluate(learner: Learner) -> Comparison | None:
        if recipe.evaluation.seeds == 0:
            return None
        data = finetuning_data(recipe, splits, tokenizer)
        return compare_plan(
            recipe, data, learner, model, work / "comparison", device=device, progress=progress
        )

    made = _package(
        recipe,
        labels,
        fits,
        model,
        tokenizer,
        out,
        evaluate,
        command=command,
        energy=meter.figures() if meter else None,
    )
    write_bytes(work / f"{recipe.name}.toml", entry_toml(_learner_entry(recipe, made)).encode())
    return made


def label_recipe(
    recipe: LearnerRecipe,
    corpus: Path | None,
    out: Path,
    *,
    device: str,
    progress: bool = True,
    team: Team = ALONE,
) -> Labels:
    """The labels of `recipe` in the folder `out`, with its recipe.toml for `fit_labels`."""
    model, tokenizer = load_recipe_base(recipe)
    torch.nn.Module.to(model, device)  # PreTrainedModel.to lost its types
    text = labelling_data(recipe, read_splits(recipe, corpus), tokenizer)
    labels = _label(recipe, text, model, out, team, progress=progress)
    if team.first:
        write_bytes(out / "recipe.toml", recipe_toml(portable(recipe)).encode())
    return labels


def fit_labels(recipe: LearnerRecipe, labels: Path, out: Path, *, command: str) -> Finished:
    """Fit and package a learner on stored labels, without trying it in fine-tuning."""
    model, tokenizer = load_recipe_base(recipe)
    stored = read_labels(labels)
    return _package(
        recipe,
        stored,
        fit_learners(recipe, stored, vocabulary=len(tokenizer)),
        model,
        tokenizer,
        out,
        lambda learner: None,
        command=command,
    )


def _meter(recipe: LearnerRecipe, work: Path, country: str | None) -> Meter | None:
    """For all that determines the labels and the fit, and so not for the evaluation plan."""
    plan = {name: value for name, value in asdict(recipe).items() if name != "evaluation"}
    return open_meter(
        work / "energy.json",
        country,
        plan=sha256_bytes(json_bytes(plan)),
        stages="labelling and fitting",
        begun=(work / "labels" / "labels.json").exists(),
    )


def _label(
    recipe: LearnerRecipe,
    data: LabellingData,
    model: PreTrainedModel,
    folder: Path,
    team: Team,
    *,
    progress: bool,
) -> Labels:
    check_length(recipe, model)
    plan = recipe.labels
    settings = LabelSettings(
        method=plan.method,
        optimizer=plan.optimizer,
        learning_rate=plan.learning_rate,
        unit=plan.unit,
        trainable=plan.trainable,
        exact=plan.exact,
        seed=recipe.seed,
        precision=plan.precision,
    )
    log.info(
        "labelling %d contexts on %d of the objective", len(data.candidates), len(data.objective)
    )
    return label_to_store(
        model, data.candidates, data.objective, folder, settings, progress=progress, team=team
    )


def _package(
    recipe: LearnerRecipe,
    labels: Labels,
    fits: Mapping[str, Fit],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    evaluate: Callable[[Learner], Comparison | None],
    *,
    command: str,
    energy: dict[str, Any] | None = None,
) -> Finished:
    """Keep the fit that is best on held-out documents, evaluate it, write it."""
    stand_in = stand_in_facts(recipe, model)
    recipe = published_base(portable(recipe))
    chosen = max(fits, key=lambda name: fits[name].held_out_spearman)
    config = _config(recipe, labels, fits[chosen], chosen, model, tokenizer)
    learner = Learner(config, fits[chosen].net)
    comparison = evaluate(learner)
    evaluation: dict[str, Any] = {
        "labels": labels.facts,
        "held_out": {name: held_out_figures(fitted) for name, fitted in fits.items()},
        **_lengths(labels, fits[chosen]),
        "fine_tuning": comparison and summary(comparison),
        "plot": comparison is not None and _plot(comparison, out / "comparison.png"),
        "tokens": token_weights(learner, tokenizer, *matrices(labels.contexts)),
        "command": command,
        "device": device_name(model),
    }
    if stand_in:
        evaluation["stand_in"] = stand_in
    if energy:
        evaluation["energy"] = energy
    readme = card_of(recipe, config, evaluation, out)
    save_learner(
        learner, out, recipe_toml=recipe_toml(recipe), evaluation=evaluation, readme=readme
    )
    return Finished(out, evaluation, comparison)


def card_of(
    recipe: LearnerRecipe, config: LearnerConfig, evaluation: Mapping[str, Any], folder: Path
) -> str:
    """The card of the learner that `recipe` made in `folder`."""
    about = About.of(
        recipe,
        # What a recipe of this package makes goes by its name; the rest is where it was made.
        reference=recipe.name if recipe.name in recipe_names() else f"./{folder.absolute().name}",
        datasets=[source.dataset for source in recipe.sources if source.dataset],
    )
    return render_card(card("learner"), config.to_dict(), evaluation, about)


def _learner_entry(recipe: LearnerRecipe, made: Finished) -> Entry:
    config = read_learner(made.folder).config
    return Entry(
        name=recipe.name,
        kind="learner",
        summary=recipe.summary,
        base=config.base_model.repo,
        tokenizer=config.tokenizer.repo,
        corpus=_corpus_name(recipe.sources),
        objective=recipe.objective_domain,
        architecture=config.architecture,
        optimizer=recipe.labels.optimizer,
        license=recipe.license,
        location="bundled",
        added=datetime.date.today(),
        **file_digests(made.folder),
    )


def fit_learners(recipe: LearnerRecipe, labels: Labels, *, vocabulary: int) -> dict[str, Fit]:
    """Every architecture of the plan, fitted on the same labels and split."""
    plan, contexts = recipe.learner, labels.contexts
    ids, attention_mask = matrices(contexts)
    fits = {}
    for architecture in plan.architectures:
        sizes: dict[str, int | str] = {}
        if architecture == "linear":
            sizes = {"bigrams": plan.bigrams, "counts": plan.counts}
        elif plan.embedding is not None:
            sizes = {"embedding": plan.embedding}
        fits[architecture] = fit(
            architecture,
            ids,
            labels.gains,
            contexts.document,
            contexts.domain,
            vocabulary=vocabulary,
            unit="nats per token" if labels.facts["unit"] == "nats" else labels.facts["unit"],
            seed=recipe.seed,
            attention_mask=attention_mask,
            sizes=sizes,
        )
        log.info(
            "%s: Spearman %.3f on held-out documents",
            architecture,
            fits[architecture].held_out_spearman,
        )
    return fits


def token_weights(
    learner: Learner,
    tokenizer: Any,
    input_ids: npt.NDArray[np.int64],
    attention_mask: npt.NDArray[np.bool_] | None = None,
    count: int = 12,
) -> dict[str, list[str]]:
    """The tokens that raise and lower the score most, by mean share where they occur ≥ 10 times.

    input_ids: [contexts, length]; `attention_mask` of that shape is False at padding.
    """
    sample = input_ids[:4000]
    mask = np.ones(sample.shape, np.bool_) if attention_mask is None else attention_mask[:4000]
    shares, ids = learner.contributions(sample, mask).cpu().numpy()[mask], sample[mask]
    times = np.bincount(ids)
    mean = np.bincount(ids, weights=shares) / np.maximum(times, 1)
    common = np.flatnonzero(times >= min(10, times.max()))
    order = common[np.argsort(mean[common], kind="stable")]
    spelled = [tokenizer.decode([int(token)]).strip() for token in order]
    words = list(dict.fromkeys(word for word in spelled if word.isprintable() and word))
    return {"raise": words[::-1][:count], "lower": words[:count]}


def _config(
    recipe: LearnerRecipe,
    labels: Labels,
    chosen: Fit,
    architecture: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> LearnerConfig:
    facts = labels.facts
    subset = facts.get("trainable")
    # Left out where it is float32, as it was before there was a choice: the same bytes as then.
    lower = {k: v for k, v in facts.items() if k == "precision" and v != "float32"}
    return LearnerConfig(
        name=recipe.name,
        architecture=architecture,
        sizes=chosen.sizes,
        score=chosen.score,
        calibration=chosen.calibration,
        context_length=recipe.context_length,
        base_model=base_reference(recipe, model),
        tokenizer=tokenizer_reference(recipe, model, tokenizer),
        objective={
            "domain": recipe.objective_domain,
            "contexts": facts["objective_contexts"],
            "digest": facts["objective"],
        },
        corpus={
            "name": _corpus_name(recipe.sources),
            "description": describe_sources(recipe.sources),
            "in_domain_share": recipe.in_domain_share,
            "digest": facts["contexts"],
            **_reading(recipe, facts),
        },
        optimizer={
            "name": facts["optimizer"],
            "learning_rate": facts["learning_rate"],
            "eps": facts["eps"],
            "weight_decay": 0.0,
        },
        labels={
            "count": facts["count"],
            "method": facts["method"],
            "spearman_with_exact": facts["spearman_with_exact"],
            "exact_count": facts["exact_count"],
            "model_fingerprint": facts["model_fingerprint"],
            "seed": facts["seed"],
            **({"trainable": subset} if subset is not None else {}),
            **lower,
        },
        versions=versions(),
    )


def _reading(recipe: LearnerRecipe, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of instructions, what the learner reads and was calibrated on; nothing for running text."""
    if recipe.instructions is None:
        return {}
    return {
        "format": "instructions",
        **asdict(recipe.instructions),
        # A filter in a trainer sees token ids, and no mask that tells the completion from them.
        "learner_reads": "prompt and completion",
        "examples": facts["examples"],
    }


def held_out_figures(fitted: Fit) -> dict[str, float]:
    """The figures of one fit for evaluation.json, on documents it never saw."""
    return {
        "spearman": fitted.held_out_spearman,
        "r2": fitted.held_out_r2,
        **fitted.settings,
        "contexts": len(fitted.held_out),
    }


def _lengths(labels: Labels, fitted: Fit) -> dict[str, Any]:
    """How a fit does on short, middling and long held-out examples; nothing for contexts.

    score: the mean, 0 over all of them; gain: the mean of what was measured, so standardised.
    """
    if not isinstance(labels.contexts, Examples):
        return {}
    lengths = labels.contexts.lengths[fitted.held_out]
    gains = (labels.gains[fitted.held_out] - fitted.score.mean) / fitted.score.sd
    scores = (fitted.predictions - fitted.calibration.mean) / fitted.calibration.sd
    thirds = np.array_split(np.argsort(lengths, kind="stable"), 3)
    return {
        "lengths": [
            {
                "shortest": int(lengths[third].min()),
                "longest": int(lengths[third].max()),
                "contexts": len(third),
                "spearman": spearman(gains[third], fitted.predictions[third]),
                "score": float(scores[third].mean()),
                "gain": float(gains[third].mean()),
            }
            for third in thirds
            if len(third) > 1
        ]
    }


def compare_plan(
    recipe: LearnerRecipe,
    data: FinetuningData,
    learner: Learner,
    model: PreTrainedModel,
    folder: Path,
    *,
    device: str,
    progress: bool,
) -> Comparison:
    """The equal-budget comparison of the recipe's evaluation plan, resumable in `folder`."""
    check_length(recipe, model)
    plan = recipe.evaluation
    assert isinstance(data.stream, Contexts) and isinstance(data.test, Contexts)  # see the schema
    return compare(
        model,
        data.stream,
        data.test,
        learner,
        thresholds=[parse_threshold(text) for text in plan.thresholds],
        seeds=range(plan.seeds),
        settings=Settings(
            updates=plan.updates, batch_size=plan.batch_size, learning_rate=plan.learning_rate
        ),
        in_domain=recipe.objective_domain,
        folder=folder,
        progress=progress,
        device=device,
    )


def check_length(recipe: LearnerRecipe, model: PreTrainedModel) -> None:
    """Raise RecipeError unless `model` can read contexts as long as the recipe's."""
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and recipe.context_length > most:
        raise RecipeError(
            f"contexts of {recipe.context_length} tokens are longer than {recipe.base!r} can read "
            f"({most}). Try --context-length {most}, or less."
        )


def _plot(comparison: Comparison, path: Path) -> bool:
    from secondary_learners.experiments.comparison_figure import plot_comparison

    try:
        plot_comparison(comparison, path)
    except MissingExtraError as error:
        log.warning("no plot: %s", error)
        return False
    return True


def _corpus_name(sources: Any) -> str:
    return "+".join(dict.fromkeys(source.domain for source in sources))
