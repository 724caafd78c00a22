"""How figures are drawn: readable at 600 pixels across, on light and dark, in any color vision.

A figure is `WIDTH` inches wide, so that at 600 pixels a point of text is 1.2 pixels high; no text
is smaller than `SMALL`. Its ground is white, also on a dark page. Legends stand beside curves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from secondary_learners.errors import MissingExtraError
from secondary_learners.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "GRAY",
    "INK",
    "SMALL",
    "WIDTH",
    "legend_below",
    "new_figure",
    "save_figure",
    "tidy",
]

# Okabe and Ito's colors, told apart with any color vision; those that white swallows come last.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, GRAY = "#222222", "#555555"
WIDTH, SMALL = 7.0, 9


def new_figure(height: float) -> Figure:
    """An empty figure, its height in inches; MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "plots") from error
    return Figure(figsize=(WIDTH, height), dpi=150, layout="constrained", facecolor="white")


def tidy(axes: Axes, *, title: str, grid: Literal["x", "y", "both"] = "both") -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3, labelsize=SMALL)
    axes.grid(axis=grid, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)


def legend_below(axes: Axes, columns: int = 2) -> None:
    """The legend of a panel, under the label of its x axis, where no curve is."""
    axes.legend(
        frameon=False,
        fontsize=SMALL,
        loc="upper left",
        bbox_to_anchor=(-0.1, -0.24),
        ncols=columns,
        columnspacing=1.2,
        handlelength=1.8,
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path`, in the format of its suffix (.png, .svg, .pdf)."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".") or "png")
