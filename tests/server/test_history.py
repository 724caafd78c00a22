"""Squash, move, duplicate, copies of large files and their deletion, by the real client."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from secondary_learners.server.store.collection import collect_uploads
from server_helpers import InProcess, Server, running, token

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LARGE = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture(autouse=True)
def plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    root = tmp_path_factory.mktemp("history") / "hub"
    with running(root) as server:
        yield server, root


@pytest.fixture
def api(served: tuple[Server, Path]) -> HfApi:
    server, root = served
    return HfApi(server.url, token=token(root, "ann", "write", ["team"]))


@pytest.fixture
def stranger(served: tuple[Server, Path]) -> HfApi:
    server, root = served
    return HfApi(server.url, token=token(root, "eve", "write"))


@pytest.fixture
def repository(api: HfApi, request: pytest.FixtureRequest) -> str:
    """Three commits: w.bin, then old.txt, then another old.txt; and a tag on the second."""
    name = f"team/{request.node.name.replace('[', '-').replace(']', '').removeprefix('test_')}"
    api.create_repo(name)
    for path, data in (("w.bin", LARGE), ("old.txt", b"1"), ("old.txt", b"2")):
        api.upload_file(repo_id=name, path_or_fileobj=data, path_in_repo=path)
    return name


def read(api: HfApi, repository: str, path: str, cache: Path, revision: str = "main") -> bytes:
    return Path(
        api.hf_hub_download(repository, path, revision=revision, cache_dir=cache)
    ).read_bytes()


def test_squash(api: HfApi, repository: str, tmp_path: Path) -> None:
    commits = api.list_repo_commits(repository)
    api.create_tag(repository, tag="v1", revision=commits[1].commit_id)
    api.super_squash_history(repository, commit_message="all in one")
    assert [commit.title for commit in api.list_repo_commits(repository)] == ["all in one"]
    assert read(api, repository, "w.bin", tmp_path) == LARGE
    assert read(api, repository, "old.txt", tmp_path) == b"2"
    assert read(api, repository, "old.txt", tmp_path, "v1") == b"1"  # a tag still leads there
    with pytest.raises(HfHubHTTPError):  # nothing else led to it
        api.repo_info(repository, revision=commits[0].commit_id)
    api.upload_file(repo_id=repository, path_or_fileobj=b"3", path_in_repo="new.txt")
    assert set(api.list_repo_files(repository)) == {".gitattributes", "w.bin", "old.txt", "new.txt"}
    with pytest.raises(HfHubHTTPError, match="404"):
        api.super_squash_history(repository, branch="nope")


def test_what_a_squash_left_goes_in_time(tmp_path: Path) -> None:
    ann = token(tmp_path / "hub", "ann", "write")
    with InProcess(tmp_path / "hub") as hub:
        hub.ask("POST", "/api/repos/create", {"name": "r"}, ann)
        for text in (b"old", b"new"):
            assert hub.commit(ann, {"a.txt": text}, "ann/r").status == 200
        store = hub.app.state.hub
        assert collect_uploads(store, -1).count == 0
        assert hub.ask("POST", "/api/models/ann/r/super-squash/main", {}, ann).status == 200
        assert collect_uploads(store, -1).count == 1
        assert hub.ask("GET", "/ann/r/resolve/main/a.txt").body == b"new"


def test_move(api: HfApi, stranger: HfApi, repository: str, tmp_path: Path) -> None:
    api.move_repo(repository, "ann/moved")
    assert read(api, "ann/moved", "w.bin", tmp_path) == LARGE
    assert read(api, repository, "w.bin", tmp_path / "other") == LARGE  # the old name leads there
    assert api.repo_info(repository).id == "ann/moved"
    api.upload_file(repo_id=repository, path_or_fileobj=b"3", path_in_repo="new.txt")
    assert read(api, "ann/moved", "new.txt", tmp_path) == b"3"
    api.create_repo(repository)  # it is free all the same
    assert set(api.list_repo_files(repository)) == {".gitattributes"}
    with pytest.raises(HfHubHTTPError, match="409"):
        api.move_repo("ann/moved", repository)
    with pytest.raises(HfHubHTTPError, match="403"):
        stranger.move_repo("ann/moved", "eve/stolen")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.move_repo("ann/moved", "eve/gift")


def test_where_a_move_leads(tmp_path: Path) -> None:
    ann = token(tmp_path / "hub", "ann", "write", ["team"])
    html = {"Accept": "text/html"}
    with InProcess(tmp_path / "hub") as hub:

        def moved(source: str, target: str) -> None:
            body = {"fromRepo": source, "toRepo": target}
            assert hub.ask("POST", "/api/repos/move", body, ann).status == 200

        def leads(path: str, token: str = "", headers: dict[str, str] | None = None) -> str:
            answer = hub.ask("GET", path, token=token, headers=headers or {})
            assert answer.status in (307, 404)
            return answer.headers.get("location", "")

        hub.ask("POST", "/api/repos/create", {"name": "first"}, ann)
        assert hub.commit(ann, {"a b.txt": b"x"}, "ann/first").status == 200
        moved("ann/first", "ann/second")
        moved("ann/second", "team/third")
        file = "resolve/refs%2Fpr%2F1/a%20b.txt"
        assert leads(f"/ann/first/{file}?x=1") == f"/team/third/{file}?x=1"
        assert leads("/api/models/ann/second/tree/main") == "/api/models/team/third/tree/main"
        assert leads("/ann/first", headers=html) == "/team/third"
        assert leads("/datasets/ann/first/resolve/main/x") == ""  # another kind
        batch = "/ann/first.git/info/lfs/objects/batch"
        answer = hub.ask("POST", batch, {"operation": "upload", "objects": []}, ann)
        assert answer.headers["location"] == batch.replace("ann/first", "team/third")
        # where it is now is told to nobody who may not see it
        hub.ask("PUT", "/api/models/team/third/settings", {"private": True}, ann)
        assert leads("/ann/first", headers=html) == leads("/api/models/ann/first") == ""
        assert leads("/api/models/ann/first", ann) == "/api/models/team/third"
        moved("team/third", "ann/first")  # back: its own name leads nowhere else
        assert hub.ask("GET", "/api/models/ann/first", token=ann).status == 200
        assert leads("/api/models/team/third", ann) == "/api/models/ann/first"
        body = {"name": "first"}
        assert hub.ask("DELETE", "/api/repos/delete", body, ann).status == 200
        assert leads("/api/models/team/third", ann) == leads("/api/models/ann/second", ann) == ""


def test_a_hub_from_before_there_were_moves(tmp_path: Path) -> None:
    ann = token(tmp_path / "hub", "ann", "write")
    with closing(sqlite3.connect(tmp_path / "hub" / "hub.sqlite3")) as database:
        database.execute("DROP TABLE moves")
    with InProcess(tmp_path / "hub") as hub:
        hub.ask("POST", "/api/repos/create", {"name": "r"}, ann)
        body = {"fromRepo": "ann/r", "toRepo": "ann/s"}
        assert hub.ask("POST", "/api/repos/move", body, ann).status == 200


def test_duplicate(api: HfApi, stranger: HfApi, repository: str, tmp_path: Path) -> None:
    commits = api.list_repo_commits(repository)
    api.create_tag(repository, tag="v1", revision=commits[1].commit_id)
    api.duplicate_repo(repository, "ann/copy")
    assert [c.commit_id for c in api.list_repo_commits("ann/copy")] == [
        c.commit_id for c in commits
    ]
    api.delete_repo(repository)
    assert read(api, "ann/copy", "w.bin", tmp_path) == LARGE
    assert read(api, "ann/copy", "old.txt", tmp_path, "v1") == b"1"
    api.upload_file(repo_id="ann/copy", path_or_fileobj=b"3", path_in_repo="old.txt")
    assert read(api, "ann/copy", "old.txt", tmp_path) == b"3"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.duplicate_repo("ann/copy", "ann/copy")
    with pytest.raises(HfHubHTTPError, match="403"):
        stranger.duplicate_repo("ann/copy", "ann/another")
    api.update_repo_settings("ann/copy", private=True)
    with pytest.raises(RepositoryNotFoundError):
        stranger.duplicate_repo("ann/copy", "eve/copy")
    api.duplicate_repo("ann/copy", "ann/again")
    assert api.repo_info("ann/again").private
    for name in ("ann/copy", "ann/again"):
        api.delete_repo(name)


def test_a_large_file_is_copied_without_sending_it(
    api: HfApi, stranger: HfApi, repository: str, tmp_path: Path
) -> None:
    stranger.create_repo("eve/mine", exist_ok=True)
    copy = CommitOperationCopy(
        "w.bin", "there/w.bin", src_repo_id=repository, src_repo_type="model"
    )
    stranger.create_commit("eve/mine", [copy], commit_message="copied")
    assert read(stranger, "eve/mine", "there/w.bin", tmp_path) == LARGE
    api.delete_repo(repository)
    assert read(stranger, "eve/mine", "there/w.bin", tmp_path / "again") == LARGE


def test_no_copy_of_what_one_may_not_read(api: HfApi, stranger: HfApi, repository: str) -> None:
    stranger.create_repo("eve/other", exist_ok=True)
    api.update_repo_settings(repository, private=True)
    copy = CommitOperationCopy("w.bin", "w.bin", src_repo_id=repository, src_repo_type="model")
    with pytest.raises(RepositoryNotFoundError):
        stranger.create_commit("eve/other", [copy], commit_message="stolen")
    for source in (repository, "eve/other"):  # by its sha256 alone, from where it is not
        with pytest.raises(HfHubHTTPError):
            answer = stranger_call(stranger, source, SHA256)
            assert answer == [SHA256]
            copied = CommitOperationAdd("w.bin", LARGE)
            copied._is_uploaded = True
            copied._upload_mode = "lfs"
            stranger.create_commit("eve/other", [copied], commit_message="stolen")


def stranger_call(api: HfApi, source: str, sha256: str) -> list[str]:
    """The sha256s that were not copied to eve/other."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    answer = get_session().post(
        f"{api.endpoint}/api/models/{source}/lfs-files/duplicate",
        headers={"authorization": f"Bearer {api.token}"},
        json={"target": {"type": "model", "name": "eve/other"}, "files": [{"sha256": sha256}]},
    )
    hf_raise_for_status(answer)
    return [row["sha256"] for row in answer.json()["failed"]]


@pytest.mark.parametrize("rewrite", [True, False])
def test_large_files_are_listed_and_deleted_for_good(
    api: HfApi, served: tuple[Server, Path], repository: str, tmp_path: Path, rewrite: bool
) -> None:
    other = LARGE[::-1] + bytes([rewrite])
    api.upload_file(repo_id=repository, path_or_fileobj=other, path_in_repo="w.bin")
    api.upload_file(repo_id=repository, path_or_fileobj=b"x", path_in_repo="last.txt")
    listed = {file.file_oid: file for file in api.list_lfs_files(repository)}
    assert set(listed) == {SHA256, hashlib.sha256(other).hexdigest()}
    assert (listed[SHA256].filename, listed[SHA256].size) == ("w.bin", len(LARGE))
    newest = listed[hashlib.sha256(other).hexdigest()]
    api.permanently_delete_lfs_files(repository, [newest], rewrite_history=rewrite)
    stored = served[1] / "objects" / newest.file_oid[:2] / newest.file_oid
    assert not stored.exists()
    assert ("w.bin" in api.list_repo_files(repository)) == (not rewrite)
    first = api.list_repo_commits(repository)[-2].commit_id
    assert read(api, repository, "w.bin", tmp_path, first) == LARGE  # that one was not deleted
    api.upload_file(repo_id=repository, path_or_fileobj=other, path_in_repo="w.bin")
    assert read(api, repository, "w.bin", tmp_path) == other


def test_only_who_may_write_deletes(stranger: HfApi, repository: str) -> None:
    with pytest.raises(HfHubHTTPError, match="403"):
        stranger.permanently_delete_lfs_files(repository, stranger.list_lfs_files(repository))
    with pytest.raises(HfHubHTTPError, match="403"):
        stranger.super_squash_history(repository)


def test_there_are_no_spaces(api: HfApi, repository: str) -> None:
    assert not api.repo_exists(repository, repo_type="space")
    assert list(api.list_spaces()) == []


def test_a_repository_with_a_long_history_can_be_deleted(tmp_path: Path) -> None:
    """One commit hung on the other, and SQLite follows a thousand such steps at most."""
    ann = token(tmp_path / "hub", "ann", "write")
    with InProcess(tmp_path / "hub") as hub:
        body = {"name": "r"}
        assert hub.ask("POST", "/api/repos/create", body, ann).status == 200
        with hub.app.state.hub.database.transaction() as connection:
            for number in range(1200):
                connection.execute(
                    "INSERT INTO commits SELECT id + 1, repository, ?, id, id + 1, 0, author, date,"
                    " title, message, card FROM commits ORDER BY id DESC LIMIT 1",
                    (f"{number:040x}",),
                )
        assert hub.ask("DELETE", "/api/repos/delete", body, ann).status == 200
        assert hub.app.state.hub.database.row("SELECT count(*) FROM commits")[0] == 0
