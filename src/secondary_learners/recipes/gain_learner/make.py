"""A learner of information gain: corpus → contexts → labels → learner → comparison → package."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from secondary_learners.artifacts.records import as_values
from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.errors import LabelStoreError
from secondary_learners.experiments.compare import Comparison
from secondary_learners.experiments.runs import differences
from secondary_learners.experiments.summary import summary
from secondary_learners.files import json_bytes, sha256_bytes, write_bytes
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.store import Labels, LabelSettings, label_to_store, read_labels
from secondary_learners.learners.architectures import architecture_named
from secondary_learners.learners.artifact import Learner, read_learner, save_learner
from secondary_learners.learners.config import LearnerConfig
from secondary_learners.learners.fitting import Fit, fit
from secondary_learners.recipes.gain_learner.bases import (
    load_recipe_base,
    published_base,
    stand_in_facts,
)
from secondary_learners.recipes.gain_learner.comparing import (
    OWN,
    UNSEEN,
    check_length,
    compare_plan,
    plotted,
    selector_rows,
)
from secondary_learners.recipes.gain_learner.config import learner_config
from secondary_learners.recipes.gain_learner.data import (
    LabellingData,
    Splits,
    finetuning_data,
    labelling_data,
    portable,
    read_splits,
    unseen_pool,
)
from secondary_learners.recipes.gain_learner.figures import (
    figures_by_domain,
    figures_by_length,
    token_weights,
)
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.likeness import Figure, compare_learners
from secondary_learners.recipes.parsing import parse_recipe, recipe_toml
from secondary_learners.recipes.provenance import device_name
from secondary_learners.recipes.run import Made, Run, check_out, reference_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Material",
    "card_of",
    "check",
    "compare",
    "digests",
    "fit_labels",
    "fit_learners",
    "label_recipe",
    "make",
    "read",
    "report",
]

log = logging.getLogger(__name__)

check = read_learner
_SCORED = 4000  # unseen contexts that both learners score, when one is rebuilt
# What does not determine a label.
_NOT_OF_LABELS = {"summary", "license", "attribution", "language", "name", "learner", "evaluation"}


@dataclass(frozen=True, eq=False)
class Material:
    """The base, and the text: dealt to its four uses, and the part that is labelled."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    splits: Splits
    text: LabellingData


def read(recipe: LearnerRecipe, run: Run) -> Material:
    """The base model on the run's device, and the recipe's text."""
    model, tokenizer = load_recipe_base(recipe)
    torch.nn.Module.to(model, run.device)  # PreTrainedModel.to lost its types
    splits = read_splits(recipe, run.corpus)
    return Material(model, tokenizer, splits, labelling_data(recipe, splits, tokenizer))


def make(recipe: LearnerRecipe, material: Material, run: Run) -> Made | None:
    """Label (all processes share that), fit, compare in fine-tuning, package."""
    plan = {name: value for name, value in asdict(recipe).items() if name != "evaluation"}
    with run.measured("labelling and fitting", sha256_bytes(json_bytes(plan))) as energy:
        labels = _label(recipe, material, run.work / "labels", run)
        if not run.processes.first:
            return None
        fits = fit_learners(recipe, labels, vocabulary=len(material.tokenizer))
    base = material.model, material.tokenizer
    learner = _best(recipe, labels, fits, base)
    comparisons = {}
    if recipe.evaluation.seeds:
        data = finetuning_data(recipe, material.splits, material.tokenizer)
        unseen = unseen_pool(recipe, material.splits, material.tokenizer, run.corpus)
        pools = {OWN: data.stream} | ({} if unseen is None else {UNSEEN: unseen})
        folder = run.work / "comparison"
        comparisons = compare_plan(
            recipe, pools, data.test, material.text, learner, base, folder, run
        )
    comparison = comparisons.get(OWN)
    evaluation = {
        "format": 2,
        **_figures(recipe, labels, fits, learner, base),
        "fine_tuning": comparison and summary(comparison),
        "selectors": selector_rows(comparisons),
        "plot": comparison is not None and plotted(comparison, run.out / "comparison.png"),
        "command": run.command,
        **energy(),
    }
    return _package(recipe, learner, evaluation, run.out, comparison)


def digests(material: Material, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Of what is labelled, and on what."""
    yield "contexts", material.text.candidates.digest, config["corpus"].get("digest")
    yield "objective", material.text.objective.digest, config["objective"].get("digest")


def compare(recipe: LearnerRecipe, material: Material, ours: Path, theirs: Path) -> list[Figure]:
    """The scores of both learners for contexts that fine-tuning draws from."""
    stream = finetuning_data(recipe, material.splits, material.tokenizer).stream
    unseen = stream.select(np.arange(min(_SCORED, len(stream))))
    return compare_learners(ours, theirs, unseen.input_ids, unseen.attention_mask)


def report(made: Made) -> str:
    """The comparison's table, and how each fit did."""
    lines = [made.comparison.table(), ""] if made.comparison else []
    lines += [
        f"{name}: Spearman {figures['spearman']:.3f} on held-out documents"
        for name, figures in made.evaluation["held_out"].items()
    ]
    return "\n".join([*lines, f'the learner is in {made.folder}: load_learner("{made.folder}")'])


def label_recipe(recipe: LearnerRecipe, run: Run) -> Labels:
    """The labels of `recipe` in the folder `run.out`, with its recipe.toml for `fit_labels`."""
    if not (run.out / "labels.json").is_file():
        check_out(run.out)
    labels = _label(recipe, read(recipe, run), run.out, run)
    if run.processes.first:
        write_bytes(run.out / "recipe.toml", recipe_toml(portable(recipe)).encode())
    return labels


def fit_labels(recipe: LearnerRecipe, labels: Path, out: Path, *, command: str) -> Made:
    """Fit and package a learner on stored labels, without trying it in fine-tuning."""
    check_out(out, recipe.name)
    base, stored = load_recipe_base(recipe), read_labels(labels)
    fits = fit_learners(recipe, stored, vocabulary=len(base[1]))
    learner = _best(recipe, stored, fits, base)
    evaluation = {
        **_figures(recipe, stored, fits, learner, base),
        "fine_tuning": None,
        "plot": False,
        "command": command,
    }
    return _package(recipe, learner, evaluation, out)


def _label(recipe: LearnerRecipe, material: Material, folder: Path, run: Run) -> Labels:
    check_length(recipe, material.model)
    begun = _begun_with(recipe, folder, run)
    text = material.text
    log.info(
        "labelling %d contexts on %d of the objective", len(text.candidates), len(text.objective)
    )
    try:
        return label_to_store(
            material.model,
            text.candidates,
            text.objective,
            folder,
            _settings(recipe),
            against=[text.pool] if text.pool is not None else [],
            progress=run.progress,
            team=run.processes,
        )
    except LabelStoreError as error:
        if not (differing := differences(_of_labels(begun), _of_labels(portable(recipe)))):
            raise
        raise LabelStoreError(
            f"{folder} holds labels that were begun with other settings: {'; '.join(differing)}. "
            "Try another --out, or remove the folder."
        ) from error


def _settings(recipe: LearnerRecipe) -> LabelSettings:
    plan = asdict(recipe.labels)
    names = {each.name for each in fields(LabelSettings)}
    return LabelSettings(
        **{name: value for name, value in plan.items() if name in names}, seed=recipe.seed
    )


def _begun_with(recipe: LearnerRecipe, folder: Path, run: Run) -> Any:
    """The recipe that the labels in `folder` were begun with: this one, if they are begun now."""
    path = folder / "plan.toml"
    if path.is_file():
        return parse_recipe(path.read_text(encoding="utf-8"), str(path))
    recipe = portable(recipe)
    if run.processes.first and not (folder / "labels.json").is_file():
        write_bytes(path, recipe_toml(recipe).encode())
    return recipe


def _of_labels(recipe: Any) -> dict[str, Any]:
    values = as_values(recipe)
    values["sources"] = {source["domain"]: source for source in values["sources"]}
    return {name: values[name] for name in values.keys() - _NOT_OF_LABELS}


def _best(
    recipe: LearnerRecipe,
    labels: Labels,
    fits: Mapping[str, Fit],
    base: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> Learner:
    """The fit that is best on held-out documents."""
    chosen = max(fits, key=lambda name: fits[name].held_out_spearman)
    published = published_base(portable(recipe))
    config = learner_config(published, labels, fits[chosen], chosen, base)
    return Learner(config, fits[chosen].net)


def _figures(
    recipe: LearnerRecipe,
    labels: Labels,
    fits: Mapping[str, Fit],
    learner: Learner,
    base: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> dict[str, Any]:
    """Of labels and fits, for evaluation.json."""
    model, tokenizer = base
    stand_in = stand_in_facts(recipe, model)
    return {
        "labels": labels.facts,
        "held_out": {name: figures_by_domain(labels, fitted) for name, fitted in fits.items()},
        **figures_by_length(labels, fits[learner.config.architecture]),
        "tokens": token_weights(
            learner, tokenizer, labels.contexts.input_ids, labels.contexts.attention_mask
        ),
        "device": device_name(model.device),
        **({"stand_in": stand_in} if stand_in else {}),
    }


def _package(
    recipe: LearnerRecipe,
    learner: Learner,
    evaluation: dict[str, Any],
    out: Path,
    comparison: Comparison | None = None,
) -> Made:
    recipe = published_base(portable(recipe))
    readme = card_of(recipe, learner.config, evaluation, out)
    save_learner(
        learner, out, recipe_toml=recipe_toml(recipe), evaluation=evaluation, readme=readme
    )
    return Made(out, evaluation, comparison)


def card_of(
    recipe: LearnerRecipe, config: LearnerConfig, evaluation: Mapping[str, Any], folder: Path
) -> str:
    """The card of the learner that `recipe` made in `folder`."""
    about = About.of(
        recipe,
        reference=reference_of(recipe, folder),
        datasets=[source.dataset for source in recipe.sources if source.dataset],
    )
    return render_card(card("learner"), config.to_dict(), evaluation, about)


def fit_learners(recipe: LearnerRecipe, labels: Labels, *, vocabulary: int) -> dict[str, Fit]:
    """Every architecture of the plan, fitted on the same labels and split."""
    plan, contexts, settings = recipe.learner, labels.contexts, _settings(recipe)
    unit = method_named(settings.method).unit(settings)
    ids, attention_mask = contexts.input_ids, contexts.attention_mask
    fits = {}
    for architecture in plan.architectures:
        fits[architecture] = fit(
            architecture,
            ids,
            labels.gains,
            contexts.document,
            contexts.domain,
            vocabulary=vocabulary,
            unit=unit,
            seed=recipe.seed,
            attention_mask=attention_mask,
            sizes=architecture_named(architecture).options(plan),
        )
        log.info(
            "%s: Spearman %.3f on held-out documents",
            architecture,
            fits[architecture].held_out_spearman,
        )
    return fits
