"""`learners refresh`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from secondary_learners.cli.devices import resolve_device
from secondary_learners.cli.lock import with_locked
from secondary_learners.cli.output import Output, with_output
from secondary_learners.gains.methods import METHODS

if TYPE_CHECKING:
    from secondary_learners.experiments.refresh import Refreshed
    from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe

__all__ = ["refresh_command"]

_PATH = click.Path(exists=True, path_type=Path)
# 1 is also the status of every error, so that only 0 says that the learner may be used.
_STATUS = {"holds": 0, "stale": 1, "unclear": 3}


@click.command("refresh")
@click.argument("name")
@click.option(
    "--model",
    "model_name",
    required=True,
    help="The model as it is now: a folder, a name from `learners list`, a Hub id.",
)
@click.option("--recipe", help="Whose text to use: a name or a TOML file.  [the learner's own]")
@click.option(
    "--corpus",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder that the recipe's files are in.",
)
@click.option(
    "--objective", type=_PATH, help="Own text instead: what the model should get better at."
)
@click.option("--pool", type=_PATH, help="Own text: what fine-tuning chooses from.")
@click.option(
    "--contexts", type=click.IntRange(min=20), default=500, show_default=True, help="To label."
)
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    help="How gains are measured.  [as the learner's were]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@with_locked
@with_output
def refresh_command(
    output: Output,
    name: str,
    model_name: str,
    recipe: str | None,
    corpus: Path | None,
    objective: Path | None,
    pool: Path | None,
    contexts: int,
    method: str | None,
    seed: int,
    device: str,
) -> int:
    """Does the learner NAME still hold for MODEL's weights as they are now?

    Labels a sample of contexts at these weights and compares with what the learner predicts. The
    contexts are of documents that it was not made from and `learners finetune` does not train on.

    \b
    holds    (exit status 0)  the 95 % interval of the correlation is at or above half of the
                              card's figure
    stale    (exit status 1)  it is below: the filter is worth less than half of what it was
    unclear  (exit status 3)  it is on both sides: ask for more --contexts
    """
    from secondary_learners.experiments.refresh import card_figure, refresh
    from secondary_learners.recipes.gain_learner.comparing import check_length
    from secondary_learners.recipes.gain_learner.data import fresh_data, read_splits
    from secondary_learners.registry.load import load_base, load_learner, locate

    plan = _plan(name, recipe, objective, pool)
    place = resolve_device(device)
    learner = load_learner(name, device=place)
    located = locate(name, kind="learner")
    located.read("evaluation.json")  # compares its digest
    card = card_figure(located.folder)
    model, tokenizer = load_base(model_name)
    learner.check_tokenizer(tokenizer)
    check_length(plan, model)
    model.to(place)  # type: ignore[arg-type]
    data = fresh_data(plan, read_splits(plan, corpus), tokenizer, contexts, seed=seed)
    output.note(
        f"labelling {len(data.candidates)} contexts on {len(data.objective)} of the objective"
    )
    fresh = refresh(
        learner,
        model,
        data.candidates,
        data.objective,
        card=card,
        against=[data.pool] if data.pool is not None else [],
        method=method,
        progress=output.progress,
    )
    output.result(_report(fresh, model_name), {**asdict(fresh), "model": model_name})
    return _STATUS[fresh.verdict]


def _plan(
    name: str, recipe: str | None, objective: Path | None, pool: Path | None
) -> LearnerRecipe:
    """The recipe that says what text; contexts as long as the learner's own."""
    from secondary_learners.recipes.gain_learner.data import learner_recipe
    from secondary_learners.recipes.parsing import find_recipe

    if (objective is None) != (pool is None):
        raise click.UsageError("--objective and --pool go together.")
    if recipe is None:
        return learner_recipe(name, objective, pool)
    if objective is not None:
        raise click.UsageError("a recipe names its text: leave out --objective and --pool.")
    return find_recipe(recipe).on_text()


def _report(fresh: Refreshed, model: str) -> str:
    what = {
        "holds": "what its scores are worth is still at least half of what the card says",
        "stale": "its scores are worth less than half of what the card says. Make a new one with "
        f"`learners run … --base {model}`",
        "unclear": "the interval has half of the card's figure inside. Try more --contexts",
    }
    weights = "other weights than" if fresh.changed else "the very weights that"
    made = "those that its labels came from" if fresh.changed else "its labels came from"
    return (
        f"{fresh.learner} on {model} ({weights} {made}):\n"
        f"Spearman {fresh.spearman:.3f} with {fresh.contexts} fresh {fresh.method} labels, 95 % "
        f"interval {fresh.low:.3f} to {fresh.high:.3f} over {fresh.documents} documents; "
        f"{fresh.card:.3f} on its card, half of it {fresh.bar:.3f}\n"
        f"{fresh.verdict}: {what[fresh.verdict]}."
    )
