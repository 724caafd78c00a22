"""Before anything imports transformers, whose bars would be in the output that tests compare."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the registries and records of whoever runs it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDARY_LEARNERS_HOME", str(home))
        for name in ("SECONDARY_LEARNERS_LOCK", "SECONDARY_LEARNERS_LOCKED"):
            patch.delenv(name, raising=False)
        yield home
