"""A comparison as a figure: curves of test perplexity, and where each seed ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondary_learners.errors import MissingExtraError
from secondary_learners.experiments.compare import Arm, Comparison
from secondary_learners.experiments.statistics import standard_error
from secondary_learners.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_comparison"]

# Okabe and Ito's colors, told apart with any color vision; a random arm shares its filter's.
_STANDARD, _IN_DOMAIN, _INK = "#555555", "#009e73", "#222222"
_FILTERED = ("#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9")


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Draw `comparison` to `path`, in the format of its suffix (.png, .svg, .pdf).

    Above, mean test perplexity ± standard error against updates, and the final perplexity of every
    seed with its box for each arm, in the manner of figure 1 of Antonello et al. 2021; below, the
    same curves against the tokens drawn and the seconds of training and filtering.
    Raises MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "plots") from error

    colors = _colors(comparison)
    # The best arm on top, so that the boxes read as a ranking.
    ranked = sorted(
        comparison.arms, key=lambda arm: comparison.curves(arm)[1][:, -1].mean(), reverse=True
    )
    figure = Figure(figsize=(10, 8.4), dpi=110, layout="constrained")
    (left, right), (tokens, seconds) = figure.subplots(2, 2, width_ratios=(1.15, 1))
    size = comparison.settings.batch_size
    _draw_curves(left, comparison, colors, "update", f"updates (batches of {size} contexts)")
    left.set_xlim(0, comparison.settings.updates)
    left.set_title("While training: mean ± standard error", loc="left", fontsize=11)
    left.legend(frameon=False, fontsize=9)
    _draw_boxes(right, comparison, ranked, colors)
    _draw_curves(tokens, comparison, colors, "drawn_tokens", "tokens drawn, skipped ones included")
    _draw_curves(seconds, comparison, colors, "seconds", "seconds of training and filtering")
    for axes in (left, right, tokens, seconds):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".") or "png")


def _colors(comparison: Comparison) -> dict[str, str]:
    colors = {}
    filters = [arm.threshold for arm in comparison.arms if arm.kind == "filtered"]
    for arm in comparison.arms:
        if arm.kind in ("filtered", "random"):
            colors[arm.name] = _FILTERED[filters.index(arm.threshold) % len(_FILTERED)]
        else:
            colors[arm.name] = _STANDARD if arm.kind == "standard" else _IN_DOMAIN
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
            linestyle=(0, (3, 2)) if arm.kind == "random" else "-",
            linewidth=1.2 if arm.kind == "random" else 2,
            label=arm.name,
        )
        if seeds > 1:
            error = np.array([standard_error(point) or 0.0 for point in values.T.tolist()])
            axes.fill_between(
                places, middle - error, middle + error, color=colors[arm.name], alpha=0.18, lw=0
            )
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(label)
    axes.set_ylabel("test perplexity")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)


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
    axes.set_yticks(range(len(ranked)), [arm.name for arm in ranked])
    for label, arm in zip(axes.get_yticklabels(), ranked, strict=True):
        label.set_color(colors[arm.name] if arm.kind != "standard" else _INK)
    count = len(comparison.seeds)
    axes.set_xlabel("test perplexity (lower is better)")
    axes.set_title(
        f"After {comparison.settings.updates} updates: {count} "
        f"{'seed' if count == 1 else 'seeds'} each",
        loc="left",
        fontsize=11,
    )
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
