"""A pull-through cache between a client and another hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from cli_helpers import learners
from server_helpers import Server, running, token

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
LARGE = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Server]:
    """The other hub, with team/mini (public, a tag) and team/secret."""
    root = tmp_path / "far"
    api_token = token(root, "ann", "write", ["team"])
    with running(root) as server:
        api = HfApi(server.url, token=api_token)
        for name, private in (("team/mini", False), ("team/secret", True)):
            api.create_repo(name, private=private)
            for path, data in (
                ("w.bin", LARGE),
                ("README.md", b"---\ntags: [far]\n---\n# mini\n"),
                ("a/é b.txt", b"first"),
            ):
                api.upload_file(repo_id=name, path_or_fileobj=data, path_in_repo=path)
        api.create_tag("team/mini", tag="v1.0")
        yield server


def writer(far: Server) -> HfApi:
    return HfApi(far.url, token=token(far.root, "ann", "write", ["team"]))


def files(folder: str) -> dict[str, bytes]:
    found = Path(folder)
    return {
        str(path.relative_to(found)): path.read_bytes()
        for path in found.rglob("*")
        if path.is_file()
    }


def test_fetched_once_and_served_offline(far: Server, tmp_path: Path) -> None:
    with running(tmp_path / "near", "--upstream", far.url) as near:
        first = files(
            snapshot_download("team/mini", endpoint=near.url, token=False, cache_dir=tmp_path / "1")
        )
        assert first["w.bin"] == LARGE and first["a/é b.txt"] == b"first"
        near_api, far_api = HfApi(near.url, token=False), HfApi(far.url, token=False)
        info = near_api.repo_info("team/mini")
        assert info.sha == far_api.repo_info("team/mini").sha
        assert "far" in (info.tags or [])
        assert near_api.repo_info("team/mini", revision="v1.0").sha == info.sha
        assert [row.id for row in near_api.list_models(filter="far")] == ["team/mini"]
        with pytest.raises(RepositoryNotFoundError):
            near_api.repo_info("team/secret")
        with pytest.raises(RepositoryNotFoundError):
            near_api.repo_info("team/nothing")
        far.kill()
        again = snapshot_download(
            "team/mini", endpoint=near.url, token=False, cache_dir=tmp_path / "2"
        )
        assert files(again) == first
        assert near_api.repo_info("team/mini", revision=info.sha).sha == info.sha
    assert learners("serve-check", tmp_path / "near").code == 0
    with running(tmp_path / "near", "--upstream", far.url) as near:  # it began without a network
        last = snapshot_download(
            "team/mini", endpoint=near.url, token=False, cache_dir=tmp_path / "3"
        )
        assert files(last) == first


def test_large_files_come_when_they_are_read(far: Server, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(LARGE).hexdigest()
    with running(tmp_path / "near", "--upstream", far.url) as near:
        api = HfApi(near.url, token=False)
        assert set(api.list_repo_files("team/mini")) > {"w.bin"}
        stored = tmp_path / "near" / "objects" / sha256[:2] / sha256
        assert not stored.exists()
        api.hf_hub_download("team/mini", "w.bin", cache_dir=tmp_path / "cache")
        assert stored.read_bytes() == LARGE


def test_a_changed_byte_is_not_kept(far: Server, tmp_path: Path) -> None:
    """The other hub checks what it sends; here someone between the two does not."""
    sha256 = hashlib.sha256(LARGE).hexdigest()
    (far.root / "objects" / sha256[:2] / sha256).unlink()
    with running(tmp_path / "near", "--upstream", far.url) as near:
        api = HfApi(near.url, token=False)
        with pytest.raises(HfHubHTTPError, match="missing or damaged"):
            api.hf_hub_download("team/mini", "w.bin", cache_dir=tmp_path / "cache")
        assert api.hf_hub_download("team/mini", "a/é b.txt", cache_dir=tmp_path / "cache")


def test_names_of_this_hub_are_never_asked_for_elsewhere(far: Server, tmp_path: Path) -> None:
    """Whoever puts team/mini on the other hub does not get it to those who trust ours."""
    mine = token(tmp_path / "near", "bob", "write", ["team"])
    with running(tmp_path / "near", "--upstream", far.url) as near:
        api = HfApi(near.url, token=mine)
        with pytest.raises(RepositoryNotFoundError):
            api.repo_info("team/mini")
        api.create_repo("team/mini")
        assert set(api.list_repo_files("team/mini")) == {".gitattributes"}


def test_what_was_mirrored_cannot_be_written_to(far: Server, tmp_path: Path) -> None:
    mine = token(tmp_path / "near", "bob", "write")
    with running(tmp_path / "near", "--upstream", far.url) as near:
        api = HfApi(near.url, token=mine)
        assert api.repo_info("team/mini").sha
        with pytest.raises(HfHubHTTPError, match="403"):
            api.upload_file(repo_id="team/mini", path_or_fileobj=b"x", path_in_repo="x")
