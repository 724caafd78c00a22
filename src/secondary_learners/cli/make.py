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
from secondary_learners.cli.delta import report_delta
from secondary_learners.cli.devices import resolve_device
from secondary_learners.cli.invocation import invocation
from secondary_learners.cli.output import Output, columns, with_output
from secondary_learners.errors import LabelStoreError

if TYPE_CHECKING:
    from secondary_learners.gains.processes import Team
    from secondary_learners.recipes.gain_learner.make import Finished
    from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
    from secondary_learners.recipes.parsing import Recipe

__all__ = ["fit_command", "gains_command", "run_command"]

_LABEL_OPTIONS = (
    "contexts",
    "method",
    "optimizer",
    "learning_rate",
    "unit",
    "objective_contexts",
    "exact",
    "trainable",
    "precision",
)
_PATH = click.Path(exists=True, path_type=Path)


def _trainable(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> str | tuple[str, ...] | None:
    """One word is a subset by its name, unless it can only be a parameter's; the rest are names."""
    if len(values) == 1 and not {".", "*", "?", "["} & set(values[0]):
        return values[0]
    return values or None


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
            type=click.Choice(["swapped", "per-example", "exact"]),
            help="How gains are measured.",
        ),
        click.option(
            "--optimizer", type=click.Choice(["adamw", "sgd"]), help="Whose first step is taken."
        ),
        click.option("--learning-rate", type=float, help="Of that step."),
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
@click.option("--energy", is_flag=True, help="Measure the energy of labelling and fitting.")
@click.option("--country", help="Where, for its CO2: an ISO code such as FRA.  [world average]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to make it in.  [runs/NAME]")
@with_output
def run_command(
    output: Output,
    out: Path | None,
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
    from secondary_learners.recipes.base_model.recipe import PretrainRecipe
    from secondary_learners.recipes.delta.make import run_delta
    from secondary_learners.recipes.delta.recipe import DeltaRecipe
    from secondary_learners.recipes.distilled_learner.recipe import DistilledRecipe
    from secondary_learners.recipes.energy import WORLD
    from secondary_learners.recipes.gain_learner.make import (
        label_recipe,
        run_learner,
        run_pretraining,
    )
    from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
    from secondary_learners.recipes.loss_learner.recipe import MultistageRecipe

    if country and not energy:
        raise click.UsageError("--country is for --energy: add it, or leave out --country.")
    recipe = _recipe(out, **text)
    folder = out or Path("runs") / recipe.name
    common: dict[str, Any] = {"device": resolve_device(device)}
    wanted = (country.upper() if country else WORLD) if energy else None
    if not isinstance(recipe, LearnerRecipe):
        for option, given in (("seeds", seeds is not None), ("energy", energy)):
            if given and not isinstance(recipe, MultistageRecipe):
                raise _only_for_labelling(option, recipe)
        if process_count() > 1:
            raise click.UsageError(
                f"{recipe.name} is made by one process. Try `learners run {recipe.name}`."
            )
        common |= {"command": invocation(), "progress": output.progress}
    if isinstance(recipe, DeltaRecipe):
        report_delta(output, run_delta(recipe, corpus, folder, **common))
        return
    if isinstance(recipe, DistilledRecipe):
        from secondary_learners.recipes.distilled_learner.make import run_distilled

        del common["device"]  # it is made on the CPU
        _report(output, run_distilled(recipe, corpus, folder, **common))
        return
    if isinstance(recipe, PretrainRecipe):
        made = run_pretraining(recipe, corpus, folder, **common)
        loss = made.evaluation["held_out_loss"]
        output.result(f"{folder}: held-out loss {loss:.3f} nats per token", made.evaluation)
        return
    if isinstance(recipe, MultistageRecipe):
        from secondary_learners.recipes.loss_learner.make import run_multistage

        if seeds is not None:
            recipe = replace(recipe, seeds=seeds)
        _report_stages(output, run_multistage(recipe, corpus, folder, energy=wanted, **common))
        return
    with _team(output) as (team, output):
        common |= {"progress": output.progress, "team": team}
        if not team.first:
            label_recipe(recipe, corpus, folder / "work" / "labels", **common)
            return
        if seeds is not None:
            recipe = replace(recipe, evaluation=replace(recipe.evaluation, seeds=seeds))
        _report(
            output,
            run_learner(recipe, corpus, folder, energy=wanted, command=invocation(), **common),
        )


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

    recipe = _learner_recipe(_recipe(out, **text))
    with _team(output) as (team, output):
        labels = label_recipe(
            recipe,
            corpus,
            out,
            device=resolve_device(device),
            progress=output.progress,
            team=team,
        )
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
    type=click.Choice(["linear", "conv"]),
    multiple=True,
    help="Given twice, the better on held-out documents is packaged.",
)
@click.option("--bigrams", type=int, help="Hash buckets of the linear learner: 0 or 2^k.")
@click.option("--counts", type=click.Choice(["sqrt", "frequency"]), help="Its token counts.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Artifact folder.")
@with_output
def fit_command(output: Output, labels: Path, out: Path, **plan: Any) -> None:
    """Fit and package a learner on LABELS: the second half of `learners run`."""
    from secondary_learners.recipes.gain_learner.make import fit_labels
    from secondary_learners.recipes.parsing import find_recipe

    if not (labels / "recipe.toml").is_file():
        raise LabelStoreError(
            f"{labels} holds no finished labels. Try `learners gains RECIPE --out {labels}`."
        )
    recipe = _learner_recipe(find_recipe(str(labels / "recipe.toml")))
    chosen = {name: value for name, value in plan.items() if value not in (None, ())}
    recipe = replace(recipe, name=_name(out), learner=replace(recipe.learner, **chosen))
    _report(output, fit_labels(recipe, labels, out, command=invocation()))


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
    **changes: Any,
) -> Recipe:
    """The recipe that the options name or describe, with their changes."""
    from secondary_learners.recipes.gain_learner.data import own_recipe
    from secondary_learners.recipes.gain_learner.recipe import InstructionPlan, LearnerRecipe
    from secondary_learners.recipes.loss_learner.recipe import MultistageRecipe
    from secondary_learners.recipes.parsing import find_recipe

    if recipe is not None:
        if objective or pool or instructions or columns:
            raise click.UsageError(
                "a recipe names its text: leave out --objective, --pool, --instructions and "
                "--columns."
            )
        found = find_recipe(recipe)
    elif objective and pool:
        plan = InstructionPlan(*columns or ()) if instructions or columns else None
        found = own_recipe(_name(out) if out else "own", objective, pool, plan)
    else:
        raise click.UsageError(
            "give a RECIPE (see `learners list --recipes`), or both --objective and --pool."
        )
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(found, MultistageRecipe):
        for option in given.keys() - {"base", "license"}:
            raise click.UsageError(
                f"--{option.replace('_', '-')} is for recipes of information gain, and {recipe} is "
                "of training losses: write it into a TOML file of your own."
            )
        return replace(found, **given)
    if not isinstance(found, LearnerRecipe):
        if given:
            raise _only_for_labelling(next(iter(given)).replace("_", "-"), found)
        return found
    labels = {name: given.pop(name) for name in _LABEL_OPTIONS if name in given}
    return replace(found, labels=replace(found.labels, **labels), **given)


def _only_for_labelling(option: str, recipe: Recipe) -> click.UsageError:
    return click.UsageError(
        f"--{option} is for learners whose gains are measured here; {recipe.name} is "
        f"{_what(recipe)}."
    )


def _what(recipe: Recipe) -> str:
    if recipe.kind == "distilled":
        return "made from published labels"
    return f"a {recipe.kind.replace('-', ' ')}"


def _name(out: Path) -> str:
    """The folder's name as a learner may be called."""
    return re.sub(r"[^a-z0-9]+", "-", out.absolute().name.lower()).strip("-") or "own"


def _learner_recipe(recipe: Recipe) -> LearnerRecipe:
    from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe

    if not isinstance(recipe, LearnerRecipe):
        raise click.UsageError(
            f"{recipe.name} is {_what(recipe)}. Try `learners run {recipe.name}`."
        )
    return recipe


def _report(output: Output, made: Finished) -> None:
    lines = [made.comparison.table(), ""] if made.comparison else []
    lines += [
        f"{name}: Spearman {figures['spearman']:.3f} on held-out documents"
        for name, figures in made.evaluation["held_out"].items()
    ]
    lines += [f'the learner is in {made.folder}: load_learner("{made.folder}")']
    output.result("\n".join(lines), {"folder": str(made.folder), **made.evaluation})


def _report_stages(output: Output, made: Finished) -> None:
    from secondary_learners.experiments.multistage import HEADER, cells

    comparison = made.evaluation["fine_tuning"]
    rows = comparison["rows"] if comparison else []
    lines = [columns([HEADER, *map(cells, rows)]), ""] if rows else []
    figures = made.evaluation["held_out"]["linear"]
    lines += [
        f"Spearman {figures['spearman']:.3f} with losses of held-out examples",
        f'the learner is in {made.folder}: load_learner("{made.folder}")',
    ]
    output.result("\n".join(lines), {"folder": str(made.folder), **made.evaluation})
