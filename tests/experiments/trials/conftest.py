from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from classification_helpers import write_task
from secondary_learners.experiments.trials.table import TrialsTable
from secondary_learners.registry.load import load_base
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


@pytest.fixture(scope="session")
def loaded(base: Path) -> tuple[Any, Any]:
    """Model and tokenizer."""
    return load_base(base)


@pytest.fixture(scope="session")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("tasks") / "sea")
