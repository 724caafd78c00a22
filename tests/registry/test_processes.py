"""Loading from a Hub in processes of their own: killed, two at once, offline."""

from __future__ import annotations

import dataclasses
import time
from glob import glob
from pathlib import Path

import pytest

from registry_helpers import Machine, Team, entry, proxy, save
from secondary_learners.learners.artifact import FILES
from secondary_learners.registry import registries
from secondary_learners.registry.index import entry_toml
from server_helpers import running, token

pytestmark = pytest.mark.slow

LOAD = "from secondary_learners import load_learner; print(load_learner({!r}).config.name)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "small", "small")
    return tmp_path / "small"


def test_what_a_killed_process_had_fetched_is_kept(
    folder: Path, machine: Machine, team: Team
) -> None:
    team.publish("team/killed", folder)
    with proxy(team.url) as slow:
        slow.stall = {"model.safetensors"}
        process = machine.start(LOAD.format("team/killed"), machine.environment(slow.url))
        assert slow.stalled.wait(60)
        # glob.glob passes over folders that the client removes meanwhile; Path.rglob raises.
        while len(glob(f"{machine.cache}/**/snapshots/*/*", recursive=True)) < len(FILES) - 1:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.communicate()
        slow.stall.clear()
        slow.seen.clear()
        out, err = machine.python(LOAD.format("team/killed"), machine.environment(slow.url))
        assert (out, err) == ("small\n", "")
        assert slow.fetched() == ["model.safetensors"]


def test_two_processes_load_the_same_at_once(folder: Path, machine: Machine, team: Team) -> None:
    team.publish("team/twice", folder, tag="v1")
    environment = machine.environment(team.url)
    both = [machine.start(LOAD.format("team/twice@v1"), environment) for _ in range(2)]
    assert [process.communicate(timeout=100) for process in both] == [("small\n", "")] * 2


def test_what_was_loaded_once_loads_again_without_a_network(
    folder: Path, tmp_path: Path, machine: Machine
) -> None:
    root = tmp_path / "root"
    secret = token(root, "team", "write")
    refs = ["team/off", "team/off@v1", "shelf:far"]
    loads = (
        "import sys\n"
        "from secondary_learners import SecondaryLearnersError, load_learner\n"
        "for ref in sys.argv[1:] or REFS:\n"
        "    try:\n"
        "        print(load_learner(ref).config.name)\n"
        "    except SecondaryLearnersError as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    with running(root) as server:
        hub = Team(server.url, secret, root)
        commit = hub.publish("team/off", folder, tag="v1")
        hub.api.create_tag("team/off", tag="v2")
        far = dataclasses.replace(
            entry("far", "learner", save(folder, "small")), location="team/off", revision=commit
        )
        other = dataclasses.replace(far, name="never", location="team/never")
        (tmp_path / "shelf").mkdir()
        for each in (far, other):
            (tmp_path / "shelf" / f"{each.name}.toml").write_text(entry_toml(each))
        registries.add_registry("shelf", str(tmp_path / "shelf"))
        refs.append(f"team/off@{commit}")
        out, err = machine.python(f"REFS = {refs}\n{loads}", machine.environment(server.url))
        assert (out, err) == ("small\n" * 4, "")
        environment = machine.environment(server.url, HF_HUB_OFFLINE="1")
        missing = ["team/off@v2", "team/never", "shelf:never"]
        code = f"REFS = {refs + missing}\n{loads}"
        out, err = machine.python(code, environment)
        lines = out.splitlines()
        assert (lines[:4], err) == (["small"] * 4, "")
        for ref, line in zip(missing, lines[4:], strict=True):
            assert line.startswith(f"OfflineError {ref!r} was not loaded on this machine before")
            assert "HF_HUB_OFFLINE is set" in line
    # The server is gone. Branches and tags say so, on stderr; pinned commits need no server.
    out, err = machine.python(code, machine.environment(server.url))
    lines = out.splitlines()
    assert lines[:4] == ["small"] * 4
    assert err.count(f"Using the commit of the last time, {commit}") == 2
    for ref, line in zip(missing, lines[4:], strict=True):
        assert line.startswith(f"OfflineError {ref!r} was not loaded on this machine before")
        assert "cannot be reached" in line
