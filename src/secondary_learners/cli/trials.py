"""`learners trials`: run a grid of seeds, say what a table of trials means, spend a budget."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from secondary_learners.cli import LazyGroup
from secondary_learners.cli.output import Output, with_output
from secondary_learners.cli.tracking import with_report_to
from secondary_learners.cli.trials_text import analysis_text, plan_text, spreads
from secondary_learners.experiments.tracking import tracked

if TYPE_CHECKING:
    from secondary_learners.experiments.trials.stopping import Setting
    from secondary_learners.experiments.trials.sweep import Filter

__all__ = ["analyze_command", "plan_command", "run_command", "trials_command"]

_TRIALS = {
    "run": ("commands", "trials", "Fine-tune a classifier once for each pair of seeds."),
    "analyze": (
        "commands",
        "trials",
        "What a table of trials says: luck, best of n, seeds, early stopping.",
    ),
    "plan": ("commands", "trials", "How many to start, when to look, how many to finish."),
}


@click.group("trials", cls=LazyGroup, table=_TRIALS)
def trials_command() -> None:
    """Trials over two seeds, one for new weights and one for the order of the examples.

    \b
    A TABLE is a CSV with the columns task, init_seed, order_seed and score, a row a trial;
    or also fraction (of the training), a row an evaluation. arm and diverged are optional.
    """


@click.command("run")
@click.option(
    "--task",
    "paths",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    required=True,
    help="A folder with train.tsv and dev.tsv, or one .tsv file; may be given several times.",
)
@click.option("--base", default="mini", show_default=True, help="Base model to fine-tune.")
@click.option("--init-seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--order-seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="LEARNER=THRESHOLD",
    help="An arm that trains on what the learner keeps, as books-mini=quantile:0.5. May be given "
    "several times; with `none`, also an arm without, and with random=quantile:0.5 one that skips "
    "half blindly.  [none]",
)
@click.option("--epochs", type=float, default=3.0, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--learning-rate", type=float, default=2e-4, show_default=True)
@click.option("--max-length", type=click.IntRange(min=2), default=128, show_default=True)
@click.option(
    "--evaluations", type=click.IntRange(min=1), default=10, show_default=True, help="Per epoch."
)
@click.option("--metric", help="accuracy, f1 or matthews.  [as GLUE has it, else accuracy]")
@click.option("--train-examples", type=click.IntRange(min=2), help="Train on a subset only.")
@click.option("--dev-examples", type=click.IntRange(min=2), help="Evaluate on a subset only.")
@click.option("--precision", default="float32", show_default=True, help="float32 or bfloat16.")
@click.option(
    "--early-stop",
    metavar="T,F,P",
    help="Start T trials, look after the share F of the training, finish the best P.",
)
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or auto.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for trials.csv and trials.db; given again, the sweep goes on.",
)
@with_report_to
@with_output
def run_command(
    output: Output,
    paths: tuple[Path, ...],
    base: str,
    init_seeds: int,
    order_seeds: int,
    filters: tuple[str, ...],
    epochs: float,
    batch_size: int,
    learning_rate: float,
    max_length: int,
    evaluations: int,
    metric: str | None,
    train_examples: int | None,
    dev_examples: int | None,
    precision: str,
    early_stop: str | None,
    processes: int,
    device: str,
    out: Path,
    report_to: str,
) -> None:
    """Fine-tune a classifier once for each pair of seeds.

    One seed sets the weights of the new layers, the other the order of the examples and dropout. A
    killed sweep goes on with the same command; with more seeds it is extended.

    \b
    learners trials run --task cola/ --task rte/ --out runs/luck
    learners trials run --task cola/ --filter none --filter books-mini=quantile:0.5 --out runs/f
    learners trials run --task rte/ --early-stop 12,0.3,3 --out runs/early
    """
    from secondary_learners.cli.devices import resolve_device
    from secondary_learners.experiments.trials.analysis import analyze
    from secondary_learners.experiments.trials.sweep import Running, SweepPlan, run_trials
    from secondary_learners.experiments.trials.training import TrialSettings
    from secondary_learners.registry.load import load_base
    from secondary_learners.tasks.reading import read_task

    setting = None if early_stop is None else _setting(early_stop)
    settings = TrialSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        evaluations=evaluations,
        max_length=max_length,
        precision=precision,
    )
    tasks = [
        read_task(path, metric=metric, train_examples=train_examples, dev_examples=dev_examples)
        for path in paths
    ]
    arms = [_filter(text) for text in filters or ("none",)]
    place = resolve_device(device)
    model, tokenizer = load_base(base)
    for task in tasks:
        output.note(
            f"{task.name}: {len(task.train)} examples to train on, {len(task.dev)} to evaluate on, "
            f"{settings.steps(len(task.train))} steps a trial, scored by {task.metric}"
        )
    with tracked(report_to, out, out.name):
        sweep = run_trials(
            tasks,
            model,
            tokenizer,
            init_seeds=range(init_seeds),
            order_seeds=range(order_seeds),
            folder=out,
            plan=SweepPlan(filters=arms, settings=settings, early_stop=setting),
            running=Running(processes=processes, device=place, progress=output.progress),
        )
    for name, used in sweep.settings_of.items():
        output.note(f"{name}: {used} (cost {used.cost:.2f} full runs)")
    table = out / "trials.csv"
    floors = ", ".join(f"{name}={floor:.4g}" for name, floor in sweep.table.floors.items())
    value = {
        "table": str(table),
        "storage": str(out / "trials.db"),
        "trials": len(sweep.table.trials),
        "stopped": sweep.table.unfinished(),
        "floors": dict(sweep.table.floors),
        "early_stopping": {
            name: {**asdict(used), "cost": used.cost} for name, used in sweep.settings_of.items()
        },
    }
    if sweep.table.unfinished() == len(sweep.table.trials):
        output.result(f"all trials were stopped at the look: {table}", {**value, "tasks": []})
        return
    analysis = analyze(sweep.table)
    output.result(spreads(analysis.tasks), {**value, "tasks": analysis.to_dict()["tasks"]})
    output.note(f"always the most frequent class: {floors}")
    output.note(f"every curve: {table}. Try `learners trials analyze {table}`")


def _setting(text: str) -> Setting:
    from secondary_learners.experiments.trials.stopping import Setting

    try:
        start, fraction, finish = text.split(",")
        return Setting(int(start), float(fraction), int(finish))
    except ValueError:
        raise click.UsageError(
            f"--early-stop {text} is not T,F,P, as in --early-stop 12,0.3,3."
        ) from None


def _filter(text: str) -> Filter | None:
    from secondary_learners.experiments.trials.sweep import Filter
    from secondary_learners.filtering.thresholds import parse_threshold
    from secondary_learners.registry.load import load_learner

    if text == "none":
        return None
    learner, equals, threshold = text.rpartition("=")
    if not equals:
        raise click.UsageError(
            f"--filter {text} is not LEARNER=THRESHOLD, as in --filter books-mini=quantile:0.5, "
            "nor random=THRESHOLD or none."
        )
    if learner == "random":
        return Filter(learner, None, parse_threshold(threshold))
    judge = load_learner(learner)
    return Filter(judge.config.name, judge, parse_threshold(threshold))


@click.command("analyze")
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--floor",
    "floors",
    multiple=True,
    metavar="TASK=SCORE",
    help="A trial that ends at or below this has diverged: the score of always answering the most "
    "frequent label. May be given for each task.",
)
@click.option(
    "--difference",
    "differences",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    help="Say how many seeds would show it; may be given several times.  [0.01]",
)
@click.option("--final", is_flag=True, help="Judge by the last evaluation, not by the best.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw it, to a .png, .svg or .pdf file.",
)
@with_output
def analyze_command(
    output: Output,
    table: Path,
    floors: tuple[str, ...],
    differences: tuple[float, ...],
    final: bool,
    plot: Path | None,
) -> None:
    """What a table of trials says: luck, best of n, seeds, early stopping."""
    from secondary_learners.experiments.trials.analysis import analyze
    from secondary_learners.experiments.trials.analysis_figure import plot_analysis
    from secondary_learners.experiments.trials.table import read_table

    trials = read_table(table)
    trials = trials.finals() if final else trials
    wanted = differences or (0.01,)
    analysis = analyze(trials, floors=_floors(floors, trials.tasks), differences=wanted)
    if plot is not None:
        plot_analysis(trials, analysis, plot)
        output.note(f"plot: {plot}")
    output.result(analysis_text(analysis), {"table": str(table), **analysis.to_dict()})


@click.command("plan")
@click.argument("pilot", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--budget", type=click.IntRange(min=1), required=True, help="What there is, in full runs."
)
@click.option("--seed", type=int, default=0, show_default=True, help="For resampling the pilot.")
@with_output
def plan_command(output: Output, pilot: Path, budget: int, seed: int) -> None:
    """How many trials to start, when to look, how many to finish.

    PILOT is a table of trials with curves (a column `fraction`). Each task and arm has its own
    plan.
    """
    from secondary_learners.experiments.trials.plan import plan
    from secondary_learners.experiments.trials.table import read_table

    table = read_table(pilot)
    plans = [
        plan(table.of(task, arm), budget, seed=seed)
        for task in table.tasks
        for arm in table.arms(task)
    ]
    output.result(
        "\n\n".join(map(plan_text, plans)),
        {"pilot": str(pilot), "plans": [each.to_dict() for each in plans]},
    )


def _floors(given: tuple[str, ...], tasks: tuple[str, ...]) -> dict[str, float]:
    from secondary_learners.errors import UnknownNameError

    floors = {}
    for text in given:
        task, _, score = text.rpartition("=")
        try:
            floors[task] = float(score)
        except ValueError:
            task = ""
        if not task:
            raise click.UsageError(f"--floor {text} is not TASK=SCORE, as in --floor rte=0.53.")
        if task not in tasks:
            raise UnknownNameError("task", task, tasks, "learners trials analyze --help")
    return floors
