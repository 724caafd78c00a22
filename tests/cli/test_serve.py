"""`learners serve` and `learners serve-token`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cli_helpers import learners
from server_helpers import running


def who(url: str, token: str) -> str:
    request = urllib.request.Request(
        f"{url}/api/whoami-v2", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.loads(answer.read())["name"])


def test_a_token_from_its_making_to_its_end(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    with running(root) as server:
        made = learners(
            "serve-token", "create", "ann", root, "--role", "write", "--org", "team", "--quiet"
        )
        assert made.code == 0, made.err
        token = made.out.strip()
        assert who(server.url, token) == "ann"  # known at once
        rows = learners("serve-token", "list", root, "--json").json
        assert [(row["user"], row["role"], row["organizations"]) for row in rows] == [
            ("ann", "write", ["team"])
        ]
        assert token not in learners("serve-token", "list", root).out
        assert learners("serve-token", "revoke", rows[0]["id"], root).code == 0
        with pytest.raises(urllib.error.HTTPError) as error:
            who(server.url, token)
        assert error.value.code == 401
        error.value.close()
        assert server.stop() == 0  # SIGTERM is how a service is told to end


def test_mistakes_name_the_next_command(tmp_path: Path) -> None:
    nothing = learners("serve-token", "list", tmp_path)
    assert nothing.code == 1 and "learners serve-token create" in nothing.err
    learners("serve-token", "create", "ann", tmp_path, "--role", "read")
    unknown = learners("serve-token", "revoke", "nope", tmp_path)
    assert unknown.code == 1 and f"learners serve-token list {tmp_path}" in unknown.err
    reserved = learners("serve-token", "create", "api", tmp_path, "--role", "read")
    assert reserved.code == 1 and "choose another name" in reserved.err


def test_a_port_in_use_and_a_root_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = learners("serve", tmp_path / "hub", "--port", port)
    assert result.code == 1 and "in use" in result.err
    with running(tmp_path / "hub"):
        result = learners("serve", tmp_path / "hub", "--port", 0)
    assert result.code == 1 and "served already" in result.err


def test_other_machines_are_warned_of(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "secondary_learners", "serve", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--host", "0.0.0.0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert "http://0.0.0.0:" in process.stdout.readline()
    process.terminate()
    _, warned = process.communicate(timeout=40)
    assert "TLS" in warned


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("secondary_learners.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = learners("serve", tmp_path)
    assert result.code == 1
    assert 'pip install "secondary-learners[serve]"' in result.err
