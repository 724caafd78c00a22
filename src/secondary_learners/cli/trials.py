"""`learners trials`: what a table of trials over seeds says, and how to spend a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from secondary_learners.cli import LazyGroup
from secondary_learners.cli.output import Output, columns, with_output

if TYPE_CHECKING:
    from secondary_learners.finetuning.trials.analysis import Analysis, ArmTest, TaskAnalysis
    from secondary_learners.finetuning.trials.plan import Plan

__all__ = ["analyse_command", "plan_command", "trials_command"]

_SHOWN = (1, 2, 3, 5, 10, 20, 30)  # budgets; --json has them all
_TRIALS = {
    "analyse": ("trials", "What a table of trials says: luck, best of n, seeds, early stopping."),
    "plan": ("trials", "How many to start, when to look, how many to finish."),
}


@click.group("trials", cls=LazyGroup, table=_TRIALS)
def trials_command() -> None:
    """Trials over two seeds, one for new weights and one for the order of the examples.

    \b
    A TABLE is a CSV with the columns task, init_seed, order_seed and score, a row a trial;
    or also fraction (of the training), a row an evaluation. arm and diverged are optional.
    """


@click.command("analyse")
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
def analyse_command(
    output: Output,
    table: Path,
    floors: tuple[str, ...],
    differences: tuple[float, ...],
    final: bool,
    plot: Path | None,
) -> None:
    """What a table of trials says: luck, best of n, seeds, early stopping."""
    from secondary_learners.finetuning.trials.analysis import analyse
    from secondary_learners.finetuning.trials.plots import plot_analysis
    from secondary_learners.finetuning.trials.table import read_table

    trials = read_table(table)
    trials = trials.finals() if final else trials
    wanted = differences or (0.01,)
    analysis = analyse(trials, floors=_floors(floors, trials.tasks), differences=wanted)
    if plot is not None:
        plot_analysis(trials, analysis, plot)
        output.note(f"plot: {plot}")
    output.result(_text(analysis), {"table": str(table), **analysis.to_dict()})


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
    from secondary_learners.finetuning.trials.plan import plan
    from secondary_learners.finetuning.trials.table import read_table

    table = read_table(pilot)
    plans = [
        plan(table.of(task, arm), budget, seed=seed)
        for task in table.tasks
        for arm in table.arms(task)
    ]
    output.result(
        "\n\n".join(map(_plan_text, plans)),
        {"pilot": str(pilot), "plans": [found.to_dict() for found in plans]},
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
            raise UnknownNameError("task", task, tasks, "learners trials analyse --help")
    return floors


def _text(analysis: Analysis) -> str:
    parts = ["Scores over seeds (sd: standard deviation)", _spreads(analysis.tasks)]
    parts += ["\nExpected best of n trials ± sd from one sweep to another", _bests(analysis.tasks)]
    contrasts = _contrasts(analysis.tasks)
    if len(contrasts) > 1:
        parts += [
            "\nDo seeds differ? The best against the worst, which were picked for it, and all",
            columns(contrasts),
        ]
    for arm, seeds in analysis.initialisations:
        best = ", ".join(f"{seed} ({rank:.1f})" for seed, rank in list(seeds.ranks.items())[:5])
        over = ", ".join([*seeds.tasks, *([f"arm {arm}"] if arm else [])])
        parts.append(
            f"\nInitialisations over {over}: agreement W = {seeds.agreement:.2f} "
            f"(p = {seeds.p:.2g}); best mean ranks: {best}"
        )
    if any(task.stopping for task in analysis.tasks):
        parts += [
            "\nEarly stopping, by budget in full runs: picked on these trials, and advised",
            _stops(analysis.tasks),
        ]
    if analysis.arms:
        parts += ["\nArms, on the seeds that both ran", _arms(analysis.arms)]
    parts += [
        f"\nnote: {note}" if place == 0 else f"note: {note}"
        for place, note in enumerate(analysis.notes)
    ]
    return "\n".join(parts)


def _name(task: TaskAnalysis | Plan) -> str:
    return f"{task.task}, {task.arm}" if task.arm else task.task


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _spreads(tasks: tuple[TaskAnalysis, ...]) -> str:
    differences = list(tasks[0].seeds_for)
    head = ["task", "trials", "diverged", "mean", "sd", "within init", "within order", "best"]
    rows = [[*head, *(f"seeds for ±{difference:g}" for difference in differences)]]
    for task in tasks:
        spread = task.spread
        rows.append(
            [
                _name(task),
                str(spread.trials),
                "?" if task.diverged is None else str(task.diverged),
                *map(_number, (spread.mean, spread.deviation)),
                *map(_number, (spread.within_init, spread.within_order, spread.best)),
                *(str(task.seeds_for.get(difference) or "-") for difference in differences),
            ]
        )
    return columns(rows)


def _bests(tasks: tuple[TaskAnalysis, ...]) -> str:
    longest = max(tasks, key=lambda task: len(task.best_of))
    rows = [["task", *(f"n = {best.budget}" for best in longest.best_of)]]
    for task in tasks:
        cells = [f"{best.mean:.4f} ± {best.deviation:.4f}" for best in task.best_of]
        rows.append([_name(task), *cells, *[""] * (len(longest.best_of) - len(cells))])
    return columns(rows)


def _contrasts(tasks: tuple[TaskAnalysis, ...]) -> list[list[str]]:
    names = {"init": "initialisation", "order": "data order"}
    rows = [["task", "seeds of", "best (seed)", "worst (seed)", "F", "p", "F of all", "p of all"]]
    for task in tasks:
        rows += [
            [
                _name(task),
                names[found.kind],
                f"{found.best_mean:.4f} ({found.best_seed})",
                f"{found.worst_mean:.4f} ({found.worst_seed})",
                *(f"{value:.3g}" for value in (found.f, found.p, found.f_all, found.p_all)),
            ]
            for found in task.contrasts
        ]
    return rows


def _stops(tasks: tuple[TaskAnalysis, ...]) -> str:
    head = ["task", "budget", "best setting", "expected best", "without", "gain"]
    rows = [[*head, "the paper's advice", "gain"]]
    for task in tasks:
        rows += [
            [
                _name(task),
                str(found.plain.budget),
                str(found.setting),
                f"{found.mean:.4f} ± {found.deviation:.4f}",
                f"{found.plain.mean:.4f}",
                f"{found.gain:+.4f}",
                str(advised.setting),
                f"{advised.gain:+.4f}",
            ]
            for found, advised in zip(task.stopping, task.advised, strict=True)
            if found.plain.budget in _SHOWN
        ]
    return columns(rows)


def _arms(tests: tuple[ArmTest, ...]) -> str:
    rows = [
        ["task", "arms", "pairs", "difference", "p", "sds", "p (sds)", "seeds paired", "unpaired"]
    ]
    for test in tests:
        rows.append(
            [
                test.task,
                f"{test.second or 'none'} - {test.first or 'none'}",
                str(test.pairs),
                f"{test.difference:+.4f}",
                f"{test.p:.3g}",
                " and ".join(_number(value) for value in reversed(test.deviations)),
                f"{test.p_spread:.3g}",
                str(test.seeds_paired or "-"),
                str(test.seeds_unpaired or "-"),
            ]
        )
    return columns(rows)


def _plan_text(found: Plan) -> str:
    setting = found.setting
    lines = [
        f"{_name(found)}: with a budget of {found.budget} full runs, {setting} "
        f"(cost {setting.cost:.2f}).",
        f"  expected best  {found.expected:.4f} ± {found.error:.4f} (one sweep to another: "
        f"± {found.deviation:.4f})",
        f"  all to the end {found.plain:.4f}",
        f"  gain           {found.gain:+.4f} ± {found.gain_error:.4f}, after {found.optimism:.4f} "
        "off for having picked the best of many settings",
    ]
    if not setting.stops:
        lines.append(f"  best with early stopping, not worth it: {found.candidate}")
    return "\n".join([*lines, *(f"  mind: {warning}" for warning in found.warnings)])
