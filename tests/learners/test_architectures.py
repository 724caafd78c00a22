"""An architecture more is a module and a row more."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cli_helpers import learners
from secondary_learners.errors import ArtifactError, UnknownNameError
from secondary_learners.learners import architectures
from secondary_learners.learners.artifact import Learner, read_learner, save_learner
from secondary_learners.learners.config import Calibration, Score, check_vocabulary, check_width
from secondary_learners.learners.fitting import Fit, fit
from tiny_models import tiny_config


class Share(nn.Module):
    """The share of tokens below a number, scaled."""

    def __init__(self, vocabulary: int, below: int) -> None:
        super().__init__()
        self.vocabulary, self.below = vocabulary, below
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        inside = (input_ids < self.below) & attention_mask
        return self.scale * inside.sum(dim=1) / attention_mask.sum(dim=1).clamp(min=1)

    def contributions(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (input_ids < self.below) & attention_mask


def fit_share(ids: Any, labels: Any, documents: Any, domains: Any = None, **options: Any) -> Fit:
    net = Share(options["vocabulary"], options["below"])
    values = np.asarray(labels)
    return Fit(
        net=net,  # type: ignore[arg-type]
        sizes={"vocabulary": options["vocabulary"], "below": options["below"]},
        score=Score(float(values.mean()), float(values.std()), options["unit"]),
        calibration=Calibration(0.5, 0.2, tuple(np.linspace(0, 1, 101).tolist())),
        held_out=np.arange(3),
        predictions=np.zeros(3),
        held_out_spearman=0.5,
        held_out_r2=0.1,
        architecture="share",
        settings={},
    )


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("toy_architecture")
    module.SIZES = {"vocabulary": check_vocabulary, "below": check_width}  # type: ignore[attr-defined]
    module.build = lambda sizes: Share(**sizes)  # type: ignore[attr-defined]
    module.fit = fit_share  # type: ignore[attr-defined]
    module.options = lambda plan: {"below": 4}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_architecture", module)
    monkeypatch.setitem(architectures.ARCHITECTURES, "share", "toy_architecture")
    return "share"


def test_a_row_more_is_fitted_saved_loaded_and_scores(share: str, tmp_path: Path) -> None:
    ids = np.arange(24).reshape(6, 4) % 8
    fitted = fit(
        share, ids, np.arange(6.0), np.arange(6), vocabulary=8, sizes={"below": 4}, unit="nats"
    )
    config = tiny_config(architecture=share, sizes=fitted.sizes, calibration=fitted.calibration)
    learner = Learner(config, fitted.net)
    save_learner(learner, tmp_path / "x", recipe_toml="", evaluation={}, readme="")
    loaded = read_learner(tmp_path / "x")
    expected = ((ids < 4).mean(axis=1) - 0.5) / 0.2
    np.testing.assert_allclose(loaded.score(ids).numpy(), expected, rtol=1e-5)
    with pytest.raises(ArtifactError, match=r"sizes\.below"):
        tiny_config(architecture=share, sizes={"vocabulary": 8, "below": 0})


def test_an_unknown_architecture_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="did you mean linear"):
        architectures.architecture_named("linaer")
    assert "linear" in learners("list", "--architecture", "linaer").err
