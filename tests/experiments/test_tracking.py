"""Where figures go: TensorBoard's own files, and calls of the packages that send them elsewhere."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, call

import pytest

from secondary_learners.errors import MissingExtraError, UnknownNameError
from secondary_learners.experiments.tracking import figures_of, track, tracked
from tracking_helpers import scalars


def test_tensorboard_shows_what_was_tracked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    with tracked("tensorboard", tmp_path / "out", "a run"):
        assert not (tmp_path / "out").exists()  # before the first figure
        track({"standard/seed 0/perplexity": 8.0, "loss": 2.0}, 0)
        track({"loss": 1.5}, 10)
    track({"loss": 9.0}, 11)  # to nobody
    assert scalars(tmp_path / "out" / "tensorboard") == {
        "standard/seed 0/perplexity": [(0, 8.0)],
        "loss": [(0, 2.0), (10, 1.5)],
    }


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a package that notes how it is called."""

    def install(name: str) -> MagicMock:
        module = MagicMock(spec=ModuleType(name), __spec__=ModuleSpec(name, None))
        module.mock_add_spec(["init", "log", "finish", "__spec__"], spec_set=True)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return install


def test_trackio_is_given_each_figure_with_its_step(package: Any, tmp_path: Path) -> None:
    trackio = package("trackio")
    with tracked("trackio", tmp_path, "a run"):
        track({"loss": 2.0}, 5)
        track({"loss": 1.0}, 0)
    assert trackio.mock_calls == [
        call.init(project="secondary-learners", name="a run"),
        call.log({"loss": 2.0}, step=5),
        call.log({"loss": 1.0}, step=0),
        call.finish(),
    ]


def test_wandb_has_a_step_of_the_curve_s_own(
    package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    wandb = package("wandb")
    with pytest.raises(KeyboardInterrupt), tracked("wandb", tmp_path, "a run"):
        track({"loss": 2.0}, 5)
        raise KeyboardInterrupt
    assert wandb.mock_calls == [
        call.init(project="mine", name="a run"),
        call.init().define_metric("*", step_metric="step"),
        call.init().log({"loss": 2.0, "step": 5}),
        call.init().finish(),
    ]


def test_none_is_no_tracker(tmp_path: Path) -> None:
    with tracked("none", tmp_path, "a run"):
        track({"loss": 2.0}, 5)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_reported_to_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match=r"tensorbord.*did you mean tensorboard"):
        tracked("tensorbord", tmp_path, "a run").__enter__()
    monkeypatch.setattr("secondary_learners.experiments.tracking.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs trackio.*secondary-learners\[trackio\]"):
        tracked("trackio", tmp_path, "a run").__enter__()


def test_figures_are_the_numbers_of_an_evaluation() -> None:
    evaluation = {"held_out": {"linear": {"spearman": 0.5, "best": True}}, "n": 3, "text": "a"}
    assert figures_of(evaluation) == {"held_out/linear/spearman": 0.5, "n": 3.0}
