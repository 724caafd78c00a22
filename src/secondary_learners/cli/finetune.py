"""`learners finetune` and `learners demo`: with the filter, at random and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from secondary_learners.cli.devices import resolve_device
from secondary_learners.cli.lock import with_locked
from secondary_learners.cli.output import Output, with_output
from secondary_learners.cli.tracking import with_report_to
from secondary_learners.errors import MissingExtraError
from secondary_learners.experiments.tracking import tracked

if TYPE_CHECKING:
    from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe

__all__ = ["demo_command", "finetune_command"]


@click.command("finetune")
@click.option(
    "--learner",
    "-l",
    required=True,
    help="A name from `learners list`, owner/name on a Hub, or a folder.",
)
@click.option("--base", help="Base model to fine-tune.  [the learner's own]")
@click.option(
    "--corpus",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder with the text of the learner's recipe.",
)
@click.option(
    "--objective",
    type=click.Path(exists=True, path_type=Path),
    help="Own text instead: what the model should get better at (file or folder).",
)
@click.option(
    "--pool",
    type=click.Path(exists=True, path_type=Path),
    help="Own text: what to choose from, mixed with 30 % of the objective's.",
)
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    help="1, shifting:1,-1,10, quantile:0.3, or one of these made soft, such as soft:0.5:1; may be "
    "given several times.  [1]",
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--updates", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--learning-rate", type=float, default=2e-4, show_default=True)
@click.option(
    "--against",
    multiple=True,
    metavar="NAMES",
    help="Other ways to select, at the filter's own draws: classifier, dsir (these need the extra "
    "`selectors`), perplexity, middle-perplexity, length, everything; with commas between, or "
    "several times.",
)
@click.option(
    "--trainable", metavar="SUBSET", help="What is tuned: all, lora or last-layers:N.  [all]"
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "tf32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the model's passes.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the curves, the plot and the table.  [runs/finetune-LEARNER]",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    help="Then fine-tune once more with the first threshold, and save the model there.",
)
@with_report_to
@with_locked
@with_output
def finetune_command(
    output: Output,
    learner: str,
    base: str | None,
    corpus: Path | None,
    objective: Path | None,
    pool: Path | None,
    thresholds: tuple[str, ...],
    seeds: int,
    updates: int,
    batch_size: int,
    learning_rate: float,
    against: tuple[str, ...],
    trainable: str | None,
    precision: str,
    device: str,
    out: Path | None,
    save: Path | None,
    report_to: str,
) -> None:
    """Fine-tune with the filter, with random skipping at the same rate and without, and compare.

    Every run has the same number of updates. A killed comparison goes on where it was.
    """
    from secondary_learners.recipes.gain_learner.data import learner_recipe
    from secondary_learners.recipes.gain_learner.recipe import EvaluationPlan

    if (objective is None) != (pool is None):
        raise click.UsageError("--objective and --pool go together.")
    if save is not None and save.exists():
        raise click.UsageError(f"--save {save} exists already: name a new folder.")
    recipe = learner_recipe(learner, objective, pool)
    plan = EvaluationPlan(
        seeds=seeds,
        updates=updates,
        batch_size=batch_size,
        learning_rate=learning_rate,
        thresholds=thresholds or ("1",),
        test_contexts=recipe.evaluation.test_contexts,
        against=_names(against),
        trainable=trainable,
        precision=precision,
    )
    recipe = replace(recipe, evaluation=plan, base=base or recipe.base)
    folder = out or Path("runs") / f"finetune-{Path(learner).name}"
    with tracked(report_to, folder, folder.name):
        _compare(output, recipe, learner, corpus, folder, device, save)


def _names(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for words in given for name in words.split(",") if name.strip())


@click.command("demo")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/demo"),
    show_default=True,
)
@with_output
def demo_command(output: Output, seeds: int, out: Path) -> None:
    """The main job, offline: fine-tune `mini` on Python's own text, filtered and not.

    Loads the learner python-docs-mini by name and asks it to pick out, from text that is mostly
    docstrings and noise, what helps on the language reference.
    """
    from secondary_learners.recipes.parsing import find_recipe

    recipe = find_recipe("python-docs-mini").on_text()
    plan = replace(recipe.evaluation, seeds=seeds, thresholds=("1",))
    _compare(output, replace(recipe, evaluation=plan), recipe.name, None, out, "cpu", None)


def _compare(
    output: Output,
    recipe: LearnerRecipe,
    learner: str,
    corpus: Path | None,
    out: Path,
    device: str,
    save: Path | None,
) -> None:
    from secondary_learners.experiments.compare import finetune
    from secondary_learners.experiments.comparison_figure import plot_comparison
    from secondary_learners.experiments.summary import plain_words
    from secondary_learners.files import atomic_folder, write_json
    from secondary_learners.recipes.gain_learner.comparing import OWN, compare_plan
    from secondary_learners.recipes.gain_learner.data import (
        finetuning_data,
        labelling_data,
        read_splits,
    )
    from secondary_learners.recipes.run import Run
    from secondary_learners.registry.load import load_base, load_learner

    place = resolve_device(device)
    judge = load_learner(learner, device=place)
    model, tokenizer = load_base(recipe.base)
    judge.check_tokenizer(tokenizer)
    config = judge.config
    output.note(f"learner {config.name}: {config.architecture}, for {config.base_model.repo}")
    splits = read_splits(recipe, corpus)
    data = finetuning_data(recipe, splits, tokenizer)
    text = labelling_data(recipe, splits, tokenizer) if recipe.evaluation.against else None
    output.note(
        f"{len(data.stream)} contexts to draw from, {recipe.in_domain_share:.0%} of them "
        f"{recipe.objective_domain}; {len(data.test)} to test on; "
        f"{recipe.evaluation.updates} updates, {recipe.evaluation.seeds} seeds"
    )
    run = Run(out=out, device=place, progress=output.progress)
    comparison = compare_plan(
        recipe, {OWN: data.stream}, data.test, text, judge, (model, tokenizer), out, run
    )[OWN]
    write_json(out / "comparison.json", comparison.to_dict())
    output.result(
        f"\n{comparison.table()}\n\n{plain_words(comparison)}",
        {"folder": str(out), **comparison.to_dict()},
    )
    try:
        plot_comparison(comparison, out / "comparison.png")
    except MissingExtraError as error:  # the figures are there all the same
        output.note(f"\nno plot: {error}")
    else:
        output.note(f"\nplot: {out / 'comparison.png'}")
    output.note(f"figures: {out / 'comparison.json'}")
    if save is not None:
        filter_ = next(arm.threshold for arm in comparison.arms if arm.kind == "filtered")
        assert filter_ is not None
        tuned = finetune(
            model,
            data.stream,
            data.test,
            judge,
            threshold=filter_,
            settings=comparison.settings,
            device=place,
        )
        with atomic_folder(save) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        output.note(f"model: {save}, perplexity {tuned.perplexity:.2f} with {filter_}")
