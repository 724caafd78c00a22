from __future__ import annotations

from pathlib import Path

import pytest

from classification_helpers import write_task


@pytest.fixture(scope="session")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("tasks") / "sea")
