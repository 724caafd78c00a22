"""A delta from two TSV files: fine-tune, keep what changed, measure it as applied, package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from secondary_learners.artifacts.records import as_values
from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.deltas.artifact import (
    Delta,
    Origin,
    make_delta,
    read_delta,
    save_delta,
)
from secondary_learners.deltas.config import DeltaConfig
from secondary_learners.deltas.fingerprints import base_fingerprint
from secondary_learners.deltas.layers import backbone_weights, matching
from secondary_learners.deltas.making import fine_tune
from secondary_learners.experiments.runs import StoredRun
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.learners.config import Reference
from secondary_learners.recipes.delta.recipe import DeltaRecipe
from secondary_learners.recipes.likeness import Figure, compare_logits
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.provenance import device_name, repository_of
from secondary_learners.recipes.run import Made, Run, reference_of
from secondary_learners.recipes.sources import portable_names
from secondary_learners.registry.load import load_base
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import Encoded, read_encoded
from secondary_learners.tasks.reading import task_path
from secondary_learners.tasks.training import evaluate, predict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Material", "check", "compare", "digests", "make", "read", "read_task", "report"]

check = read_delta


@dataclass(frozen=True, eq=False)
class Material:
    """The base model on the run's device, and the task: to train on, and to test on."""

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Encoded
    test: Encoded


def read(recipe: DeltaRecipe, run: Run) -> Material:
    """The base model and the examples; raises what `read_task` does."""
    base, tokenizer = load_base(recipe.base)
    torch.nn.Module.to(base, run.device)  # PreTrainedModel.to lost its types
    # Here, so that a layer which does not exist is said before anything is written.
    matching(backbone_weights(classifier(base, 2)), recipe.tuning.layers)
    return Material(base, tokenizer, *read_task(recipe, run.corpus, tokenizer))


def read_task(
    recipe: DeltaRecipe, corpus: Path | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[Encoded, Encoded]:
    """The examples to train on and those to test on.

    corpus: the folder that the recipe's files are in, by default the working directory. Raises
    CorpusError for a file that is not there, and what `read_encoded` raises.
    """
    train, test = (task_path(name, corpus) for name in (recipe.train, recipe.test))
    examples = read_encoded(train, tokenizer, max_length=recipe.max_length)
    return (
        examples.sample(recipe.examples) if recipe.examples else examples,
        read_encoded(test, tokenizer, classes=examples.classes, max_length=recipe.max_length),
    )


def make(recipe: DeltaRecipe, material: Material, run: Run) -> Made:
    """Fine-tune, keep what changed, measure it as applied; and all of the model, to compare with.

    Raises what `fine_tune` and `make_delta` do.
    """
    recipe, base, test = _published(recipe), material.base, material.test
    digest = _digest(recipe, material)
    with run.measured("fine-tuning", digest) as energy:
        tuned = run.stage("delta", digest, lambda: _tuned(recipe, material, run))
        full = None
        if run.compare:
            full = run.stage("full", digest, lambda: _tuned_whole(recipe, material, run)).figures
    delta = _delta(tuned)
    applied = delta.apply(classifier(base, len(material.train.classes)))
    evaluation = {
        "command": run.command,
        "device": device_name(base.device),
        "seed": recipe.seed,
        "seconds": round(tuned.figures["seconds"], 1),
        "sparsity": tuned.figures["sparsity"],
        "bytes": sum(t.numel() * t.element_size() for t in delta.tensors.values()),
        "full_model_bytes": 2 * sum(weight.numel() for weight in base.parameters()),
        "metrics": asdict(evaluate(applied.model, test)),
        "majority_accuracy": _majority(test),
        "full_fine_tuning": full and full["metrics"],
        **energy(),
    }
    about = About.of(recipe, reference=reference_of(recipe, run.out))
    readme = render_card(card("delta"), delta.config.to_dict(), evaluation, about)
    text = recipe_toml(recipe)
    save_delta(delta, run.out, recipe_toml=text, evaluation=evaluation, readme=readme)
    return Made(run.out, evaluation)


def digests(material: Material, config: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Of the examples."""
    yield "training examples", material.train.digest, config["task"].get("train")
    yield "test examples", material.test.digest, config["task"].get("test")


def compare(recipe: DeltaRecipe, material: Material, ours: Path, theirs: Path) -> list[Figure]:
    """What both deltas say of the examples that neither was trained on."""
    logits = []
    for delta in map(read_delta, (ours, theirs)):
        with delta.apply(classifier(material.base, len(delta.config.classes))) as applied:
            logits.append(predict(applied.model, material.test))
    return compare_logits(*logits)


def report(made: Made) -> str:
    """What the delta takes and gives up."""
    evaluation = made.evaluation
    metrics, full = evaluation["metrics"], evaluation["full_fine_tuning"]
    than = f" (full fine-tuning: {full['accuracy']:.3f}, {full['mcc']:.3f})" if full else ""
    ratio = evaluation["full_model_bytes"] / evaluation["bytes"]
    return (
        f"{made.folder}: {evaluation['bytes']:,} bytes, 1/{ratio:.1f} of the full model\n"
        f"accuracy {metrics['accuracy']:.3f}, Matthews correlation {metrics['mcc']:.3f}{than}\n"
        f'use it: load_delta("{made.folder}/")'
    )


def _digest(recipe: DeltaRecipe, material: Material) -> str:
    """Of all that determines the delta."""
    plan = as_values(recipe) | {"summary": None, "attribution": None, "license": None}
    base = base_fingerprint(material.base)
    return sha256_bytes(json_bytes([base, material.train.digest, material.test.digest, plan]))


def _tuned(recipe: DeltaRecipe, material: Material, run: Run) -> StoredRun:
    """The delta, as figures and arrays."""
    base, examples = material.base, material.train
    tuned = fine_tune(base, examples, recipe.tuning, seed=recipe.seed, progress=run.progress)
    repository, revision = repository_of(recipe.base, base)
    fingerprint = tokenizer_fingerprint(material.tokenizer)
    delta = make_delta(
        base,
        tuned.model,
        Origin(
            name=recipe.name,
            base_model=(repository, revision),
            tokenizer=Reference(repository, revision, fingerprint),
            task={
                "name": recipe.task,
                "max_length": recipe.max_length,
                "train": examples.digest,
                "test": material.test.digest,
            },
            training=_training(recipe, len(examples)),
        ),
        classes=list(examples.classes),
        stored=recipe.stored,
    )
    figures = {"config": delta.config.to_dict(), "sparsity": tuned.sparsity}
    types = {
        name: str(tensor.dtype).removeprefix("torch.") for name, tensor in delta.tensors.items()
    }
    # numpy has no bfloat16, and float32 holds every number of it.
    arrays = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
        for name, tensor in delta.tensors.items()
    }
    return StoredRun({**figures, "types": types, "seconds": tuned.seconds}, arrays)


def _delta(tuned: StoredRun) -> Delta:
    """Out of what `_tuned` left."""
    tensors = {
        name: torch.from_numpy(array).to(getattr(torch, tuned.figures["types"][name]))
        for name, array in tuned.arrays.items()
    }
    return Delta(DeltaConfig.from_dict(tuned.figures["config"]), tensors)


def _tuned_whole(recipe: DeltaRecipe, material: Material, run: Run) -> StoredRun:
    """How well the whole model does, fine-tuned on the same examples with the same seed."""
    tuning = replace(recipe.tuning, kind="full")
    whole = fine_tune(
        material.base, material.train, tuning, seed=recipe.seed, progress=run.progress
    ).model
    return StoredRun({"metrics": asdict(evaluate(whole, material.test))})


def _published(recipe: DeltaRecipe) -> DeltaRecipe:
    """With a summary, and own files by their names below a corpus folder."""
    names = portable_names((recipe.train, recipe.test))
    kind = "a mask" if recipe.tuning.kind == "mask" else "a few layers"
    return replace(
        recipe,
        summary=recipe.summary or f"The task {recipe.task} as {kind} and a head",
        train=names.get(recipe.train, recipe.train),
        test=names.get(recipe.test, recipe.test),
    )


def _training(recipe: DeltaRecipe, examples: int) -> dict[str, Any]:
    tuning = asdict(recipe.tuning)
    return {**tuning.pop("training"), **tuning, "examples": examples, "seed": recipe.seed}


def _majority(test: Encoded) -> float:
    counts = [test.targets.count(number) for number in range(len(test.classes))]
    return max(counts) / len(test)
