"""Commands send their curves and figures where --report-to says."""

from __future__ import annotations

from pathlib import Path

import pytest

from classification_helpers import write_task
from cli_helpers import Tiny, learners
from tracking_helpers import scalars

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def needed() -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")


def test_finetune(tiny: Tiny, tmp_path: Path) -> None:
    quick = ("--seeds", 1, "--updates", 2, "--batch-size", 4, "--device", "cpu")
    text = ("--corpus", tiny.objective.parent, "--out", tmp_path, "--report-to", "tensorboard")
    result = learners("finetune", "-l", tiny.learner, *text, *quick, "--json")
    assert result.code == 0, result.err
    curves = scalars(tmp_path / "tensorboard")
    for run in result.json["runs"]:
        points = [(point["update"], point["perplexity"]) for point in run["points"][1:]]
        assert curves[f"{run['arm']}/seed 0/perplexity"] == [
            (update, pytest.approx(perplexity)) for update, perplexity in points
        ]
    assert len(curves) == 4


def test_run(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("run", *tiny.options, "--seeds", 0, "--out", out, "--report-to", "tensorboard")
    for _ in range(2):  # again, where it has been
        result = learners(*command)
        assert result.code == 0, result.err
    figures = scalars(out / "work" / "tensorboard")
    assert "held_out/linear/spearman" in figures


def test_trials(tiny: Tiny, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    task = write_task(tmp_path / "sea")
    seeds = ("--init-seeds", 1, "--order-seeds", 2, "--epochs", 1, "--evaluations", 2)
    options = ("--base", tiny.base, "--task", task, *seeds, "--batch-size", 8, "--max-length", 16)
    out = tmp_path / "out"
    result = learners("trials", "run", *options, "--out", out, "--report-to", "tensorboard")
    assert result.code == 0, result.err
    curves = scalars(out / "tensorboard")
    assert [len(points) for points in curves.values()] == [2, 2]
    assert "sea/standard/seeds 0 and 1/accuracy" in curves


def test_a_tracker_that_is_not_there_is_said_before_anything_is_done(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ("run", *tiny.options, "--out", out)
    result = learners(*command, "--report-to", "tensorbord")
    assert result.code == 2
    assert "'tensorbord' is not one of 'none', 'tensorboard', 'trackio', 'wandb'" in result.err
    monkeypatch.setattr("secondary_learners.experiments.tracking.find_spec", lambda name: None)
    result = learners(*command, "--report-to", "wandb")
    assert result.code == 1
    assert 'Try `pip install "secondary-learners[wandb]"`' in result.err
    assert not out.exists()
