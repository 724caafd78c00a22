"""`learners worth`: will a filter pay, before paying for one?"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from secondary_learners.cli.devices import resolve_device
from secondary_learners.cli.invocation import invocation
from secondary_learners.cli.output import Output, columns, with_output

if TYPE_CHECKING:
    from secondary_learners.experiments.worth import Worth
    from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe

__all__ = ["worth_command"]

_PATH = click.Path(exists=True, path_type=Path)


@click.command("worth")
@click.option("--objective", type=_PATH, required=True, help="What to get better at: own text.")
@click.option("--pool", type=_PATH, required=True, help="Own text that fine-tuning chooses from.")
@click.option("--base", default="mini", show_default=True, help="The model to be fine-tuned.")
@click.option("--contexts", type=click.IntRange(min=100), default=600, show_default=True)
@click.option("--context-length", type=click.IntRange(min=2), default=32, show_default=True)
@click.option("--seeds", type=click.IntRange(min=2), default=4, show_default=True)
@click.option("--updates", type=click.IntRange(min=2), default=30, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--learning-rate",
    type=float,
    default=2e-4,
    show_default=True,
    help="Of the fine-tuning to come.",
)
@click.option(
    "--keep", type=click.FloatRange(0.01, 0.99), default=0.22, show_default=True, help="The share."
)
@click.option("--trainable", metavar="SUBSET", help="What is tuned: all, lora, last-layers:N.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/worth"),
    show_default=True,
    help="Folder for the labels, the runs and the learner that they give.",
)
@with_output
def worth_command(
    output: Output,
    objective: Path,
    pool: Path,
    base: str,
    contexts: int,
    context_length: int,
    seeds: int,
    updates: int,
    batch_size: int,
    learning_rate: float,
    keep: float,
    trainable: str | None,
    device: str,
    out: Path,
) -> None:
    """Would a filter pay on POOL? A few hundred labels and a short run of each arm.

    Says what a filter would save over plain training, over blind skipping and over a classifier of
    the same text, each with an interval, what labels and scores cost, how many seeds would show
    it, and "do not bother" where that is the answer. The learner it makes on the way is kept.

    \b
    Example: learners worth --objective good.jsonl --pool all.jsonl --base ./my-model
    """
    from secondary_learners.experiments.worth import worth_of
    from secondary_learners.recipes.gain_learner.make import label_recipe
    from secondary_learners.recipes.gain_learner.recipe import (
        EvaluationPlan,
        LabelPlan,
        own_recipe,
    )
    from secondary_learners.recipes.run import Run, run_recipe

    recipe = replace(
        own_recipe("worth", objective, pool),
        base=base,
        context_length=context_length,
        labels=LabelPlan(
            contexts=contexts,
            objective_contexts=max(20, contexts // 4),
            against_contexts=contexts // 2,
            horizon=updates,
            horizon_learning_rate=learning_rate,
            update_batch=batch_size,
            combine={"step": 1.0, "contrast": 1.0},
            trainable=trainable,
            exact=0,
        ),
        evaluation=EvaluationPlan(
            seeds=seeds,
            updates=updates,
            batch_size=batch_size,
            learning_rate=learning_rate,
            thresholds=(f"quantile:{keep:g}",),
            against=_selectors(output),
            trainable=trainable,
            evaluate_every=max(1, updates // 6),
        ),
    )
    run = Run(
        out=out,
        device=resolve_device(device),
        command=invocation(),
        progress=output.progress,
    )
    begun = time.perf_counter()
    labels = label_recipe(recipe, replace(run, out=run.work / "labels"))
    seconds = time.perf_counter() - begun
    made = run_recipe(recipe, run)
    assert made is not None and made.comparison is not None
    worth = worth_of(made.comparison)
    cost = {"labels": len(labels.gains), "label_seconds": round(seconds, 1)}
    output.result(
        _report(worth, recipe, cost["label_seconds"]),
        {"folder": str(out), **asdict(worth), **cost},
    )
    output.note(f"\nthe learner of these labels is in {out}, with its card")


def _selectors(output: Output) -> tuple[str, ...]:
    from importlib.util import find_spec

    if find_spec("sklearn"):
        return ("classifier",)
    output.note('without a classifier to compare with: pip install "secondary-learners[selectors]"')
    return ()


def _report(worth: Worth, recipe: LearnerRecipe, seconds: float) -> str:
    lines = [("over", "perplexity saved", "95 % interval", "seeds to show it")]
    for saving in worth.savings:
        interval = f"{saving.low * 100:+.1f} to {saving.high * 100:+.1f} %"
        seeds = "-" if saving.seeds is None else str(saving.seeds)
        lines.append((saving.arm, f"{saving.share * 100:+.1f} %", interval, seeds))
    reached = (
        f"The filtered run was where plain training ended after {worth.updates:.0f} of "
        f"{worth.of_updates} updates."
        if worth.updates is not None
        else f"In {worth.of_updates} updates the filtered run did not get as far as plain training."
    )
    advice = {
        "filter": "Worth it: the filter is ahead of plain training and of blind skipping"
        + (", and of the classifier." if recipe.evaluation.against else "."),
        "other": f"Skip, but without labels: {worth.better} keeps what does as well, and asks no "
        "model. `learners run --method classifier` makes such a learner.",
        "small": "Do not bother: less than half a percent would be saved.",
        "unclear": "These runs cannot say. Try more --seeds (see the last column), or more "
        "--contexts.",
    }
    return "\n".join(
        [
            columns(lines),
            "",
            f"{reached} It kept {worth.kept:.0%} of the candidates; {recipe.labels.contexts} "
            f"labels took {seconds:.0f} s.",
            advice[worth.advice],
        ]
    )
