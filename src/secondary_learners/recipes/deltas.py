"""A delta from two TSV files: fine-tune, keep what changed, measure it as applied, package."""

from __future__ import annotations

import dataclasses
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from secondary_learners.cards.deltas import delta_card
from secondary_learners.errors import RecipeError
from secondary_learners.finetuning.sparse.making import Tuning
from secondary_learners.recipes.schema import recipe_toml

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from secondary_learners.finetuning.sparse.deltas import Delta
    from secondary_learners.finetuning.sparse.tasks import Examples

__all__ = ["DeltaRecipe", "FinishedDelta", "run_delta"]

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class DeltaRecipe:
    """All that determines a delta. examples: to train on, 0 for all of the file."""

    name: str
    task: str
    summary: str = ""
    kind: str = "delta"
    licence: str = "unknown"
    attribution: str = ""
    base: str = "mini"
    train: str
    test: str
    examples: int = 0
    max_length: int = 128
    stored: str = "float16"
    seed: int = 0
    tuning: Tuning = field(default_factory=Tuning)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise RecipeError(
                f"the name {self.name!r} must be lower-case words joined by - . or _, such as "
                "my-task-mini."
            )


@dataclass(frozen=True)
class FinishedDelta:
    """A delta in its folder, and the sha256 of each file."""

    folder: Path
    delta: Delta
    evaluation: dict[str, Any]
    digests: dict[str, str]


def run_delta(
    recipe: DeltaRecipe,
    out: Path,
    *,
    command: str,
    device: str = "cpu",
    compare: bool = True,
    progress: bool = True,
) -> FinishedDelta:
    """Make the delta of `recipe` in the folder `out`, where only an older delta may be.

    compare: also fine-tune the whole model on the same examples with the same seed, to say in the
    card what the delta gives up. Raises what `read_examples`, `fine_tune` and `make_delta` do.
    """
    import torch

    from secondary_learners.finetuning.sparse.deltas import make_delta, save_delta
    from secondary_learners.finetuning.sparse.making import fine_tune
    from secondary_learners.finetuning.sparse.tasks import classifier, evaluate, read_examples
    from secondary_learners.learners.artifact import tokenizer_fingerprint
    from secondary_learners.learners.config import Reference
    from secondary_learners.registry.load import load_base

    base, tokenizer = load_base(recipe.base)
    torch.nn.Module.to(base, device)  # PreTrainedModel.to lost its types
    examples = read_examples(Path(recipe.train), tokenizer, max_length=recipe.max_length)
    test = read_examples(
        Path(recipe.test), tokenizer, names=examples.names, max_length=recipe.max_length
    )
    if recipe.examples:
        examples = examples.sample(recipe.examples)
    tuned = fine_tune(base, examples, recipe.tuning, seed=recipe.seed, progress=progress)
    revision = getattr(base.config, "_commit_hash", None)
    delta = make_delta(
        base,
        tuned.model,
        name=recipe.name,
        base_model=(recipe.base, revision),
        tokenizer=Reference(recipe.base, revision, tokenizer_fingerprint(tokenizer)),
        labels=list(examples.names),
        stored=cast(Any, recipe.stored),
        task={"name": recipe.task, "max_length": recipe.max_length},
        training=_training(recipe, len(examples)),
    )
    applied = delta.apply(classifier(base, len(examples.names)))
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
    readme = delta_card(
        delta.config.to_dict(),
        evaluation,
        summary=recipe.summary or f"The task {recipe.task} as a {recipe.tuning.kind} delta.",
        licence=recipe.licence,
        attribution=recipe.attribution or f"{recipe.task}.",
    )
    digests = save_delta(
        delta,
        out,
        recipe_toml=recipe_toml(cast(Any, recipe)),
        evaluation=evaluation,
        readme=readme,
    )
    return FinishedDelta(out, delta, evaluation, digests)


def _training(recipe: DeltaRecipe, examples: int) -> dict[str, Any]:
    tuning = dataclasses.asdict(recipe.tuning)
    return {**tuning.pop("training"), **tuning, "examples": examples, "seed": recipe.seed}


def _device(model: PreTrainedModel) -> str:
    import torch

    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"


def _majority(test: Examples) -> float:
    counts = [test.labels.count(number) for number in range(len(test.names))]
    return max(counts) / len(test)
