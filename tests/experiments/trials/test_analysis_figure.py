from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from secondary_learners.errors import MissingExtraError
from secondary_learners.experiments.trials.analysis import analyze
from secondary_learners.experiments.trials.analysis_figure import plot_analysis
from secondary_learners.experiments.trials.table import TrialsTable, read_table
from trials_helpers import sweep


def size(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def test_the_figure_is_a_thousand_pixels_across_whatever_it_shows(tmp_path, table):
    pytest.importorskip("matplotlib")
    arms = TrialsTable((*sweep("rte", 1, arm="standard"), *sweep("rte", 2, arm="filtered")))
    hole = TrialsTable((*sweep("rte", 1, inits=3)[1:], *sweep("cola", 2, 2, 2, "filtered")))
    bare = TrialsTable(tuple(replace(t, fractions=(), scores=()) for t in table.trials))
    for name, held in {"one": table, "arms": arms, "hole": hole, "bare": bare}.items():
        plot_analysis(held, analyze(held), tmp_path / f"{name}.png")
        across, down = size((tmp_path / f"{name}.png").read_bytes())
        assert 1045 <= across <= 1055 and down > 300
    plot_analysis(bare, analyze(bare), tmp_path / "new" / "a.svg")
    assert b"<svg" in (tmp_path / "new" / "a.svg").read_bytes()


def test_the_published_trials_are_drawn(tmp_path, published):
    pytest.importorskip("matplotlib")
    table = read_table(published)
    plot_analysis(table, analyze(table), tmp_path / "a.png")
    assert size((tmp_path / "a.png").read_bytes())[0] >= 1000


def test_without_matplotlib_the_extra_is_named(tmp_path, table, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"secondary-learners\[plots\]"):
        plot_analysis(table, analyze(table), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
