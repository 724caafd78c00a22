from __future__ import annotations

from pathlib import Path

import pytest

from secondary_learners.finetuning.trials.table import TrialsTable
from trials_helpers import sweep

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "dodge_best_validation_2100.csv"


@pytest.fixture(scope="session")
def table() -> TrialsTable:
    return TrialsTable((*sweep("cola", 1), *sweep("rte", 2)))


@pytest.fixture(scope="session")
def published() -> Path:
    if not PUBLISHED.is_file():
        pytest.skip("the published trials are not beside this checkout")
    return PUBLISHED
