"""An analysis of trials as a figure, in the manner of arXiv 2002.06305."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondary_learners.experiments.trials.analysis import Analysis, TaskAnalysis
from secondary_learners.experiments.trials.best import expected_best
from secondary_learners.experiments.trials.table import TrialsTable, grid
from secondary_learners.figures import (
    COLORS,
    GRAY,
    INK,
    SMALL,
    legend_below,
    new_figure,
    save_figure,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_analysis"]


def plot_analysis(table: TrialsTable, analysis: Analysis, path: Path) -> None:
    """Draw `analysis` of `table` to `path`, in the format of its suffix (.png, .svg, .pdf).

    For each task: the expected best score of n trials ± one standard deviation; every trial
    by its two seeds, sorted by their means, for each arm; and, with curves, the best early-stopping
    setting for each budget and what it gains. Raises MissingExtraError without matplotlib.
    """
    tasks = [
        [task for task in analysis.tasks if task.task == name]
        for name in dict.fromkeys(task.task for task in analysis.tasks)
    ]
    arms = dict.fromkeys(task.arm for task in analysis.tasks)
    colors = dict(zip(arms, COLORS * len(arms), strict=False))
    panels = 1 + len(arms)
    if any(task.stopping for task in analysis.tasks):
        panels += 2 if len(arms) == 1 else 3
    lines = math.ceil(panels / 2)
    figure = new_figure((2.6 if len(arms) == 1 else 3.0) * lines * len(tasks))
    places = figure.subplots(lines * len(tasks), 2, squeeze=False)
    for number, row in enumerate(tasks):
        free = iter(places[number * lines : (number + 1) * lines].flat)
        _draw_best(next(free), table, row, colors)
        scores = [trial.score for task in row for trial in table.of(task.task, task.arm)]
        for task in row:
            _draw_seeds(figure, next(free), table, task, (min(scores), max(scores)))
        if any(task.stopping for task in row):
            _draw_settings(next(free), row, colors)
            if len(arms) > 1:  # else the settings carry it as labels
                _draw_looks(next(free), row, colors)
            _draw_gains(next(free), row, colors)
        for axes in free:
            axes.set_axis_off()
    save_figure(figure, path)


def _titled(axes: Axes, title: str, x: str, y: str) -> None:
    tidy(axes, title=title, grid="y")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _draw_best(
    axes: Axes, table: TrialsTable, row: Sequence[TaskAnalysis], colors: dict[str, str]
) -> None:
    """Figure 1 of the paper: the best of n against n."""
    for task in row:
        scores = [trial.score for trial in table.of(task.task, task.arm)]
        count = len(scores)
        budgets = np.unique(np.geomspace(1, count, min(count, 80)).round().astype(int))
        best = [expected_best(scores, budget) for budget in budgets.tolist()]
        middle = np.array([value.mean for value in best])
        band = np.array([value.deviation for value in best])
        color = colors[task.arm]
        axes.plot(budgets, middle, color=color, linewidth=2, label=task.arm or None)
        top = np.minimum(middle + band, max(scores))  # no sweep can be better than the best trial
        # Draws of more than half of the trials are all alike: the band would only say so.
        half = budgets <= max(1, count / 2)
        axes.fill_between(
            budgets[half], (middle - band)[half], top[half], color=color, alpha=0.18, lw=0
        )
    axes.set_xscale("log")
    ticks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    _titled(axes, f"{row[0].task}: expected best ± sd", "trials", "best score")
    if len(row) > 1:
        legend_below(axes, 1)


def _draw_seeds(
    figure: Figure,
    axes: Axes,
    table: TrialsTable,
    task: TaskAnalysis,
    limits: tuple[float, float],
) -> None:
    """Figure 2 of the paper: each trial by its seeds, the best initialization and order first."""
    inits, orders, scores = grid(table.of(task.task, task.arm))
    rows = np.argsort(-np.nanmean(scores, axis=1), kind="stable")
    columns = np.argsort(-np.nanmean(scores, axis=0), kind="stable")
    image = axes.imshow(
        np.ma.masked_invalid(scores[np.ix_(rows, columns)]),
        cmap="viridis",
        vmin=limits[0],
        vmax=limits[1],
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_facecolor("#dddddd")  # a pair of seeds without a trial
    if len(inits) <= 12 and not table.ranks:
        axes.set_yticks(range(len(inits)), [str(inits[place]) for place in rows])
    else:
        axes.set_yticks([])
    if len(orders) <= 12 and not table.ranks:
        axes.set_xticks(range(len(orders)), [str(orders[place]) for place in columns])
    else:
        axes.set_xticks([])
    title = f"{task.task}, {task.arm}" if task.arm else f"{task.task}: every trial"
    _titled(axes, title, "data orders, best first", "initializations, best first")
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=3)


def _draw_settings(axes: Axes, row: Sequence[TaskAnalysis], colors: dict[str, str]) -> None:
    """Figure 6 of the paper: how many to start and to finish, and when to look."""
    from matplotlib.ticker import MaxNLocator

    for task in row:
        if not task.stopping:
            continue
        color = colors[task.arm]
        budgets = [value.plain.budget for value in task.stopping]
        started = [value.setting.start for value in task.stopping]
        finished = [value.setting.finish for value in task.stopping]
        axes.plot(budgets, started, "o-", color=color, markersize=4, linewidth=1.5)
        axes.plot(budgets, finished, "o--", color=color, markersize=4, linewidth=1.5, mfc="white")
        if len(colors) == 1:
            for value in task.stopping:
                if value.setting.stops:
                    axes.annotate(
                        f"{value.setting.fraction:.0%}",
                        (value.plain.budget, value.setting.start),
                        textcoords="offset points",
                        xytext=(0, 6),
                        ha="center",
                        fontsize=SMALL,
                        color=INK,
                    )
    above = " (above: looked at)" if len(colors) == 1 else ""
    axes.plot([], [], "o-", color=GRAY, label=f"started{above}")
    axes.plot([], [], "o--", color=GRAY, mfc="white", label="finished")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _titled(axes, f"{row[0].task}: best early stopping", "budget (full runs)", "trials")
    legend_below(axes)


def _draw_looks(axes: Axes, row: Sequence[TaskAnalysis], colors: dict[str, str]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for task in row:
        budgets = [value.plain.budget for value in task.stopping]
        looks = [value.setting.fraction for value in task.stopping]
        axes.plot(budgets, looks, "o-", color=colors[task.arm], markersize=4, linewidth=1.5)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _titled(axes, f"{row[0].task}: when to look", "budget (full runs)", "share of the training")


def _draw_gains(axes: Axes, row: Sequence[TaskAnalysis], colors: dict[str, str]) -> None:
    """Figure 7 of the paper: with early stopping against without, at equal cost."""
    from matplotlib.ticker import MaxNLocator

    for task in row:
        if task.stopping:
            budgets = [value.plain.budget for value in task.stopping]
            label = task.arm if len(colors) > 1 else "the best setting"
            color = colors[task.arm]
            best = [value.mean for value in task.stopping]
            plain = [value.plain.mean for value in task.stopping]
            axes.plot(budgets, best, "-", color=color, linewidth=2, label=label)
            axes.plot(budgets, plain, "--", color=color, linewidth=1.5)
            advised = [value.mean for value in task.advised]
            axes.plot(budgets, advised, ":", color=color, linewidth=2)
    axes.plot([], [], ":", color=GRAY, linewidth=2, label="the paper's advice")
    axes.plot([], [], "--", color=GRAY, label="all to the end")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    _titled(axes, f"{row[0].task}: at equal cost", "budget (full runs)", "expected best score")
    legend_below(axes, 1 if len(colors) > 1 else 3)
