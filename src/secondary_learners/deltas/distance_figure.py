"""Distances as a figure: each kind of layer a line, each block of the model a point on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from secondary_learners.deltas.distances import Distance
from secondary_learners.figures import GRAY, SMALL, new_figure, save_figure, tidy

__all__ = ["plot_distances"]

_BLOCK = re.compile(r"^(.*?)\.(\d+)\.(.*)$")
_PANELS = (
    ("l0", "L0", "share of numbers changed"),
    ("l1", "L1", "mean change of a number"),
    ("angular", "angle", "of π"),
)


def plot_distances(distances: Sequence[Distance], path: Path) -> None:
    """Draw `distances` to `path`, in the format of its suffix (.png, .svg, .pdf).

    Raises MissingExtraError without matplotlib.
    """
    figure = new_figure(1.4 + 0.27 * len({_place(distance.name)[0] for distance in distances}))
    from matplotlib import colormaps

    places = [_place(distance.name) for distance in distances]
    kinds = list(dict.fromkeys(kind for kind, _ in places))
    blocks = sorted({block for _, block in places if block is not None})
    colors = {
        block: colormaps["viridis"](0.9 * rank / max(1, len(blocks) - 1))
        for rank, block in enumerate(blocks)
    }
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    for axes, (field, title, label) in zip(panels, _PANELS, strict=True):
        for distance, (kind, block) in zip(distances, places, strict=True):
            axes.plot(
                getattr(distance, field),
                kinds.index(kind),
                "D" if block is None else "o",
                color=GRAY if block is None else colors[block],
                markersize=6,
                alpha=0.9,
            )
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=3)
        axes.set_xlabel(label)
        tidy(axes, title=title)
    panels[0].invert_yaxis()
    for block in blocks:
        panels[-1].plot([], [], "o", color=colors[block], label=f"block {block}")
    if blocks:
        figure.legend(frameon=False, fontsize=SMALL, loc="outside lower center", ncols=6)
    save_figure(figure, path)


def _place(name: str) -> tuple[str, int | None]:
    """What kind of layer a weight is, and in which block."""
    block = _BLOCK.match(name)
    return (block[3], int(block[2])) if block else (".".join(name.split(".")[-2:]), None)
