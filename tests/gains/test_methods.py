"""A label method more is a module and a row more."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from gains_helpers import contexts_of
from secondary_learners.errors import UnknownNameError
from secondary_learners.gains import methods
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.problem import Labeller
from secondary_learners.gains.store import LabelSettings, label_to_store, read_labels
from tiny_models import BigramModel

CONTEXTS, OBJECTIVE = contexts_of(40, seed=0), contexts_of(6, seed=1)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A method whose label is the share of a context's tokens that the objective has."""

    def prepare(problem: Any) -> Labeller:
        known = torch.unique(problem.objective.ids)
        return Labeller(lambda rows: torch.isin(rows.ids, known).double().mean(dim=1), rows=8)

    module = ModuleType("toy_method")
    module.PART = 16  # type: ignore[attr-defined]
    module.check = lambda settings: None  # type: ignore[attr-defined]
    module.unit = lambda settings: "share of tokens"  # type: ignore[attr-defined]
    module.prepare = prepare  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_method", module)
    monkeypatch.setitem(methods.METHODS, "overlap", "toy_method")
    return "overlap"


def test_a_row_more_labels_and_stores(toy: str, tmp_path: Path) -> None:
    expected = np.isin(CONTEXTS.input_ids, OBJECTIVE.input_ids).mean(axis=1)
    gains = information_gain(BigramModel(), CONTEXTS, OBJECTIVE, method=toy)
    np.testing.assert_allclose(gains, expected)
    settings = LabelSettings(method=toy, exact=4)
    label_to_store(BigramModel(), CONTEXTS, OBJECTIVE, tmp_path, settings, progress=False)
    stored = read_labels(tmp_path)
    np.testing.assert_allclose(stored.gains, expected)
    assert stored.facts["method"] == toy
    assert len(list(tmp_path.glob("part-*.parquet"))) == 3


def test_an_unknown_method_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="did you mean exact"):
        methods.method_named("exakt")
