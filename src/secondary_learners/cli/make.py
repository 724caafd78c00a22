"""`learners run`, and its two halves by themselves: `learners gains` and `learners fit`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from secondary_learners.cli.columns import with_columns
from secondary_learners.cli.devices import resolve_device
from secondary_learners.cli.invocation import invocation
from secondary_learners.cli.output import Output, with_output
from secondary_learners.cli.tracking import with_report_to
from secondary_learners.errors import LabelStoreError
from secondary_learners.experiments.tracking import figures_of, track, tracked
from secondary_learners.gains.methods import METHODS
from secondary_learners.learners.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from secondary_learners.gains.processes import Team
    from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
    from secondary_learners.recipes.record import Record
    from secondary_learners.recipes.run import Made

__all__ = ["fit_command", "gains_command", "name_of", "report_made", "run_command"]

_PATH = click.Path(exists=True, path_type=Path)


def _trainable(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> str | tuple[str, ...] | None:
    """One word is a subset by its name, unless it can only be a parameter's; the rest are names."""
    if len(values) == 1 and not {".", "*", "?", "["} & set(values[0]):
        return values[0]
    return values or None


def _weights(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> dict[str, float] | None:
    if value is None:
        return None
    weights = {}
    for part in value.split(","):
        name, sign, number = part.partition("=")
        try:
            weights[name.strip()] = float(number if sign else 1)
        except ValueError as error:
            raise click.BadParameter(f"{part!r} is not PART=WEIGHT, such as contrast=1.") from error
    return weights


def _text_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what text a learner is made from, and how it is labelled."""
    options: list[Callable[..., Any]] = [
        click.argument("recipe", required=False),
        click.option(
            "--corpus",
            type=click.Path(file_okay=False, path_type=Path),
            help="The folder that the recipe's files are in.",
        ),
        click.option(
            "--objective",
            type=_PATH,
            help="Own text, without a recipe: what the model should get better at.",
        ),
        click.option("--pool", type=_PATH, help="Own text: what fine-tuning chooses from."),
        click.option(
            "--instructions",
            is_flag=True,
            help="Both are rows (.jsonl, .parquet) of prompts and completions, or chat messages; "
            "the loss is the completion's.",
        ),
        with_columns,
        click.option("--base", help="Base model: a name from `learners list`, a folder, a Hub id."),
        click.option("--contexts", type=click.IntRange(min=20), help="Contexts to label."),
        click.option(
            "--context-length",
            type=click.IntRange(min=2),
            help="Tokens in each; of instructions, at most.",
        ),
        click.option(
            "--method",
            type=click.Choice(list(METHODS)),
            help="How gains are measured.",
        ),
        click.option(
            "--optimizer", type=click.Choice(["adamw", "sgd"]), help="Whose first step is taken."
        ),
        click.option("--learning-rate", type=float, help="Of that step."),
        click.option(
            "--horizon", type=click.IntRange(min=1), help="Updates on the objective a label spans."
        ),
        click.option(
            "--horizon-learning-rate", type=float, help="Of these updates: the fine-tuning's own."
        ),
        click.option(
            "--combine",
            callback=_weights,
            metavar="PART=WEIGHT,…",
            help="A label of standardized parts: step, horizon, contrast, classifier, dsir; such "
            "as step=1,contrast=1.",
        ),
        click.option(
            "--against-contexts",
            type=click.IntRange(min=1),
            help="Contexts of the pool that the objective is held against.",
        ),
        click.option("--unit", type=click.Choice(["nats", "perplexity"]), help="Of the gains."),
        click.option(
            "--objective-contexts", type=click.IntRange(min=1), help="Contexts of the objective."
        ),
        click.option(
            "--exact", type=click.IntRange(min=0), help="Exact labels to check the others against."
        ),
        click.option(
            "--trainable",
            multiple=True,
            callback=_trainable,
            metavar="SUBSET",
            help="What the step moves: all, lora, last-layers:N, or names with wildcards, one an "
            "option.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "tf32", "bfloat16"]),
            help="Of the model's passes while labelling; tf32 takes an NVIDIA GPU.",
        ),
        click.option("--license", help="Of the learner, as the Hub calls it, such as apache-2.0."),
        click.option("--seed", type=int, help="Seed of every random choice."),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("run")
@_text_options
@click.option("--seeds", type=click.IntRange(min=0), help="Seeds of the comparison; 0: none.")
@click.option("--energy", is_flag=True, help="Measure the energy that making it takes.")
@click.option("--country", help="Where, for its CO2: an ISO code such as FRA.  [world average]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make it in.  [runs/NAME]")
@with_report_to
@with_output
def run_command(
    output: Output,
    out: Path | None,
    report_to: str,
    seeds: int | None,
    energy: bool,
    country: str | None,
    corpus: Path | None,
    device: str,
    **text: Any,
) -> None:
    """Make a learner: corpus, labels, fit, evaluation, package. Or a base model, or a delta.

    RECIPE is a name from `learners list --recipes` or a TOML file. Without one, --objective and
    --pool (files or folders of text) make a learner for your own text, or with --instructions for
    your own prompts and completions. A killed run goes on where it was. Under `accelerate launch
    -m secondary_learners`, several processes share the labelling, each on its own GPU.
    """
    from secondary_learners.gains.processes import process_count
    from secondary_learners.recipes.energy import WORLD
    from secondary_learners.recipes.kinds import kind_of
    from secondary_learners.recipes.run import Run, run_recipe

    if country and not energy:
        raise click.UsageError("--country is for --energy: add it, or leave out --country.")
    recipe = _recipe(out, seeds=seeds, **text)
    if process_count() > 1 and "processes" not in recipe.OPTIONS:
        raise click.UsageError(
            f"{recipe.name} is made by one process. Try `learners run {recipe.name}`."
        )
    with _team(output) as (team, output):
        run = Run(
            out=out or Path("runs") / recipe.name,
            corpus=corpus,
            device=resolve_device(device),
            command=invocation(),
            progress=output.progress,
            processes=team,
            energy=(country.upper() if country else WORLD) if energy else None,
        )
        with tracked(report_to if team.first else "none", run.work, recipe.name):
            made = run_recipe(recipe, run)
            if made is not None:
                track(figures_of(made.evaluation), 0)
    if made is not None:
        report_made(output, made, kind_of(recipe).report(made))


@click.command("gains")
@_text_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Label folder.")
@with_output
def gains_command(output: Output, out: Path, corpus: Path | None, device: str, **text: Any) -> None:
    """Measure information gain and store it: the first half of `learners run`.

    The folder gets the labels in Parquet files, what they are in labels.json, and recipe.toml. A
    killed run goes on where it was. Under `accelerate launch -m secondary_learners`, several
    processes share the work, each on its own GPU.
    """
    from secondary_learners.recipes.gain_learner.make import label_recipe
    from secondary_learners.recipes.run import Run

    recipe = _labelled(_recipe(out, **text))
    with _team(output) as (team, output):
        run = Run(
            out=out,
            corpus=corpus,
            device=resolve_device(device),
            progress=output.progress,
            processes=team,
        )
        labels = label_recipe(recipe, run)
    if not team.first:
        return
    facts = labels.facts
    agreement = facts["spearman_with_exact"]
    output.result(
        f"{len(labels.gains)} labels in {out}: mean gain {labels.gains.mean():.3g}, standard "
        f"deviation {labels.gains.std():.3g} {facts['unit']}; Spearman with "
        f"{facts['exact_count']} exact labels "
        + ("not measured" if agreement is None else f"{agreement:.3f}"),
        {"folder": str(out), **facts},
    )


@click.command("fit")
@click.argument("labels", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--architecture",
    "architectures",
    type=click.Choice(list(ARCHITECTURES)),
    multiple=True,
    help="Given twice, the better on held-out documents is packaged.",
)
@click.option("--bigrams", type=int, help="Hash buckets of the linear learner: 0 or 2^k.")
@click.option("--counts", type=click.Choice(["sqrt", "frequency"]), help="Its token counts.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Artifact folder.")
@with_output
def fit_command(output: Output, labels: Path, out: Path, **plan: Any) -> None:
    """Fit and package a learner on LABELS: the second half of `learners run`."""
    from secondary_learners.recipes.gain_learner.make import fit_labels, report
    from secondary_learners.recipes.parsing import find_recipe

    if not (labels / "recipe.toml").is_file():
        raise LabelStoreError(
            f"{labels} holds no finished labels. Try `learners gains RECIPE --out {labels}`."
        )
    recipe = _labelled(find_recipe(str(labels / "recipe.toml")))
    chosen = {name: value for name, value in plan.items() if value not in (None, ())}
    recipe = replace(recipe, name=name_of(out), learner=replace(recipe.learner, **chosen))
    made = fit_labels(recipe, labels, out, command=invocation())
    report_made(output, made, report(made))


@contextmanager
def _team(output: Output) -> Iterator[tuple[Team, Output]]:
    """The processes that share the labelling; all but the first say nothing but what goes wrong."""
    from secondary_learners.gains.processes import joined_team

    with joined_team() as team:
        if not team.first:
            logging.getLogger("secondary_learners").setLevel(logging.WARNING)
        yield team, output if team.first else replace(output, quiet=True)


def _recipe(
    out: Path | None,
    recipe: str | None,
    objective: Path | None,
    pool: Path | None,
    instructions: bool,
    columns: tuple[str, str] | None,
    **options: Any,
) -> Record:
    """The recipe that the options name or describe, with their changes."""
    from secondary_learners.recipes.gain_learner.recipe import InstructionPlan, own_recipe
    from secondary_learners.recipes.parsing import find_recipe

    chosen: Record
    if recipe is not None:
        if objective or pool or instructions or columns:
            raise click.UsageError(
                "a recipe names its text: leave out --objective, --pool, --instructions and "
                "--columns."
            )
        chosen = find_recipe(recipe)
    elif objective and pool:
        plan = InstructionPlan(*columns or ()) if instructions or columns else None
        chosen = own_recipe(name_of(out) if out else "own", objective, pool, plan)
    else:
        raise click.UsageError(
            "give a RECIPE (see `learners list --recipes`), or both --objective and --pool."
        )
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - chosen.OPTIONS:
        raise click.UsageError(
            f"--{name.replace('_', '-')} is for learners whose gains are measured here; "
            f"{chosen.name} is {chosen.WHAT}."
        )
    return chosen.changed(**given)


def name_of(out: Path) -> str:
    """The folder's name as a learner may be called."""
    return re.sub(r"[^a-z0-9]+", "-", out.absolute().name.lower()).strip("-") or "own"


def _labelled(recipe: Record) -> LearnerRecipe:
    """The recipe, once it is sure that it says how gains are measured."""
    from secondary_learners.errors import RecipeError

    try:
        return recipe.on_text()
    except RecipeError as error:
        raise click.UsageError(
            f"{recipe.name} is {recipe.WHAT}. Try `learners run {recipe.name}`."
        ) from error


def report_made(output: Output, made: Made, text: str) -> None:
    """What a run made, in words or as all its figures."""
    output.result(text, {"folder": str(made.folder), **made.evaluation})
