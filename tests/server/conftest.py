from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server_helpers import InProcess, Server, running, token


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[InProcess]:
    """A fresh Hub in process."""
    with InProcess(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def ann(tmp_path: Path) -> str:
    """A token that may write in ann/ and team/ of the fresh Hub."""
    return token(tmp_path / "hub", "ann", "write", ["team"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server in a process of its own, for the tests of one file, and its storage root."""
    root = tmp_path_factory.mktemp("served") / "hub"
    with running(root, "--allow-host", "hub.our") as server:
        yield server, root
