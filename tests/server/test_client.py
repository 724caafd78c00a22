"""The unmodified huggingface_hub client against a server in a process of its own."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _pagination

from server_helpers import Server, token

# The client's own way to send a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

MINI = Path(__file__).parents[2] / "learners/mini"
CARD = "---\nlibrary_name: ours\ntags: [small]\nlicense: mit\n---\n# A card\n"


@pytest.fixture(autouse=True)
def plain_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture(scope="module")
def api(served: tuple[Server, Path]) -> HfApi:
    server, root = served
    return HfApi(server.url, token=token(root, "ann", "write", ["team"]))


def nobody(api: HfApi) -> HfApi:
    return HfApi(api.endpoint, token=False)


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return int(error.value.response.status_code)


def test_publish_tag_change_and_load_again(api: HfApi, tmp_path: Path) -> None:
    assert api.whoami()["name"] == "ann"
    assert api.create_repo("team/mini").repo_id == "team/mini"
    assert api.create_repo("team/mini", exist_ok=True).repo_id == "team/mini"
    first = api.upload_folder(repo_id="team/mini", folder_path=MINI)
    api.create_tag("team/mini", tag="v1.0")
    again = api.upload_folder(repo_id="team/mini", folder_path=MINI)
    assert again.oid == first.oid  # nothing changed, nothing is committed
    changed = api.upload_file(
        repo_id="team/mini", path_or_fileobj=CARD.encode(), path_in_repo="README.md"
    )
    for revision, oid in (("v1.0", first.oid), ("main", changed.oid), (first.oid[:8], first.oid)):
        folder = Path(
            snapshot_download(
                "team/mini", revision=revision, endpoint=api.endpoint, cache_dir=tmp_path
            )
        )
        assert folder.name == oid
        for path in MINI.iterdir():
            expected = path.read_bytes()
            if path.name == "README.md" and revision == "main":
                expected = CARD.encode()
            assert (folder / path.name).read_bytes() == expected
    assert not api.verify_repo_checksums("team/mini", revision="v1.0", local_dir=MINI).mismatches
    assert [commit.commit_id for commit in api.list_repo_commits("team/mini")][:2] == [
        changed.oid,
        first.oid,
    ]
    info = api.model_info("team/mini", files_metadata=True)
    assert (info.sha, info.library_name) == (changed.oid, "ours")
    assert {"small", "license:mit"} <= set(info.tags)
    weights = next(file for file in info.siblings if file.rfilename == "model.safetensors")
    assert weights.size == weights.lfs.size == (MINI / "model.safetensors").stat().st_size


def test_branches_tags_and_their_ends(api: HfApi) -> None:
    api.create_repo("team/refs")
    api.create_branch("team/refs", branch="feat/x")
    on_branch = api.upload_file(
        repo_id="team/refs", path_or_fileobj=b"x", path_in_repo="x.txt", revision="feat/x"
    )
    api.create_tag("team/refs", tag="v1", revision="feat/x")
    refs = api.list_repo_refs("team/refs")
    assert {ref.name for ref in refs.branches} == {"main", "feat/x"}
    assert refs.tags[0].target_commit == on_branch.oid
    assert "x.txt" not in api.list_repo_files("team/refs")
    assert "x.txt" in api.list_repo_files("team/refs", revision="feat/x")
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag("team/refs", tag="v1")
    assert status(error) == 409
    with pytest.raises(HfHubHTTPError):  # one name has one meaning
        api.create_branch("team/refs", branch="v1")
    api.create_tag("team/refs", tag="v1", exist_ok=True)
    api.delete_tag("team/refs", tag="v1")
    api.delete_branch("team/refs", branch="feat/x")
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files("team/refs", revision="feat/x")
    assert "x.txt" in api.list_repo_files("team/refs", revision=on_branch.oid)
    with pytest.raises(HfHubHTTPError) as error:
        api.delete_branch("team/refs", branch="main")
    assert status(error) == 403


def test_deleting_copying_and_browsing(api: HfApi) -> None:
    api.create_repo("team/tree")
    files = {"a/one.txt": b"1", "a/b/two.txt": b"2", "c.bin": b"\0" * 3000}
    api.create_commit(
        "team/tree",
        [CommitOperationAdd(path, io.BytesIO(data)) for path, data in files.items()],
        commit_message="add",
    )
    rows = {row.path: row for row in api.list_repo_tree("team/tree", recursive=True, expand=True)}
    assert set(rows) == {*files, "a", "a/b", ".gitattributes"}
    assert rows["a"].last_commit.title == "add"
    assert [row.path for row in api.list_repo_tree("team/tree", "a/b")] == ["a/b/two.txt"]
    assert [row.path for row in api.get_paths_info("team/tree", ["a", "no", "c.bin"])] == [
        "a",
        "c.bin",
    ]
    fs = HfFileSystem(endpoint=api.endpoint, token=api.token)
    assert fs.read_text("team/tree/a/b/two.txt") == "2"
    with fs.open("team/tree/c.bin") as file:
        file.seek(2990)
        assert file.read() == b"\0" * 10
    api.create_commit(
        "team/tree",
        [
            CommitOperationCopy("c.bin", "d/copy.bin"),
            CommitOperationCopy("a/one.txt", "d/one.txt"),
            CommitOperationDelete("a/"),
        ],
        commit_message="move",
    )
    left = {".gitattributes", "c.bin", "d/copy.bin", "d/one.txt"}
    assert set(api.list_repo_files("team/tree")) == left
    with pytest.raises(EntryNotFoundError):
        api.delete_file("a/one.txt", "team/tree")


def test_private_gated_and_deleted(api: HfApi, served: tuple[Server, Path], tmp_path: Path) -> None:
    _, root = served
    reader = HfApi(api.endpoint, token=token(root, "bob", "read", ["team"]))
    stranger = HfApi(api.endpoint, token=token(root, "eve", "write"))
    api.create_repo("team/secret", private=True)
    api.upload_file(repo_id="team/secret", path_or_fileobj=b"s", path_in_repo="s.txt")
    assert reader.hf_hub_download("team/secret", "s.txt", cache_dir=tmp_path / "reader")
    for other in (stranger, nobody(api)):
        with pytest.raises(RepositoryNotFoundError) as error:
            other.hf_hub_download("team/secret", "s.txt", cache_dir=tmp_path / "other")
        assert not isinstance(error.value, GatedRepoError)
        assert "team/secret" not in [model.id for model in other.list_models()]
    assert "team/secret" in [model.id for model in reader.list_models()]
    with pytest.raises(HfHubHTTPError, match="only read") as error:
        reader.upload_file(repo_id="team/secret", path_or_fileobj=b"", path_in_repo="t.txt")
    assert status(error) == 403

    api.update_repo_settings("team/secret", private=False, gated="auto")
    assert nobody(api).model_info("team/secret").gated == "auto"
    for other, expected in ((nobody(api), 401), (stranger, 403)):
        with pytest.raises(GatedRepoError) as error:
            other.hf_hub_download("team/secret", "s.txt", cache_dir=tmp_path / "other")
        with pytest.raises(GatedRepoError) as error:
            other.auth_check("team/secret")
        assert status(error) == expected
    reader.auth_check("team/secret")
    api.update_repo_settings("team/secret", gated=False)
    nobody(api).auth_check("team/secret")
    with pytest.raises(HfHubHTTPError, match="serve-token create"):
        nobody(api).upload_file(repo_id="team/secret", path_or_fileobj=b"", path_in_repo="t.txt")
    with pytest.raises(HfHubHTTPError) as error:
        stranger.create_tag("team/secret", tag="mine")
    assert status(error) == 403

    api.delete_repo("team/secret")
    api.delete_repo("team/secret", missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("team/secret")


def test_what_is_not_there(api: HfApi, tmp_path: Path) -> None:
    api.create_repo("team/there")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("team/there", "no.txt", endpoint=api.endpoint, cache_dir=tmp_path)
    assert list((tmp_path / "models--team--there/.no_exist").rglob("no.txt"))  # cached as absent
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(
            "team/there", "no.txt", revision="v9", endpoint=api.endpoint, cache_dir=tmp_path
        )
    for name in ("team/nowhere", "gpt2"):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(name)
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(name, "config.json", endpoint=api.endpoint, cache_dir=tmp_path)
    assert not api.repo_exists("team/nowhere")
    assert api.file_exists("team/there", ".gitattributes")


def test_lists_are_paged_filtered_and_sorted(api: HfApi) -> None:
    for number in range(7):
        name = f"ann/model-{number}"
        api.create_repo(name)
        card = CARD.replace("small", f"even-{number % 2 == 0}")
        api.upload_file(repo_id=name, path_or_fileobj=card.encode(), path_in_repo="README.md")
    api.create_repo("ann/model-data", repo_type="dataset")
    names = [f"ann/model-{number}" for number in reversed(range(7))]
    assert [model.id for model in api.list_models(author="ann")] == names
    assert [model.id for model in api.list_models(author="ann", limit=3)] == names[:3]
    assert [model.id for model in api.list_models(filter="even-True", search="ANN")] == names[::2]
    assert [
        model.id for model in api.list_models(filter=["ours", "license:mit", "even-False"])
    ] == (names[1::2])
    assert [model.id for model in api.list_models(search="model-3")] == ["ann/model-3"]
    assert [data.id for data in api.list_datasets(author="ann")] == ["ann/model-data"]
    full = next(iter(api.list_models(author="ann", full=True, cardData=True)))
    assert full.card_data.license == "mit"
    assert "README.md" in {file.rfilename for file in full.siblings}


def test_walks_every_page(api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [model.id for model in api.list_models()]
    url = f"{api.endpoint}/api/models"
    headers = {"authorization": f"Bearer {api.token}"}
    pages = list(_pagination._paginate_pages(url, {"limit": 2}, headers))
    assert [row["id"] for page, _ in pages for row in page] == expected
    assert len(pages) > 2 and all(len(page) == 2 for page, _ in pages[:-1])


def test_content_held_by_one_repository_is_not_given_to_another(api: HfApi) -> None:
    secret = b"\0 weights that only team/owner may read" * 100
    sha256 = hashlib.sha256(secret).hexdigest()
    api.create_repo("team/owner", private=True)
    api.upload_file(
        repo_id="team/owner", path_or_fileobj=io.BytesIO(secret), path_in_repo="w.safetensors"
    )
    api.create_repo("ann/thief")
    headers = {"authorization": f"Bearer {api.token}"}
    claim = (
        b'{"key": "header", "value": {"summary": "mine"}}\n'
        b'{"key": "lfsFile", "value": {"path": "w.safetensors", "algo": "sha256", "oid": "%s"}}\n'
    ) % sha256.encode()
    url = f"{api.endpoint}/api/models/ann/thief/commit/main"
    answer = httpx2.post(url, content=claim, headers=headers)
    assert answer.status_code == 400 and "has been uploaded to ann/thief" in answer.text
    objects = {"operation": "upload", "objects": [{"oid": sha256, "size": len(secret)}]}
    batch = f"{api.endpoint}/ann/thief.git/info/lfs/objects/batch"
    answered = httpx2.post(batch, json=objects, headers=headers).json()["objects"][0]
    href = answered["actions"]["upload"]["href"]  # the bytes are asked for, as if new here
    assert httpx2.put(href, content=secret[:-1]).status_code == 400
    assert httpx2.put(href, content=secret + b"x").status_code == 413
    assert httpx2.put(href, content=b"\1" * len(secret)).status_code == 400
    assert (
        httpx2.put(href.replace("ann/thief", "team/owner")[:-3], content=secret).status_code == 403
    )
    assert httpx2.post(url, content=claim, headers=headers).status_code == 400
    assert httpx2.put(href, content=secret).status_code == 200
    assert httpx2.post(url, content=claim, headers=headers).status_code == 200


def test_behind_a_proxy_with_tls_links_are_https(api: HfApi) -> None:
    api.create_repo("team/proxied")
    headers = {
        "authorization": f"Bearer {api.token}",
        "x-forwarded-proto": "https",
        "host": "hub.our",
    }
    objects = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1}]}
    batch = f"{api.endpoint}/team/proxied.git/info/lfs/objects/batch"
    (answered,) = httpx2.post(batch, json=objects, headers=headers).json()["objects"]
    assert answered["actions"]["upload"]["href"].startswith("https://hub.our/team/proxied.git/")
