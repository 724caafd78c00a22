"""What was loaded, as the real `hf cache` commands see it, list it, check it and prune it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry_helpers import Machine, Team, entry, save
from secondary_learners.errors import DigestMismatchError
from secondary_learners.registry import index, registries
from secondary_learners.registry.hf_cache import foreign_name, keep, lay
from secondary_learners.registry.load import load_learner
from secondary_learners.registry.remote import Remote, snapshot_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "small", "small")
    return tmp_path / "small"


@pytest.fixture
def hf(machine: Machine, team: Team) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "huggingface_hub.cli.hf", "cache", *arguments]
        environment = machine.environment(team.url)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return run


def listed(hf: Callable[..., str]) -> dict[str, Any]:
    """The revisions in the cache by repository."""
    rows = json.loads(hf("ls", "--revisions", "--format", "json"))
    return {row["repo_id"]: row for row in rows}


def test_prune_leaves_what_was_loaded_by_name(
    folder: Path, machine: Machine, online: Team, hf: Callable[..., str]
) -> None:
    commit = online.publish("team/kept", folder, tag="v1.0")
    for ref in ("team/kept", "team/kept@v1.0", f"team/kept@{commit}"):
        load_learner(ref)
    assert "Nothing to prune" in hf("prune", "--yes")
    save(folder, "newer")
    newer = online.publish("team/kept", folder)
    assert load_learner("team/kept").config.name == "newer"
    hf("prune", "--yes")
    shutil.rmtree(online.root / "objects")  # nothing can be fetched again
    assert load_learner("team/kept").config.name == "newer"
    assert load_learner(f"team/kept@{commit}").config.name == "small"
    assert commit != newer


def test_what_no_name_leads_to_any_more_is_pruned(
    folder: Path, machine: Machine, online: Team, hf: Callable[..., str]
) -> None:
    before = online.publish("team/moved-on", folder)
    load_learner("team/moved-on")
    save(folder, "newer")
    after = online.publish("team/moved-on", folder)
    load_learner("team/moved-on")
    hf("prune", "--yes")
    remote = Remote("team/moved-on")
    assert not snapshot_folder(remote, before).exists()
    assert snapshot_folder(remote, after).is_dir()


def test_an_entry_of_a_registry_is_kept_under_its_name(
    folder: Path,
    tmp_path: Path,
    machine: Machine,
    online: Team,
    hf: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = online.publish("team/entered", folder)
    row = entry("by-name", "learner", save(folder, "small"))
    row = dataclasses.replace(row, location="team/entered", revision=commit)
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "by-name.toml").write_text(index.entry_toml(row))
    for module in (index, registries):
        monkeypatch.setattr(module, "content", lambda name: tmp_path / name)
    load_learner("by-name")
    assert listed(hf)["team/entered"]["refs"] == ["learners/by-name"]
    assert "Nothing to prune" in hf("prune", "--yes")


def test_learners_of_another_hub_are_listed_with_their_hub(
    folder: Path, machine: Machine, team: Team, hf: Callable[..., str]
) -> None:
    commit = team.publish("team/elsewhere", folder, tag="v1.0")
    load_learner("team/elsewhere@v1.0", endpoint=team.url)
    name = foreign_name(team.url, "team/elsewhere")
    rows = listed(hf)
    assert set(rows) == {name} and name.startswith("127.0.0.1-")
    assert rows[name]["revision"] == commit and rows[name]["refs"] == ["v1.0"]
    assert "Nothing to prune" in hf("prune", "--yes")
    hf("rm", f"model/{name}", "--yes")
    assert list(machine.cache.glob("models--*")) == []
    assert load_learner("team/elsewhere@v1.0", endpoint=team.url).config.name == "small"
    assert set(listed(hf)) == {name}


def test_a_changed_file_of_another_hub_is_removed_as_the_message_says(
    folder: Path, machine: Machine, team: Team, hf: Callable[..., str]
) -> None:
    commit = team.publish("team/changed", folder)
    load_learner("team/changed", endpoint=team.url)
    file = snapshot_folder(Remote("team/changed", team.url), commit) / "config.json"
    file.write_text("{}")
    with pytest.raises(DigestMismatchError, match="`hf cache rm model/127") as raised:
        load_learner("team/changed", endpoint=team.url)
    command = str(raised.value).partition("`hf cache ")[2].partition("`")[0]
    hf(*command.split(), "--yes")
    assert load_learner("team/changed", endpoint=team.url).config.name == "small"


def test_verify_compares_with_the_hub(
    folder: Path, machine: Machine, online: Team, hf: Callable[..., str]
) -> None:
    online.publish("team/verified", folder)
    load_learner("team/verified")
    assert "team/verified" in hf("verify", "team/verified")


def test_names_of_two_hubs_never_meet() -> None:
    addresses = ("http://a.b:80", "http://a.b-80", "https://a.b:80", "http://a-b:80")
    names = {foreign_name(address, "o/n") for address in addresses}
    assert len(names) == 4
    assert all("--" not in name and name.count("/") == 2 for name in names)


def test_a_folder_from_before_stays(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    lay(tmp_path / "ours", tmp_path / "theirs")
    assert not (tmp_path / "ours").is_symlink() and not (tmp_path / "theirs").exists()


def test_a_name_that_leads_out_of_the_refs_is_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b"
    keep(folder, "../../../out", "c")
    assert list(tmp_path.rglob("out")) == []
    keep(folder, "a", "c")
    keep(folder, "a/b", "c")  # cannot be: it is not kept then
    assert (folder / "refs" / "a").read_text() == "c"
