"""Other teams' registries: added, listed, updated and removed; tampered with."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from registry_helpers import Machine, Team, entry, proxy, save
from secondary_learners.errors import (
    ArtifactError,
    DigestMismatchError,
    HubError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.registry.index import Entry, entry_toml, find
from secondary_learners.registry.load import load_learner
from secondary_learners.registry.registries import (
    EntryChange,
    Registry,
    add_registry,
    read_registries,
    remove_registry,
    shelf,
    update_registry,
)


def write(folder: Path, *entries: Entry) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for each in entries:
        (folder / f"{each.name}.toml").write_text(entry_toml(each))
    return folder


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A folder with registry/ and learners/, as in a checkout of this repository."""
    digests = save(tmp_path / "share" / "learners" / "small", "small")
    write(tmp_path / "share" / "registry", entry("small", "learner", digests))
    return tmp_path / "share"


def far(team: Team, tmp_path: Path, repository: str, *, private: bool = False) -> Entry:
    """A published learner and the entry for it."""
    digests = save(tmp_path / repository, "far")
    commit = team.publish(repository, tmp_path / repository, private=private)
    return dataclasses.replace(
        entry("far", "learner", digests), location=repository, revision=commit
    )


class Asked:
    """Remembers what it was asked to accept, and accepts it or not."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.changes: Sequence[EntryChange] = ()

    def __call__(self, registry: Registry, changes: Sequence[EntryChange]) -> bool:
        self.changes = changes
        return self.answer


def test_names_of_a_folder_are_loaded_with_its_alias(share: Path, machine: Machine) -> None:
    registry = add_registry("team", str(share))
    assert load_learner("team:small").config.name == "small"
    assert read_registries() == {"team": registry}
    with pytest.raises(UnknownNameError, match=r"no learner named 'smal'.*did you mean small"):
        load_learner("team:smal")
    with pytest.raises(UnknownNameError, match=r"no registry named 'teem'.*did you mean team"):
        load_learner("teem:small")
    weights = share / "learners" / "small" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DigestMismatchError, match=r"model\.safetensors.*registry"):
        load_learner("team:small")
    remove_registry("team")
    assert read_registries() == {}
    with pytest.raises(UnknownNameError, match="learners registry add team SOURCE"):
        load_learner("team:small")


def test_names_of_a_repository_come_from_its_hub(
    tmp_path: Path, machine: Machine, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = far(team, tmp_path, "team/far", private=True)
    write(tmp_path / "index" / "registry", known)
    (tmp_path / "index" / "README.md").write_text("ours")
    commit = team.publish("team/index", tmp_path / "index", private=True)
    with pytest.raises(HubError, match=r"team/index.*private.*--token-env VARIABLE"):
        add_registry("team", "team/index", endpoint=team.url)
    monkeypatch.setenv("TEAM_TOKEN", team.token)
    registry = add_registry("team", "team/index", endpoint=team.url, token_env="TEAM_TOKEN")
    assert registry.commit == commit
    assert load_learner("team:far").config.name == "far"
    kept = [path.read_bytes() for path in machine.home.rglob("*") if path.is_file()]
    assert team.token.encode() not in b"".join(kept)
    monkeypatch.delenv("TEAM_TOKEN")
    assert load_learner("team:far").config.name == "far"  # nothing has to be asked
    shutil.rmtree(machine.home / "cache")
    with pytest.raises(
        HubError, match=r"team/far.*private.*the variable TEAM_TOKEN.*none was sent"
    ):
        load_learner("team:far")


def test_a_registry_s_token_goes_to_no_hub_that_its_entries_name(
    tmp_path: Path, machine: Machine, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(team.url) as thief:
        known = dataclasses.replace(far(team, tmp_path, "team/bait"), endpoint=thief.url)
        write(tmp_path / "index", known)
        team.publish("team/index2", tmp_path / "index")
        monkeypatch.setenv("TEAM_TOKEN", team.token)
        add_registry("team", "team/index2", endpoint=team.url, token_env="TEAM_TOKEN")
        assert load_learner("team:far").config.name == "far"
        assert thief.seen
        assert all("authorization" not in seen.headers for seen in thief.seen)


def test_an_update_says_what_changed_before_it_is_kept(
    tmp_path: Path, machine: Machine, team: Team
) -> None:
    known = far(team, tmp_path, "team/updated")
    gone = dataclasses.replace(known, name="gone")
    source = write(tmp_path / "index", known, gone)
    add_registry("team", str(source), endpoint=team.url)
    again = far(team, tmp_path, "team/moved")
    fresh = dataclasses.replace(known, name="fresh")
    (source / "gone.toml").unlink()
    write(source, again, fresh)
    expected = [
        EntryChange("far", known, again),
        EntryChange("fresh", None, fresh),
        EntryChange("gone", gone, None),
    ]
    no, yes = Asked(False), Asked(True)
    assert update_registry("team", no) is None
    assert no.changes == expected
    assert set(read_registries()["team"].files) == {"far.toml", "gone.toml"}
    assert update_registry("team", yes) == read_registries()["team"]
    assert yes.changes == expected
    assert load_learner("team:fresh").config.name == "far"
    nothing = Asked(False)
    assert update_registry("team", nothing) == read_registries()["team"]
    assert nothing.changes == ()
    folders = [path for path in (machine.home / "registries" / "team").iterdir() if path.is_dir()]
    assert len(folders) == 2  # one for whoever has just begun to read it
    (source / "fresh.toml").unlink()
    update_registry("team", yes)
    folders = [path for path in (machine.home / "registries" / "team").iterdir() if path.is_dir()]
    assert len(folders) == 2  # and not those before it


@pytest.mark.parametrize("how", ["edited", "added", "deleted"])
def test_a_snapshot_that_was_changed_is_refused_until_it_is_updated(
    how: str, share: Path, machine: Machine
) -> None:
    add_registry("team", str(share))
    (snapshot,) = machine.home.glob("registries/team/*/small.toml")
    if how == "edited":
        snapshot.write_text(snapshot.read_text().replace("books", "other"))
    elif how == "added":
        (snapshot.parent / "evil.toml").write_text(snapshot.read_text().replace("small", "evil"))
    else:
        snapshot.unlink()
    name = "team:evil" if how == "added" else "team:small"
    with pytest.raises(DigestMismatchError, match=r"`learners registry update team`"):
        load_learner(name)
    with pytest.raises(DigestMismatchError):
        shelf("team")
    assert update_registry("team", Asked(True)) is not None
    assert load_learner("team:small").config.name == "small"


@pytest.mark.parametrize(
    ("alias", "source", "options", "reason"),
    [
        ("Team", "SHARE", {}, "not an alias"),
        ("../x", "SHARE", {}, "not an alias"),
        ("taken", "SHARE", {}, "there is a registry 'taken' already"),
        ("team", "word", {}, "neither a folder nor a repository"),
        ("team", "a/b@v1", {}, "neither a folder nor a repository"),
        ("team", "SHARE", {"endpoint": "hub.example.org"}, "not an address"),
        ("team", "SHARE", {"token_env": "sl_a-token"}, "not the token itself"),
        ("team", "EMPTY", {}, "has no entries"),
    ],
)
def test_what_cannot_be_added_is_refused(
    alias: str, source: str, options: dict[str, str], reason: str, share: Path, machine: Machine
) -> None:
    add_registry("taken", str(share))
    places = {"SHARE": str(share), "EMPTY": str(machine.work)}
    with pytest.raises(SecondaryLearnersError, match=reason):
        add_registry(alias, places.get(source, source), **options)
    assert list(read_registries()) == ["taken"]


def test_a_registry_with_an_entry_that_is_wrong_is_refused(
    share: Path, machine: Machine, online: Team
) -> None:
    online.publish("team/bundles", share)
    with pytest.raises(ArtifactError, match=r"'small' of team/bundles says that it is bundled"):
        add_registry("team", "team/bundles")
    path = share / "registry" / "small.toml"
    path.write_text("extra = 1\n" + path.read_text())
    with pytest.raises(ArtifactError, match=r"registry .*share is not sound: small\.toml"):
        add_registry("team", str(share))
    assert read_registries() == {}


def test_what_two_do_to_one_registry_is_not_mixed(share: Path, machine: Machine) -> None:
    add_registry("team", str(share))
    text = (share / "registry" / "small.toml").read_text()
    (share / "registry" / "small.toml").write_text(text.replace("size = 1", "size = 2"))

    def meanwhile(registry: Registry, changes: Sequence[EntryChange]) -> bool:
        (share / "registry" / "small.toml").write_text(text.replace("size = 1", "size = 3"))
        update_registry("team", Asked(True))
        return True

    with pytest.raises(SecondaryLearnersError, match=r"another process changed .*'team' meanw"):
        update_registry("team", meanwhile)
    (snapshot,) = [p for p in shelf("team").index.glob("*.toml")]
    assert "size = 3" in snapshot.read_text()


def test_a_reader_that_has_begun_is_not_disturbed_by_an_update(
    share: Path, machine: Machine
) -> None:
    add_registry("team", str(share))
    begun = shelf("team")
    path = share / "registry" / "small.toml"
    path.write_text(path.read_text().replace("size = 1", "size = 2"))
    update_registry("team", Asked(True))
    assert find("small", folder=begun.index).size == 1
    assert find("small", folder=shelf("team").index).size == 2


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"source": 7}', '{"source": "/x", "files": {"a": 1}}']
)
def test_a_damaged_record_is_named(text: str, share: Path, machine: Machine) -> None:
    add_registry("team", str(share))
    (machine.home / "registries" / "team" / "registry.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"registry\.json is damaged.*registry add team"):
        load_learner("team:small")
