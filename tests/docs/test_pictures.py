"""The plots of the results can be drawn again from their files, and read at 600 pixels across."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
LEAST = 10  # pixels, of a font at 600 across


@pytest.fixture
def redraw(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("redraw")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were written since."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    write = Figure.savefig

    def kept(self: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        write(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


def small_text(figure: Any) -> Iterator[str]:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        pixels = text.get_fontsize() / 72 / figure.get_figwidth() * 600
        if text.get_text() and text.get_visible() and pixels < LEAST:
            yield text.get_text()


def covered(figure: Any) -> Iterator[str]:
    """Curves that go under a legend."""
    figure.draw_without_rendering()
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    boxes = [legend.get_window_extent() for legend in legends if legend]
    for axes in figure.axes:
        for line in axes.lines:
            points = axes.transData.transform(np.column_stack(line.get_data(orig=False)))
            if not len(points):  # stands in a legend alone
                continue
            places = np.linspace(0, len(points) - 1, 50 * len(points))
            way = [np.interp(places, np.arange(len(points)), points[:, side]) for side in (0, 1)]
            for box in boxes:
                inside = (box.x0 < way[0]) & (way[0] < box.x1)
                if (inside & (box.y0 < way[1]) & (way[1] < box.y1)).any():
                    yield str(line.get_label())


def test_small_text_and_covered_curves_are_noticed() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="curve")
    axes.legend(loc="center", fontsize=7)
    assert "curve" in set(small_text(figure))
    assert list(covered(figure)) == ["curve"]


@pytest.mark.slow
def test_every_picture_of_a_result_is_drawn_again_and_readable(
    redraw: ModuleType, drawn: list[Any], tmp_path: Path
) -> None:
    redraw.main(["--out", str(tmp_path)])
    plots = [name for name in redraw.PICTURES if name.endswith(".png")]
    assert len(drawn) == len(plots) == len(list(tmp_path.glob("*.png")))
    for name, figure in zip(plots, drawn, strict=True):
        assert (ROOT / name).is_file()
        assert (name, list(small_text(figure))) == (name, [])
        assert (name, list(covered(figure))) == (name, [])


def test_the_recording_is_that_of_its_result_and_small(redraw: ModuleType, tmp_path: Path) -> None:
    redraw.PICTURES["docs/pictures/demo.svg"](tmp_path / "demo.svg")
    picture = (ROOT / "docs" / "pictures" / "demo.svg").read_bytes()
    assert (tmp_path / "demo.svg").read_bytes() == picture
    assert len(picture) < 200_000
    result = redraw.result("demo")
    words = "\n".join(text for _, text in result["recording"])
    for row in result["rows"]:
        assert f"{row['perplexity']:.2f} ± {row['error']:.2f}" in words
