"""What loading touches, and that no folder takes the place of what is locked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from registry_helpers import Machine, Team, save
from secondary_learners.errors import ArtifactError, DigestMismatchError
from secondary_learners.registry import home
from secondary_learners.registry.load import load_learner
from secondary_learners.registry.locking import lock_references
from secondary_learners.registry.remote import Remote, snapshot_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "small", "small")
    return tmp_path / "small"


def test_a_link_out_of_the_cache_is_taken_away_and_what_it_leads_to_stays(
    folder: Path, tmp_path: Path, machine: Machine, online: Team
) -> None:
    commit = online.publish("team/linked", folder)
    load_learner("team/linked")
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    name = snapshot_folder(Remote("team/linked"), commit) / "config.json"
    name.unlink()
    name.symlink_to(thesis)
    with pytest.raises(DigestMismatchError):
        load_learner("team/linked")
    assert thesis.read_text() == "years of work"
    assert load_learner("team/linked").config.name == "small"


def test_a_snapshot_that_is_a_link_is_neither_read_nor_written(
    folder: Path, tmp_path: Path, machine: Machine, online: Team
) -> None:
    commit = online.publish("team/elsewhere", folder)
    load_learner("team/elsewhere")
    snapshot = snapshot_folder(Remote("team/elsewhere"), commit)
    mine = shutil.copytree(folder, tmp_path / "mine")
    (mine / "config.json").unlink()
    before = sorted(path.name for path in mine.iterdir())
    shutil.rmtree(snapshot)
    snapshot.symlink_to(mine)
    with pytest.raises(ArtifactError, match=r"is a link to .*mine, outside of the cache"):
        load_learner("team/elsewhere")
    assert sorted(path.name for path in mine.iterdir()) == before


def test_a_folder_does_not_take_the_place_of_what_is_locked(
    folder: Path, tmp_path: Path, machine: Machine, online: Team
) -> None:
    online.publish("team/locked", folder, tag="v1.0")
    lock_references(["team/locked@v1.0"])
    save(machine.work / "team" / "locked@v1.0", "shadow")
    for locked in (None, True):
        assert load_learner("team/locked@v1.0", locked=locked).config.name == "small"
    assert load_learner("./team/locked@v1.0").config.name == "shadow"
    save(machine.work / "team" / "free", "free")  # not locked: a folder, as ever
    assert load_learner("team/free").config.name == "free"


def test_folders_follow_the_system_and_the_one_before_is_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECONDARY_LEARNERS_HOME")
    for name in ("CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setattr("platformdirs.user_config_path", lambda *a, **k: tmp_path / "config" / "sl")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *a, **k: tmp_path / "cache" / "sl")
    assert home.cache_folder() == tmp_path / "cache" / "sl" / "cache"
    assert home.registries_folder() == tmp_path / "config" / "sl" / "registries"
    (tmp_path / "config" / "sl" / "cache").mkdir(parents=True)
    assert home.cache_folder() == tmp_path / "config" / "sl" / "cache"
    monkeypatch.setenv("SECONDARY_LEARNERS_HOME", str(tmp_path / "own"))
    assert home.cache_folder() == tmp_path / "own" / "cache"
