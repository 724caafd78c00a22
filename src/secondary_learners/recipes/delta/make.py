"""A delta from two TSV files: fine-tune, keep what changed, measure it as applied, package."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.cards.card import About
from secondary_learners.cards.kinds import card
from secondary_learners.cards.render import render_card
from secondary_learners.recipes.delta.recipe import DeltaRecipe
from secondary_learners.recipes.gain_learner.data import portable_names
from secondary_learners.recipes.parsing import recipe_names, recipe_toml

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from secondary_learners.deltas.artifact import Delta
    from secondary_learners.tasks.encoding import Encoded

__all__ = ["FinishedDelta", "read_task", "run_delta"]


@dataclass(frozen=True)
class FinishedDelta:
    """A delta in its folder, and the sha256 of each file."""

    folder: Path
    delta: Delta
    evaluation: dict[str, Any]
    digests: dict[str, str]


def read_task(
    recipe: DeltaRecipe, corpus: Path | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[Encoded, Encoded]:
    """The examples to train on and those to test on.

    corpus: the folder that the recipe's files are in, by default the working directory. Raises
    CorpusError for a file that is not there, and what `read_encoded` raises.
    """
    from secondary_learners.tasks.encoding import read_encoded
    from secondary_learners.tasks.reading import task_path

    train, test = (task_path(name, corpus) for name in (recipe.train, recipe.test))
    examples = read_encoded(train, tokenizer, max_length=recipe.max_length)
    return (
        examples.sample(recipe.examples) if recipe.examples else examples,
        read_encoded(test, tokenizer, classes=examples.classes, max_length=recipe.max_length),
    )


def run_delta(
    recipe: DeltaRecipe,
    corpus: Path | None,
    out: Path,
    *,
    command: str,
    device: str = "cpu",
    compare: bool = True,
    progress: bool = True,
    look: Callable[[Encoded, Encoded], None] | None = None,
) -> FinishedDelta:
    """Make the delta of `recipe` in the folder `out`, where only an older delta may be.

    corpus: as for `read_task`. compare: also fine-tune the whole model on the same examples with
    the same seed, to say in the card what the delta gives up. look: shown the examples before any
    work is done on them. Raises what `read_task`, `fine_tune` and `make_delta` do.
    """
    import torch

    from secondary_learners.deltas.artifact import Origin, make_delta, save_delta
    from secondary_learners.deltas.making import fine_tune
    from secondary_learners.learners.artifact import tokenizer_fingerprint
    from secondary_learners.learners.config import Reference
    from secondary_learners.registry.load import load_base
    from secondary_learners.tasks.classifier import classifier
    from secondary_learners.tasks.training import evaluate

    base, tokenizer = load_base(recipe.base)
    torch.nn.Module.to(base, device)  # PreTrainedModel.to lost its types
    examples, test = read_task(recipe, corpus, tokenizer)
    if look is not None:
        look(examples, test)
    recipe = _published(recipe)
    tuned = fine_tune(base, examples, recipe.tuning, seed=recipe.seed, progress=progress)
    revision = getattr(base.config, "_commit_hash", None)
    repository = recipe.base.partition("@")[0] if revision else recipe.base
    delta = make_delta(
        base,
        tuned.model,
        Origin(
            name=recipe.name,
            base_model=(repository, revision),
            tokenizer=Reference(repository, revision, tokenizer_fingerprint(tokenizer)),
            task={
                "name": recipe.task,
                "max_length": recipe.max_length,
                "train": examples.digest,
                "test": test.digest,
            },
            training=_training(recipe, len(examples)),
        ),
        classes=list(examples.classes),
        stored=recipe.stored,
    )
    applied = delta.apply(classifier(base, len(examples.classes)))
    evaluation = {
        "command": command,
        "device": _device(base),
        "seed": recipe.seed,
        "seconds": round(tuned.seconds, 1),
        "sparsity": tuned.sparsity,
        "bytes": sum(t.numel() * t.element_size() for t in delta.tensors.values()),
        "full_model_bytes": 2 * sum(weight.numel() for weight in base.parameters()),
        "metrics": dataclasses.asdict(evaluate(applied.model, test)),
        "majority_accuracy": _majority(test),
        "full_fine_tuning": None,
    }
    if compare:
        full = dataclasses.replace(recipe.tuning, kind="full")
        whole = fine_tune(base, examples, full, seed=recipe.seed, progress=progress).model
        evaluation["full_fine_tuning"] = dataclasses.asdict(evaluate(whole, test))
    # What a recipe of this package makes goes by its name; the rest is where it was made.
    reference = recipe.name if recipe.name in recipe_names() else f"./{out.absolute().name}"
    about = About.of(recipe, reference=reference)
    readme = render_card(card("delta"), delta.config.to_dict(), evaluation, about)
    digests = save_delta(
        delta, out, recipe_toml=recipe_toml(recipe), evaluation=evaluation, readme=readme
    )
    return FinishedDelta(out, delta, evaluation, digests)


def _published(recipe: DeltaRecipe) -> DeltaRecipe:
    """With a summary, and own files by their names below a corpus folder."""
    names = portable_names((recipe.train, recipe.test))
    kind = "a mask" if recipe.tuning.kind == "mask" else "a few layers"
    return dataclasses.replace(
        recipe,
        summary=recipe.summary or f"The task {recipe.task} as {kind} and a head",
        train=names.get(recipe.train, recipe.train),
        test=names.get(recipe.test, recipe.test),
    )


def _training(recipe: DeltaRecipe, examples: int) -> dict[str, Any]:
    tuning = dataclasses.asdict(recipe.tuning)
    return {**tuning.pop("training"), **tuning, "examples": examples, "seed": recipe.seed}


def _device(model: PreTrainedModel) -> str:
    import torch

    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def _majority(test: Encoded) -> float:
    counts = [test.targets.count(number) for number in range(len(test.classes))]
    return max(counts) / len(test)
