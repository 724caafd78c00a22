"""A comparison as a figure: curves of test perplexity, and where each seed ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondary_learners.experiments.compare import Arm, Comparison
from secondary_learners.experiments.statistics import standard_error
from secondary_learners.figures import COLORS, GRAY, INK, SMALL, new_figure, save_figure, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_comparison"]

_IN_DOMAIN = COLORS[2]
_FILTERED = (COLORS[0], COLORS[1], *COLORS[3:])  # a random arm shares its filter's
_LINES = {"random": (0, (3, 2)), "selector": (0, (6, 2)), "everything": (0, (1, 1))}


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Draw `comparison` to `path`, in the format of its suffix (.png, .svg, .pdf).

    Above, mean test perplexity ± standard error against updates, and the final perplexity of every
    seed with its box for each arm, in the manner of figure 1 of Antonello et al. 2021; below, the
    same curves against the tokens drawn and the seconds of training and filtering.
    Raises MissingExtraError without matplotlib.
    """
    figure = new_figure(6.8)
    colors = _colors(comparison)
    # The best arm on top, so that the boxes read as a ranking.
    ranked = sorted(
        comparison.arms, key=lambda arm: comparison.curves(arm)[1][:, -1].mean(), reverse=True
    )
    (left, right), (tokens, seconds) = figure.subplots(2, 2)
    size, count = comparison.settings.batch_size, len(comparison.seeds)
    _draw_curves(left, comparison, colors, "update", f"updates (batches of {size} contexts)")
    left.set_xlim(0, comparison.settings.updates)
    tidy(left, title="Mean ± standard error", grid="y")
    _draw_boxes(right, comparison, ranked, colors)
    seeds = f"{count} {'seed' if count == 1 else 'seeds'}"
    tidy(right, title=f"After {comparison.settings.updates} updates, {seeds}", grid="x")
    _draw_curves(tokens, comparison, colors, "drawn_tokens", "tokens drawn, skipped ones included")
    tidy(tokens, title="What it reads", grid="y")
    _draw_curves(seconds, comparison, colors, "seconds", "seconds of training and filtering")
    tidy(seconds, title="What it takes", grid="y")
    lines, names = left.get_legend_handles_labels()
    figure.legend(lines, names, frameon=False, fontsize=SMALL, loc="outside lower center", ncols=3)
    save_figure(figure, path)


def _colors(comparison: Comparison) -> dict[str, str]:
    colors = {}
    filters = [arm.threshold for arm in comparison.arms if arm.kind == "filtered"]
    others = [arm.name for arm in comparison.arms if arm.kind in ("selector", "everything")]
    for arm in comparison.arms:
        if arm.kind in ("filtered", "random"):
            colors[arm.name] = _FILTERED[filters.index(arm.threshold) % len(_FILTERED)]
        elif arm.name in others:
            place = len(filters) + others.index(arm.name)
            colors[arm.name] = _FILTERED[place % len(_FILTERED)]
        else:
            colors[arm.name] = GRAY if arm.kind == "standard" else _IN_DOMAIN
    return colors


def _draw_curves(
    axes: Axes, comparison: Comparison, colors: dict[str, str], field: str, label: str
) -> None:
    """Perplexity against a field of `Point`, its mean over the seeds."""
    seeds = len(comparison.seeds)
    for arm in comparison.arms:
        _, values = comparison.curves(arm)
        runs = comparison.of(arm)
        places = np.mean([[getattr(point, field) for point in run.points] for run in runs], axis=0)
        middle = values.mean(axis=0)
        axes.plot(
            places,
            middle,
            color=colors[arm.name],
            linestyle=_LINES.get(arm.kind, "-"),
            linewidth=1.2 if arm.kind == "random" else 2,
            label=arm.name,
        )
        if seeds > 1:
            error = np.array([standard_error(point) or 0.0 for point in values.T.tolist()])
            axes.fill_between(
                places, middle - error, middle + error, color=colors[arm.name], alpha=0.18, lw=0
            )
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(label)
    axes.set_ylabel("test perplexity")


def _draw_boxes(
    axes: Axes, comparison: Comparison, ranked: list[Arm], colors: dict[str, str]
) -> None:
    for height, arm in enumerate(ranked):
        finals = comparison.curves(arm)[1][:, -1]
        color = colors[arm.name]
        axes.boxplot(
            finals,
            positions=[height],
            widths=0.55,
            orientation="horizontal",
            showfliers=False,
            patch_artist=True,
            boxprops={
                "facecolor": "white" if arm.kind == "random" else f"{color}40",
                "edgecolor": color,
                "linestyle": "--" if arm.kind == "random" else "-",
            },
            medianprops={"color": color, "linewidth": 2},
            whiskerprops={"color": color},
            capprops={"color": color},
        )
        axes.plot(finals, [height] * len(finals), "o", color=color, markersize=3.5, alpha=0.7)
    axes.set_yticks(range(len(ranked)), [arm.name.replace(" ", "\n") for arm in ranked])
    for label, arm in zip(axes.get_yticklabels(), ranked, strict=True):
        label.set_color(colors[arm.name] if arm.kind != "standard" else INK)
    axes.locator_params(axis="x", nbins=7)
    axes.set_xlabel("test perplexity (lower is better)")
