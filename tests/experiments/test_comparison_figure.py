from __future__ import annotations

import sys

import numpy as np
import pytest

from secondary_learners.errors import MissingExtraError
from secondary_learners.experiments.compare import Arm, Comparison, Point, Run, Settings
from secondary_learners.experiments.comparison_figure import plot_comparison
from secondary_learners.filtering.thresholds import Constant


def comparison(seeds: int) -> Comparison:
    random = np.random.default_rng(0)
    arms = (
        Arm("standard", "standard"),
        Arm("constant:1", "filtered", Constant(1)),
        Arm("random constant:1", "random", Constant(1)),
    )
    runs = tuple(
        Run(
            arm.name,
            seed,
            0,
            tuple(Point(n, n, n, 0.0, 400 - n - random.random()) for n in range(0, 61, 10)),
        )
        for arm in arms
        for seed in range(seeds)
    )
    return Comparison(Settings(), arms, tuple(range(seeds)), runs)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_figure_is_drawn_in_the_format_of_its_name(tmp_path, seeds):
    pytest.importorskip("matplotlib")
    plot_comparison(comparison(seeds), tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20]) >= 1000  # pixels across
    plot_comparison(comparison(seeds), tmp_path / "new" / "a.svg")
    assert b"<svg" in (tmp_path / "new" / "a.svg").read_bytes()


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"secondary-learners\[plots\]"):
        plot_comparison(comparison(1), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_every_way_to_select_has_a_color_of_its_own() -> None:
    from secondary_learners.experiments import comparison_figure
    from secondary_learners.filtering.thresholds import Constant

    arms = [Arm("standard", "standard"), Arm("1", "filtered", Constant(1.0))]
    arms += [Arm(name, "selector", Constant(1.0)) for name in ("classifier", "dsir", "length")]
    arms += [Arm("everything drawn", "everything", Constant(1.0)), Arm("in", "in-domain")]
    colors = comparison_figure._colors(Comparison(Settings(), tuple(arms), (0,), ()))
    assert len(set(colors.values())) == len(arms)
    blind = Arm("random 1", "random", Constant(1.0))
    again = comparison_figure._colors(Comparison(Settings(), (*arms, blind), (0,), ()))
    assert again["random 1"] == again["1"]
