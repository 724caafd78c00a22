"""Loading from a Hub: the real client, and the real server in a process of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from registry_helpers import Machine, Team, entry, proxy, save
from secondary_learners.errors import (
    ArtifactError,
    DigestMismatchError,
    HubError,
    OfflineError,
    UnknownNameError,
)
from secondary_learners.learners.artifact import FILES, Learner
from secondary_learners.registry import index, registries
from secondary_learners.registry import remote as remote_module
from secondary_learners.registry.index import Entry, entry_toml
from secondary_learners.registry.load import load_learner
from secondary_learners.registry.remote import Remote, download, snapshot_folder
from secondary_learners.registry.verify import verify
from server_helpers import token


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "small", "small")
    return tmp_path / "small"


def scale(learner: Learner) -> float:
    return float(learner.score([[1]])[0])


def flip(path: Path) -> None:
    """Change one byte of what `path` leads to."""
    target = path.resolve()
    data = bytearray(target.read_bytes())
    data[-2] ^= 1
    target.chmod(0o644)
    target.write_bytes(data)


def catalogue(folder: Path, monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    """Our own registry, made of `entries`."""
    (folder / "registry").mkdir(exist_ok=True)
    for each in entries:
        (folder / "registry" / f"{each.name}.toml").write_text(entry_toml(each))
    for module in (index, registries):
        monkeypatch.setattr(module, "content", lambda name: folder / name)


# what is loaded


def test_a_tag_stays_and_the_default_branch_moves_on(
    folder: Path, tmp_path: Path, machine: Machine, online: Team
) -> None:
    first = online.publish("team/moves", folder, tag="v1.0")
    assert scale(load_learner("team/moves")) == 1
    save(tmp_path / "second", "small", scale=2)
    online.publish("team/moves", tmp_path / "second")
    assert scale(load_learner("team/moves")) == 2
    for revision in ("v1.0", first, "main"):
        assert scale(load_learner(f"team/moves@{revision}")) == (2 if revision == "main" else 1)


def test_a_name_leads_to_its_commit(
    folder: Path, tmp_path: Path, machine: Machine, online: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = save(tmp_path / "small", "small")
    commit = online.publish("team/named", folder, tag="old")
    save(tmp_path / "newer", "small", scale=3)
    online.publish("team/named", tmp_path / "newer")
    far = dataclasses.replace(
        entry("far", "learner", digests), location="team/named", revision=commit
    )
    catalogue(tmp_path, monkeypatch, far)
    assert scale(load_learner("far")) == 1
    assert scale(load_learner("far@main")) == 3
    assert scale(load_learner("far@old")) == 1


def test_only_tensors_and_text_are_fetched(folder: Path, machine: Machine, online: Team) -> None:
    for name in ("comparison.png", "notes.txt", "extra.json"):
        (folder / name).write_text("{}")
    (folder / "data").mkdir()
    (folder / "data" / "more.json").write_text("{}")
    commit = online.publish("team/mixed", folder)
    load_learner("team/mixed")
    there = snapshot_folder(Remote("team/mixed"), commit)
    assert {path.name for path in there.rglob("*")} == set(FILES)
    assert there.is_relative_to(machine.cache)


def test_another_hub_is_named_by_its_address(folder: Path, machine: Machine, team: Team) -> None:
    team.publish("team/there", folder, private=True)
    learner = load_learner("team/there", endpoint=f"{team.url}/", token=team.token)
    assert learner.config.name == "small"


def test_one_s_own_token_goes_to_no_other_hub(
    folder: Path, machine: Machine, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.publish("team/public", folder)
    monkeypatch.setenv("HF_TOKEN", "hf_my_own")
    with proxy(team.url) as other:
        load_learner("team/public", endpoint=other.url)
        sent = [value for seen in other.seen for value in seen.headers.values()]
        assert other.seen and not any("hf_my_own" in value for value in sent)
        monkeypatch.setattr(constants, "ENDPOINT", other.url)
        with pytest.raises(HubError, match=r"token.*HF_TOKEN"):  # the team does not know it
            load_learner("team/public@main", endpoint=other.url)


@pytest.mark.parametrize(
    ("address", "token", "warned"),
    [
        ("http://hub.team.org", "sl_x", True),
        ("http://10.0.0.7:8080", "sl_x", True),
        ("https://hub.team.org", "sl_x", False),
        ("http://hub.team.org", None, False),
        *((f"http://{host}:8080", "sl_x", False) for host in ("127.0.0.1", "localhost", "[::1]")),
    ],
)
def test_a_token_on_plain_http_is_warned_of_once(
    address: str, token: str | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    remote_module._warn_once.cache_clear()
    remote = remote_module.Remote("team/mini", address, token)
    for _ in range(3):
        remote_module.warn_of_plain_http(remote)
    assert ["plain HTTP" in record.message for record in caplog.records] == [True] * warned


# what may not be read, or is not there


def test_a_private_repository_says_which_token_is_missing(
    folder: Path, machine: Machine, online: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.publish("team/secret", folder, private=True)
    with pytest.raises(HubError, match=r"or it is private.*`hf auth login` or set HF_TOKEN: no t"):
        load_learner("team/secret")
    stranger = token(online.root, "stranger", "read")
    with pytest.raises(HubError, match=r"team/secret.*private.*use the token of a user who may"):
        load_learner("team/secret", token=stranger)
    with pytest.raises(HubError, match=r"does not accept the token"):
        load_learner("team/secret", token="sl_nonsense")
    monkeypatch.setenv("HF_TOKEN", token(online.root, "team", "read"))
    assert load_learner("team/secret").config.name == "small"


def test_a_private_repository_of_another_hub_asks_for_a_token_for_that_hub(
    folder: Path, machine: Machine, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.publish("team/secret2", folder, private=True)
    monkeypatch.setenv("HF_TOKEN", team.token)
    with pytest.raises(HubError, match=r"the argument token.*your own token goes only to"):
        load_learner("team/secret2", endpoint=team.url)


def test_a_gated_repository_says_which_step_is_missing(
    folder: Path, machine: Machine, online: Team
) -> None:
    online.publish("team/gated", folder)
    online.api.update_repo_settings("team/gated", gated="auto")
    with pytest.raises(HubError, match=rf"is gated.*at {online.url}/team/gated, then log"):
        load_learner("team/gated")
    with pytest.raises(HubError, match=r"is gated.*the one that was sent"):
        load_learner("team/gated", token=token(online.root, "stranger", "read"))
    assert load_learner("team/gated", token=online.token).config.name == "small"


def test_what_does_not_exist_is_said_plainly(folder: Path, machine: Machine, online: Team) -> None:
    online.publish("team/tagged", folder, tag="v1.0")
    with pytest.raises(HubError, match=r"no repository team/nothing.*no folder 'team/nothing'"):
        load_learner("team/nothing")
    with pytest.raises(UnknownNameError, match=r"revision of team/tagged.*'v1'.*mean v1\.0"):
        load_learner("team/tagged@v1")
    (folder / "recipe.toml").unlink()
    online.publish("team/half", folder)
    with pytest.raises(ArtifactError, match=r"team/half.*is not a learner: it has no recipe\.toml"):
        load_learner("team/half")


# what may not be trusted


@pytest.mark.parametrize("name", ["pytorch_model.bin", "code/handler.py", "x.PKL"])
def test_a_repository_with_code_is_refused_before_anything_is_fetched(
    name: str, folder: Path, machine: Machine, online: Team
) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"code")
    repository = f"team/code-{Path(name).suffix[1:].lower()}"
    online.publish(repository, folder)
    with pytest.raises(ArtifactError, match=rf"ships {name}, which could run code"):
        load_learner(repository)
    assert list(machine.cache.rglob("*.json")) == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_changed_in_the_cache_is_refused(
    name: str, folder: Path, machine: Machine, online: Team
) -> None:
    commit = online.publish("team/cached", folder, tag=name.partition(".")[0])
    ref = f"team/cached@{name.partition('.')[0]}"
    load_learner(ref)
    flip(snapshot_folder(Remote("team/cached"), commit) / name)
    for again in (ref, f"team/cached@{commit}", "team/cached"):
        with pytest.raises(
            DigestMismatchError, match=rf"{name}.*changed in the cache.*`hf cache rm model/team/c"
        ):
            load_learner(again)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_changed_on_the_server_is_refused_and_not_kept(
    name: str, folder: Path, machine: Machine, online: Team
) -> None:
    digests = save(folder, f"served-{name.partition('.')[0]}")
    repository = f"team/served-{name.partition('.')[0]}"
    commit = online.publish(repository, folder)
    stored = online.root / "objects" / digests[name][:2] / digests[name]
    right = stored.read_bytes()
    flip(stored)
    with pytest.raises((DigestMismatchError, HubError)) as caught:
        load_learner(repository)
    assert repository in str(caught.value)
    assert not (snapshot_folder(Remote(repository), commit) / name).exists()
    stored.write_bytes(right)
    assert load_learner(repository).config.name.startswith("served-")


def test_a_digest_that_differs_from_the_registry_is_refused(
    folder: Path, tmp_path: Path, machine: Machine, online: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = save(tmp_path / "small", "small")
    commit = online.publish("team/entry", folder)
    for name in ("README.md", "model.safetensors"):
        wrong = dataclasses.replace(
            entry("far", "learner", {**digests, name: "0" * 64}),
            location="team/entry",
            revision=commit,
        )
        catalogue(tmp_path, monkeypatch, wrong)
        for _ in range(2):  # the bad file is not found in the cache the second time
            with pytest.raises(DigestMismatchError, match=rf"{name}.*should be 0000.*team/entry"):
                load_learner("far")
    less = {name: digest for name, digest in digests.items() if name != "recipe.toml"}
    catalogue(tmp_path, monkeypatch, dataclasses.replace(wrong, files=less))
    with pytest.raises(DigestMismatchError, match=r"recipe\.toml: its sha256 should be recorded"):
        load_learner("far")


def test_a_hub_that_answers_another_commit_is_refused(
    folder: Path, machine: Machine, team: Team
) -> None:
    commit = team.publish("team/asked", folder)
    with proxy(team.url) as liar:
        liar.claim = "c" * 40
        with pytest.raises(HubError, match=rf"asked for the commit {commit} and answered with ccc"):
            load_learner(f"team/asked@{commit}", endpoint=liar.url)


def test_files_of_another_commit_are_refused(folder: Path, machine: Machine, team: Team) -> None:
    commit = team.publish("team/asked2", folder)
    with proxy(team.url) as liar:
        liar.claim_files = "d" * 40
        with pytest.raises(HubError, match=rf"asked for the commit {commit} and answered with ddd"):
            load_learner("team/asked2", endpoint=liar.url)


def test_what_is_no_hub_is_said_to_be_none(folder: Path, machine: Machine, team: Team) -> None:
    with pytest.raises(HubError, match=r"team/any on http.*/nothing answered 404"):
        load_learner("team/any", endpoint=f"{team.url}/nothing")
    with pytest.raises(OfflineError, match=r"loaded on this machine before.*cannot be reached"):
        load_learner("team/any", endpoint="http://127.0.0.1:9")


# interruptions


def test_a_broken_download_goes_on_where_it_was(
    folder: Path, tmp_path: Path, machine: Machine, team: Team
) -> None:
    (tmp_path / "big").mkdir()
    data = bytes(range(256)) * 2**17  # 32 MB: the client keeps what it has in steps of 10
    (tmp_path / "big" / "big.safetensors").write_bytes(data)
    commit = team.publish("team/big", tmp_path / "big")
    team.publish("team/broken", folder)
    with proxy(team.url) as flaky:
        flaky.cut = {"evaluation.json", "big.safetensors"}
        assert load_learner("team/broken", endpoint=flaky.url).config.name == "small"
        there = download(Remote("team/big", flaky.url), commit, ["big.safetensors"])
        assert flaky.cut == set()
        assert (there / "big.safetensors").read_bytes() == data
        ranges = [seen.headers["range"] for seen in flaky.seen if "range" in seen.headers]
        assert ranges == [f"bytes={10 * 2**20}-"]


def test_offline_what_another_tool_fetched_is_checked_against_its_name(
    folder: Path, machine: Machine, online: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = online.publish("team/tool", folder)
    online.api.snapshot_download("team/tool")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_learner("team/tool").config.name == "small"
    flip(snapshot_folder(Remote("team/tool"), commit) / "model.safetensors")
    with pytest.raises(OfflineError, match="was not loaded on this machine before"):
        load_learner("team/tool")


def test_a_damaged_record_is_named(folder: Path, machine: Machine, online: Team) -> None:
    online.publish("team/record", folder)
    load_learner("team/record")
    (record,) = machine.home.glob("pins/*/*/*.json")
    assert json.loads(record.read_text())["repository"] == "team/record"
    record.write_text("{")
    with pytest.raises(ArtifactError, match=rf"{record} is damaged.*Delete it and load again"):
        load_learner("team/record")


def test_records_that_cannot_be_written_are_named(
    folder: Path, machine: Machine, online: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.publish("team/unwritten", folder)
    (machine.home / "file").touch()
    monkeypatch.setenv("SECONDARY_LEARNERS_HOME", str(machine.home / "file"))
    with pytest.raises(HubError, match=r"cannot be written.*set SECONDARY_LEARNERS_HOME"):
        load_learner("team/unwritten")


@pytest.mark.parametrize(
    "change",
    [{}, [], {"files": {}}, {"files": ["x"]}, {"files": {"../x": "0" * 64}}, {"files": {"x": 1}}],
)
def test_a_record_that_is_no_record_is_named(
    change: object, folder: Path, machine: Machine, online: Team
) -> None:
    commit = online.publish("team/record2", folder)
    load_learner("team/record2")
    (record,) = machine.home.glob("pins/*/*/*.json")
    data = json.loads(record.read_text())
    record.write_text(json.dumps(data | change if change and isinstance(change, dict) else change))
    for use in (lambda: load_learner(f"team/record2@{commit}"), verify):
        with pytest.raises(ArtifactError, match=rf"{record} is damaged.*Delete it and load again"):
            use()
    record.write_text(json.dumps(data | {"repository": 7}))
    with pytest.raises(ArtifactError, match=rf"{record} is damaged"):
        verify()
    (branch,) = machine.home.glob("pins/*/*/refs/*.json")
    record.write_text(json.dumps(data))
    branch.write_text('{"commit": 7}')
    with pytest.raises(ArtifactError, match=rf"{branch} is damaged"):
        load_learner("team/record2")


def test_another_hub_has_a_cache_of_its_own(
    folder: Path, tmp_path: Path, machine: Machine, team: Team
) -> None:
    commit = team.publish("team/cached2", folder)
    with proxy(team.url) as other:
        load_learner("team/cached2", endpoint=team.url)
        load_learner(f"team/cached2@{commit}", endpoint=other.url)
        assert "config.json" in other.fetched()  # nothing of one Hub passes for the other's
        remotes = [Remote("team/cached2", url) for url in (team.url, other.url)]
    assert len({remote.cache for remote in remotes}) == 2
    assert {remote.cache.parent for remote in remotes} == {machine.home.resolve() / "cache"}
    folders = {f"models--{remote.cached_as.replace('/', '--')}" for remote in remotes}
    assert {path.name for path in machine.cache.iterdir()} == folders and len(folders) == 2
    flip(snapshot_folder(remotes[1], commit) / "config.json")
    assert load_learner(f"team/cached2@{commit}", endpoint=team.url).config.name == "small"
    with pytest.raises(DigestMismatchError, match=f"hf cache rm model/{remotes[1].cached_as}`"):
        load_learner(f"team/cached2@{commit}", endpoint=remotes[1].endpoint)


def test_what_was_cached_before_is_not_called_the_hub_s(
    folder: Path, machine: Machine, online: Team
) -> None:
    first = online.publish("team/same", folder)
    load_learner(f"team/same@{first}")
    weights = snapshot_folder(Remote("team/same"), first) / "model.safetensors"
    flip(weights)
    (folder / "README.md").write_text("newer")
    second = online.publish("team/same", folder)  # with the same weights
    with pytest.raises(DigestMismatchError, match=r"model\.safetensors.*changed in the cache"):
        load_learner(f"team/same@{second}")
    assert weights.is_file()


def test_a_token_is_not_in_what_is_printed() -> None:
    assert "secret" not in repr(Remote("team/x", "http://hub", "secret"))
