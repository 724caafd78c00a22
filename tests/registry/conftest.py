from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from registry_helpers import Machine, Team
from server_helpers import running, token


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A Hub in another process."""
    root = tmp_path_factory.mktemp("hub") / "root"
    secret = token(root, "team", "write")
    with running(root) as server:
        yield Team(server.url, secret, root)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """This process as on a new machine; huggingface_hub read its variables when imported."""
    found = Machine(tmp_path / "machine")
    for folder in (found.cache, found.home, found.work):
        folder.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(found.cache))
    monkeypatch.setenv("SECONDARY_LEARNERS_HOME", str(found.home))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(found.home / "no-token"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(found.home / "no-token"))
    monkeypatch.chdir(found.work)
    return found


@pytest.fixture
def online(machine: Machine, team: Team, monkeypatch: pytest.MonkeyPatch) -> Team:
    """As with HF_ENDPOINT set to the team's Hub."""
    monkeypatch.setattr(constants, "ENDPOINT", team.url)
    template = f"{team.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    return team
