"""learners.lock, and hashing again what is here."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from registry_helpers import Machine, Team, entry, save
from secondary_learners.errors import (
    ArtifactError,
    DigestMismatchError,
    LockError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.files import sha256_file
from secondary_learners.registry import index, registries
from secondary_learners.registry.guard import alone
from secondary_learners.registry.index import Entry, entry_toml
from secondary_learners.registry.load import load_base, load_learner, locate
from secondary_learners.registry.lock import Pinned, read_lock, write_lock
from secondary_learners.registry.locking import lock_references
from secondary_learners.registry.registries import (
    add_registry,
    read_registries,
    remove_registry,
)
from secondary_learners.registry.remote import Remote, snapshot_folder
from secondary_learners.registry.verify import verify


def register(place: Path, *entries: Entry) -> None:
    (place / "registry").mkdir(exist_ok=True)
    for each in entries:
        (place / "registry" / f"{each.name}.toml").write_text(entry_toml(each))


@pytest.fixture
def place(tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue with the learner "small" and the base model "mini" that it was made for."""
    for module in (index, registries):
        monkeypatch.setattr(module, "content", lambda name: tmp_path / name)
    register(tmp_path, entry("small", "learner", save(tmp_path / "learners" / "small", "small")))
    base = tmp_path / "learners" / "mini"
    base.mkdir()
    (base / "config.json").write_text("{}")
    files = {"config.json": sha256_file(base / "config.json")}
    register(tmp_path, dataclasses.replace(entry("mini", "base-model", files), base="mini"))
    return tmp_path


def publish(place: Path, team: Team, repository: str, scale: float = 1.0) -> Entry:
    folder = place / f"{repository}-{scale}"
    digests = save(folder, "far", scale=scale)
    commit = team.publish(repository, folder)
    return dataclasses.replace(
        entry("far", "learner", digests), location=repository, revision=commit
    )


def test_only_what_is_locked_is_loaded(
    place: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LockError, match=r"'small' is not in learners\.lock. Try `learners lock sm"):
        load_learner("small", locked=True)
    monkeypatch.setenv("SECONDARY_LEARNERS_LOCKED", "1")
    with pytest.raises(LockError):
        load_learner("small")
    assert load_learner("small", locked=False).config.name == "small"
    for load in (load_learner, load_base):
        with pytest.raises(LockError, match=r"the folder .* has no place in learners\.lock"):
            load(place / "learners" / "small")
    with pytest.raises(LockError, match="'gpt2/of-someone' is not in"):
        load_base("gpt2/of-someone")
    with pytest.raises(UnknownNameError):
        load_base("gpt2")
    assert set(lock_references(["small"])) == {"small", "mini"}  # its base model too
    assert load_learner("small").config.name == "small"
    monkeypatch.setenv("SECONDARY_LEARNERS_LOCKED", "no")
    (machine.work / "learners.lock").unlink()
    assert load_learner("small").config.name == "small"


def test_a_lock_holds_while_the_registry_moves_on(
    place: Path, machine: Machine, online: Team
) -> None:
    register(place, publish(place, online, "team/locked"))
    lock_references(["far"])
    text = (machine.work / "learners.lock").read_bytes()
    assert lock_references(["far"]) == {}
    assert (machine.work / "learners.lock").read_bytes() == text
    newer = publish(place, online, "team/locked", scale=2.0)
    register(place, newer)
    assert float(load_learner("far", locked=True).score([[1]])[0]) == 1
    before, after = lock_references(["far"])["far"]
    assert before is not None and before.commit != after.commit == newer.revision
    assert float(load_learner("far").score([[1]])[0]) == 2


def test_a_locked_name_that_leads_elsewhere_is_refused(
    place: Path, machine: Machine, online: Team
) -> None:
    mine = publish(place, online, "team/mine")
    register(place, mine)
    lock_references(["far"])
    theirs = publish(place, online, "team/theirs")
    for other in (theirs, dataclasses.replace(mine, endpoint="http://127.0.0.1:9")):
        register(place, other)
        with pytest.raises(
            LockError,
            match=rf"'far' resolves elsewhere: .*team/mine on {online.url}, and.*{other.location}",
        ):
            load_learner("far")


def test_repositories_are_locked_with_their_digests(
    place: Path, machine: Machine, online: Team
) -> None:
    known = publish(place, online, "team/tagged")
    online.api.create_tag("team/tagged", tag="v1")
    lock_references(["team/tagged@v1"])
    newer = publish(place, online, "team/tagged", scale=2.0)
    online.api.delete_tag("team/tagged", tag="v1")
    online.api.create_tag("team/tagged", tag="v1", revision=newer.revision)
    assert float(load_learner("team/tagged@v1", locked=True).score([[1]])[0]) == 1
    with pytest.raises(LockError, match="'team/tagged' is not in"):
        load_learner("team/tagged", locked=True)
    pins = read_lock()
    assert pins["team/tagged@v1"].commit == known.revision
    wrong = dict(pins["team/tagged@v1"].files) | {"model.safetensors": "0" * 64}
    write_lock(pins | {"team/tagged@v1": dataclasses.replace(pins["team/tagged@v1"], files=wrong)})
    with pytest.raises(DigestMismatchError, match=r"model\.safetensors.*learners\.lock is out of"):
        load_learner("team/tagged@v1")


def test_a_folder_cannot_be_locked(place: Path, machine: Machine) -> None:
    with pytest.raises(LockError, match="cannot be locked"):
        lock_references(["./small"])
    assert not (machine.work / "learners.lock").exists()


def test_the_lock_may_be_elsewhere(
    place: Path, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDARY_LEARNERS_LOCK", str(tmp_path / "team.lock"))
    with pytest.raises(LockError, match=r"team\.lock, which does not exist"):
        load_learner("small")
    lock_references(["small"])
    assert (tmp_path / "team.lock").is_file()
    assert load_learner("small", locked=True).config.name == "small"


def test_a_lock_comes_back_as_it_was_written(tmp_path: Path) -> None:
    pins = {
        "team/x@v1": Pinned("learner", "team/x", "http://hub", "a" * 40, {"a.json": "0" * 64}),
        "mini": Pinned("base-model", "bundled", "", "", {"b.json": "1" * 64}),
    }
    write_lock(pins, tmp_path / "lock")
    assert read_lock(tmp_path / "lock") == pins
    assert list(json.loads((tmp_path / "lock").read_text())["locked"]) == ["mini", "team/x@v1"]


@pytest.mark.parametrize("value", ["./gone.lock", "there//gone.lock", "~/gone.lock"])
def test_a_lock_that_is_named_is_never_left_out(
    value: str, place: Path, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SECONDARY_LEARNERS_LOCK", value)
    with pytest.raises(LockError, match=r"gone\.lock, which does not exist"):
        load_learner("small")
    (machine.work / "there").mkdir()
    lock_references(["small"])
    folder = {"~": tmp_path, "t": machine.work / "there"}.get(value[0], machine.work)
    assert (folder / "gone.lock").is_file()
    assert load_learner("small", locked=True).config.name == "small"


def test_a_repository_with_code_is_not_locked_as_a_learner(
    place: Path, tmp_path: Path, machine: Machine, online: Team
) -> None:
    save(tmp_path / "coded", "coded")
    (tmp_path / "coded" / "x.pkl").write_bytes(b"code")
    online.publish("team/coded", tmp_path / "coded")
    with pytest.raises(ArtifactError, match=r"ships x\.pkl, which could run code"):
        lock_references(["team/coded"])
    with pytest.raises(ArtifactError, match=r"ships x\.pkl, which could run code"):
        locate("team/coded")
    assert read_lock() == {}
    assert not list(machine.home.glob("pins/*/*/*.json"))
    (tmp_path / "base").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / "base" / name).write_text('{"model_type": "gpt2"}')
    online.publish("team/basic", tmp_path / "base")
    lock_references(["team/basic"])  # what is never fetched does not matter
    assert read_lock()["team/basic"].kind == "base-model"
    assert set(read_lock()["team/basic"].files) == {"config.json"}
    with pytest.raises(LockError, match="is locked as a base-model, and asked for as a learner"):
        load_learner("team/basic")


def test_a_lock_means_the_same_hub_whatever_the_client_is_set_to(
    place: Path, machine: Machine, online: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = publish(place, online, "team/anywhere")
    register(place, dataclasses.replace(far, endpoint=online.url))
    lock_references(["far", "team/anywhere"])
    assert {pin.endpoint for pin in read_lock().values()} == {"", online.url}
    text = (machine.work / "learners.lock").read_bytes()
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    template = "https://hub.invalid/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert load_learner("far", locked=True).config.name == "far"
    assert load_learner("team/anywhere", locked=True, endpoint=online.url).config.name == "far"
    with pytest.raises(
        LockError, match=rf"has .* on {online.url}, and .*hub\.invalid\. Set HF_ENDPOINT to"
    ):
        load_learner("team/anywhere")
    assert lock_references(["far"]) == {}
    assert (machine.work / "learners.lock").read_bytes() == text


def test_what_another_process_pins_meanwhile_stays(place: Path, machine: Machine) -> None:
    def slowly() -> Iterator[str]:
        yield "mini"
        lock_references(["small"])

    lock_references(slowly())
    assert set(read_lock()) == {"mini", "small"}


def test_changes_wait_for_each_other(place: Path, machine: Machine) -> None:
    add_registry("team", str(place))
    thread = threading.Thread(target=remove_registry, args=["team"])
    with alone("registries"):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and "team" in read_registries()
    thread.join(30)
    assert read_registries() == {}


@pytest.mark.parametrize(
    "change",
    [
        "{",
        "[]",
        {"version": 2},
        {"locked": []},
        {"kind": 1, "more": 2},
        {"commit": "main"},
        {"commit": "", "location": "team/x"},
        {"files": {}},
        {"files": {"a.json": "0"}},
        {"location": "../x"},
        {"location": 7},
        {"location": "bundled", "commit": ""},
        {"kind": "model"},
        {"kind": ["learner"]},
        {"endpoint": 7},
        {"endpoint": ""},
        {"commit": 7},
        {"files": {"../a.json": "0" * 64}},
        {"files": ["a.json"]},
    ],
)
def test_a_damaged_lock_is_refused(change: object, machine: Machine) -> None:
    whole = Pinned("learner", "team/x", "https://huggingface.co", "a" * 40, {"a.json": "0" * 64})
    path = machine.work / "learners.lock"
    write_lock({"team/x": whole}, path)
    data = json.loads(path.read_text())
    if isinstance(change, dict):
        target = data if set(change) & set(data) else data["locked"]["team/x"]
        target.update(change)
        change = json.dumps(data)
    path.write_text(str(change))
    for use in (lambda: load_learner("team/x"), verify):
        with pytest.raises(LockError, match=r"learners\.lock (is damaged|has version 2)"):
            use()


def test_verify_finds_what_was_changed(place: Path, machine: Machine, online: Team) -> None:
    far = publish(place, online, "team/verified")
    register(place, far)
    assert {finding.name for finding in verify()} == {"small", "mini"}  # nothing was fetched yet
    assert verify(["far"]) == []
    load_learner("far")
    load_learner("team/verified")
    lock_references(["small"])
    good = verify()
    assert all(finding.good for finding in good)
    recorded = {(finding.name, finding.recorded_in) for finding in good}
    first = f"team/verified@{far.revision}"
    assert recorded == {
        ("small", "registry"),
        ("small", "learners.lock"),
        ("mini", "registry"),
        ("mini", "learners.lock"),
        ("far", "registry"),
        (first, "first load"),
    }
    assert far.revision is not None
    cached = snapshot_folder(Remote("team/verified"), far.revision) / "config.json"
    cached.resolve().write_bytes(b"{}")
    (place / "learners" / "small" / "recipe.toml").unlink()
    bad = {(finding.name, finding.file, finding.actual) for finding in verify() if not finding.good}
    assert bad == {
        ("far", "config.json", sha256_file(cached)),
        (first, "config.json", sha256_file(cached)),
        ("small", "recipe.toml", None),
    }
    for names in (["far"], ["team/verified"], [first]):
        assert [finding.file for finding in verify(names) if not finding.good] == ["config.json"]
    assert all(finding.good for finding in verify(["mini"]))
    with pytest.raises(UnknownNameError):
        verify(["smalll"])
    with pytest.raises(SecondaryLearnersError, match="has no recorded digests"):
        verify(["./small"])


def test_what_a_removed_registry_shipped_is_missing(place: Path, machine: Machine) -> None:
    add_registry("team", str(place))
    lock_references(["team:small"])
    remove_registry("team")
    bad = [finding for finding in verify() if not finding.good]
    assert {(finding.name, finding.actual) for finding in bad} == {("team:small", None)}
    with pytest.raises(UnknownNameError, match="learners registry add team SOURCE"):
        load_learner("team:small")


def test_a_registry_whose_folder_is_gone_is_named(
    place: Path, tmp_path: Path, machine: Machine
) -> None:
    shutil.copytree(place / "registry", tmp_path / "theirs" / "registry")
    shutil.copytree(place / "learners", tmp_path / "theirs" / "learners")
    add_registry("team", str(tmp_path / "theirs"))
    shutil.rmtree(tmp_path / "theirs")
    with pytest.raises(ArtifactError, match=r"ships with .*theirs, and no folder learners/"):
        load_learner("team:small")


def test_what_another_hub_sent_is_verified_too(
    place: Path, tmp_path: Path, machine: Machine, team: Team
) -> None:
    commit = publish(place, team, "team/apart").revision
    assert commit is not None
    load_learner("team/apart", endpoint=team.url)
    findings = verify(["team/apart"])
    assert len(findings) == 5 and all(finding.good for finding in findings)
    there = snapshot_folder(Remote("team/apart", team.url), commit) / "config.json"
    there.resolve().write_bytes(b"{}")
    assert [found.file for found in verify() if not found.good] == ["config.json"]
