"""`publish` with the real client against the real server in a process of its own."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download

from secondary_learners.content import content
from secondary_learners.errors import AuditError, OfflineError, PublishError
from secondary_learners.files import sha256_file
from secondary_learners.publishing.client import Client
from secondary_learners.publishing.plan import ChangeKind
from secondary_learners.publishing.publish import Publication, PublishOptions, publish
from secondary_learners.registry.index import entry_toml, find, read_index
from secondary_learners.registry.load import load_learner
from server_helpers import running, token

ADDED, CHANGED, KEPT, MERGED, UNCHANGED = (
    *(ChangeKind.ADDED, ChangeKind.CHANGED, ChangeKind.KEPT, ChangeKind.MERGED),
    ChangeKind.UNCHANGED,
)


@dataclass(frozen=True)
class Hub:
    """A running server, a writer of the organisation "team", and a repository of this test."""

    root: Path
    url: str
    writer: str
    repository: str

    @property
    def api(self) -> HfApi:
        return HfApi(self.url, self.writer)

    def publish(self, folder: Path, **options: Any) -> Publication:
        given = {"endpoint": self.url, "token": self.writer} | options
        names = {"private", "tag", "card", "message"} & given.keys()
        how = PublishOptions(**{name: given.pop(name) for name in names})
        return publish(folder, self.repository, how, **given)

    def read(self, name: str, revision: str | None = None) -> bytes:
        folder = self.root / "downloads" / self.repository
        path = hf_hub_download(
            self.repository,
            name,
            revision=revision,
            endpoint=self.url,
            token=self.writer,
            cache_dir=folder,
        )
        return Path(path).read_bytes()

    def write(self, name: str, data: bytes | str) -> str:
        """As somebody would in a browser."""
        data = data.encode() if isinstance(data, str) else data
        operations = [CommitOperationAdd(name, data)]
        commit = self.api.create_commit(self.repository, operations, commit_message="an edit")
        return commit.oid

    def card(self) -> str:
        return self.read("README.md").decode()

    def edit_card(self, old: str, new: str) -> None:
        text = self.card()
        assert old in text
        self.write("README.md", text.replace(old, new))

    def everything(self) -> tuple[str, list[str]]:
        """All the server keeps: its database as SQL, and the files it stores."""
        with sqlite3.connect(f"file:{self.root / 'hub.sqlite3'}?mode=ro", uri=True) as database:
            rows = "\n".join(database.iterdump())
        files = [str(path) for path in sorted((self.root / "objects").rglob("*"))]
        return rows, files


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    root = tmp_path_factory.mktemp("hub")
    writer = token(root, "maker", "write", ("team",))
    with running(root) as server:
        yield root, server.url, writer


@pytest.fixture
def hub(server: tuple[Path, str, str], request: pytest.FixtureRequest) -> Hub:
    name = request.node.name.removeprefix("test_").replace("[", "-").rstrip("]")
    return Hub(*server, f"team/{name[:80]}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(content("learners") / "books-mini", tmp_path / "books")


def kinds(publication: Publication) -> dict[str, ChangeKind]:
    return {change.path: change.kind for change in publication.changes}


def edit(folder: Path, old: str, new: str, name: str = "README.md") -> None:
    path = folder / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("private", [None, False, True])
def test_the_first_time(hub: Hub, folder: Path, private: bool | None) -> None:
    made = hub.publish(folder, private=private, tag="v1.0")
    assert made.parent is None and set(kinds(made).values()) == {ADDED}
    info = hub.api.model_info(hub.repository, revision="v1.0")
    assert (info.sha, info.private) == (made.commit, bool(private))
    commits = hub.api.list_repo_commits(hub.repository)
    assert commits[0].title == "Publish books-mini v1.0"
    assert len(commits) == 2  # the one that makes a repository, and everything in one more
    for name in ("model.safetensors", "config.json", "comparison.png", "recipe.toml"):
        assert hub.read(name, made.commit) == (folder / name).read_bytes()


def test_the_card_says_how_to_load_from_where_it_is(hub: Hub, folder: Path) -> None:
    edit(folder, 'load_learner("books-mini")', 'load_learner("./books")')
    hub.publish(folder)
    assert f'load_learner("{hub.repository}")' in hub.card()


def test_a_base_model(hub: Hub, tmp_path: Path) -> None:
    made = hub.publish(content("learners") / "mini")
    assert made.entry is not None and made.entry.kind == "base-model"
    assert f'load_base("{hub.repository}")' in hub.card()
    assert set(made.entry.files) == set(find("mini").files)


def test_the_entry_loads_by_name_and_verifies(hub: Hub, folder: Path, tmp_path: Path) -> None:
    (folder / "work").mkdir()
    made = hub.publish(folder, tag="v1.0")
    assert made.entry is not None and made.commit is not None
    registry = tmp_path / "registry"
    registry.mkdir()
    (registry / "books-mini.toml").write_text(entry_toml(made.entry))
    entry = read_index(registry)["books-mini"]
    assert entry == made.entry
    assert (entry.location, entry.endpoint) == (hub.repository, hub.url)
    assert entry.revision == made.commit
    folder_of_all = tmp_path / "all"
    for name in entry.files:
        data = hub.read(name, entry.revision)
        (folder_of_all / name).parent.mkdir(exist_ok=True)
        (folder_of_all / name).write_bytes(data)
    found = {path.name: sha256_file(path) for path in folder_of_all.iterdir()}
    assert found == entry.files
    assert sum(path.stat().st_size for path in folder_of_all.iterdir()) == entry.size
    assert load_learner(folder_of_all).config.name == "books-mini"
    assert made.left_out == ("work/",)


def test_a_dry_run_says_all_and_touches_nothing(hub: Hub, folder: Path) -> None:
    before = hub.everything()
    new = hub.publish(folder, tag="v1", private=True, dry_run=True)
    assert hub.everything() == before
    assert (new.commit, new.entry, new.private) == (None, None, True)
    made = hub.publish(folder, tag="v1", private=True)
    assert made.changes == new.changes
    edit(folder, "## Use\n", "## Usage\n")
    before = hub.everything()
    second = hub.publish(folder, tag="v2", dry_run=True)
    assert hub.everything() == before
    assert second.commit is None and second.parent == made.commit
    assert kinds(second)["README.md"] is CHANGED
    assert hub.publish(folder, tag="v2").changes == second.changes


def test_nothing_new_makes_no_commit(hub: Hub, folder: Path) -> None:
    first = hub.publish(folder, tag="v1")
    again = hub.publish(folder, tag="v1")
    assert (again.commit, again.changed, again.entry) == (first.commit, False, first.entry)
    assert set(kinds(again).values()) == {UNCHANGED, KEPT}  # KEPT: .gitattributes
    assert hub.api.model_info(hub.repository).sha == first.commit
    tagged = hub.publish(folder, tag="v1.0.1")
    assert tagged.commit == first.commit
    assert hub.api.model_info(hub.repository, revision="v1.0.1").sha == first.commit


def test_a_changed_file_is_sent_alone(hub: Hub, folder: Path) -> None:
    first = hub.publish(folder, tag="v1")
    with (folder / "recipe.toml").open("a") as file:
        file.write("# a comment\n")
    second = hub.publish(folder, tag="v2", message="A comment")
    assert second.parent == first.commit
    assert [path for path, kind in kinds(second).items() if kind is CHANGED] == ["recipe.toml"]
    assert hub.api.list_repo_commits(hub.repository)[0].title == "A comment"
    assert b"a comment" in hub.read("recipe.toml", "v2")
    assert b"a comment" not in hub.read("recipe.toml", "v1")


def test_what_is_only_on_the_hub_stays(hub: Hub, folder: Path) -> None:
    hub.publish(folder)
    hub.write("notes/extra.txt", "mine")
    edit(folder, "## Use\n", "## Usage\n")
    assert kinds(hub.publish(folder))["notes/extra.txt"] is KEPT
    assert hub.read("notes/extra.txt") == b"mine"


# The card


@pytest.mark.parametrize(
    "tag", ["main", "master", "HEAD", "a" * 40, "0123abc", pytest.param("refs/heads/x", id="refs")]
)
def test_a_tag_that_means_something_else_is_refused_before_anything_is_sent(
    hub: Hub, folder: Path, tag: str
) -> None:
    with pytest.raises(PublishError, match="would be taken for a branch or a commit"):
        hub.publish(folder, tag=tag)
    assert not hub.api.repo_exists(hub.repository)


def test_an_edit_on_the_hub_alone_is_kept(hub: Hub, folder: Path) -> None:
    hub.publish(folder)
    hub.edit_card("## License", "## Contact\n\nthe team\n\n## License")
    again = hub.publish(folder)
    assert kinds(again)["README.md"] is KEPT and not again.changed
    assert "the team" in hub.card()


def test_edits_on_both_sides_survive_every_publication(hub: Hub, folder: Path) -> None:
    hub.publish(folder, tag="v1")
    hub.edit_card("## License", "## Contact\n\nthe team\n\n## License")
    edit(folder, "## Use\n", "## How to use\n")
    second = hub.publish(folder, tag="v2")
    assert kinds(second)["README.md"] is MERGED
    assert "the team" in hub.card() and "## How to use" in hub.card()
    assert second.entry is not None
    digests = {change.path: change.sha256 for change in second.changes}
    assert second.entry.files["README.md"] == digests["README.md"]
    # The folder still has not seen the edit, and changes where it changed before.
    edit(folder, "## How to use\n", "## Usage\n")
    third = hub.publish(folder, tag="v3")
    assert kinds(third)["README.md"] is MERGED
    assert "the team" in hub.card() and "## Usage" in hub.card()
    assert not hub.publish(folder).changed


def test_edits_in_one_place_are_refused_with_the_way_out(hub: Hub, folder: Path) -> None:
    first = hub.publish(folder)
    hub.edit_card("It knows nothing of truth", "On the hub: it knows nothing of truth")
    edit(folder, "It knows nothing of truth", "In the folder: it knows nothing of truth")
    before = hub.everything()
    with pytest.raises(PublishError) as refused:
        hub.publish(folder)
    assert hub.everything() == before
    words = str(refused.value)
    assert "On the hub" in words and "In the folder" in words
    assert "--card ours" in words and "--card hub" in words
    kept = hub.publish(folder, card="hub")
    assert kinds(kept)["README.md"] is KEPT and "On the hub" in hub.card()
    # That was a decision: it holds, and later edits merge again.
    edit(folder, "## Use\n", "## Usage\n")
    assert kinds(hub.publish(folder))["README.md"] is MERGED
    assert "On the hub" in hub.card() and "## Usage" in hub.card()
    ours = hub.publish(folder, card="ours")
    assert kinds(ours)["README.md"] is CHANGED and "On the hub" not in hub.card()
    assert first.commit is not None
    assert b"On the hub" not in hub.read("README.md", first.commit)


def test_a_card_that_was_never_ours_is_not_overwritten(hub: Hub, folder: Path) -> None:
    hub.api.create_repo(hub.repository)
    hub.write("README.md", "---\nlicense: mit\n---\n# by hand\n")
    with pytest.raises(PublishError, match="--card ours"):
        hub.publish(folder)
    assert "by hand" in hub.card()
    hub.publish(folder, card="ours")
    assert "by hand" not in hub.card()


def test_an_edit_may_not_change_a_figure(hub: Hub, folder: Path) -> None:
    hub.publish(folder)
    hub.edit_card("| linear | 0.804", "| linear | 0.999")
    with pytest.raises(AuditError, match=r"0\.804"):
        hub.publish(folder)


# Refusals


def test_a_stale_parent(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish(folder)
    edit(folder, "## Use\n", "## Usage\n")
    read = Client.commit

    def late(self: Client, *arguments: Any) -> str:
        """Somebody commits after the head was looked at, and before this is sent."""
        hub.write("note.txt", "first")
        return read(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Client, "commit", late)
        with pytest.raises(PublishError, match=r"meanwhile.*Run the same command again"):
            hub.publish(folder, tag="v2")
    assert "## Usage" not in hub.card() and hub.read("note.txt") == b"first"
    assert "v2" not in [tag.name for tag in hub.api.list_repo_refs(hub.repository).tags]
    assert hub.publish(folder, tag="v2").changed


def test_a_tag_that_is_elsewhere(hub: Hub, folder: Path) -> None:
    first = hub.publish(folder, tag="v1")
    edit(folder, "## Use\n", "## Usage\n")
    before = hub.everything()
    for dry_run in (True, False):
        with pytest.raises(PublishError, match=f"tag 'v1' already, on the commit {first.commit}"):
            hub.publish(folder, tag="v1", dry_run=dry_run)
    assert hub.everything() == before
    hub.publish(folder, tag="v2")
    with pytest.raises(PublishError, match="tags do not move"):  # though nothing else is new
        hub.publish(folder, tag="v1")


def test_other_visibility(hub: Hub, folder: Path) -> None:
    hub.publish(folder, private=True)
    with pytest.raises(PublishError, match="is private already"):
        hub.publish(folder, private=False)
    assert hub.publish(folder).private is True


def test_a_repository_of_something_else(hub: Hub, folder: Path) -> None:
    hub.publish(content("learners") / "python-docs-mini")
    with pytest.raises(PublishError, match="holds python-docs-mini, and this is books-mini"):
        hub.publish(folder, card="ours")


def test_a_repository_with_a_pickle(hub: Hub, folder: Path) -> None:
    hub.publish(folder)
    hub.write("old/model.pkl", b"\x80\x04.")
    edit(folder, "## Use\n", "## Usage\n")
    with pytest.raises(PublishError, match=r"holds old/model\.pkl"):
        hub.publish(folder)


def test_a_file_that_the_hub_ignores(hub: Hub, folder: Path) -> None:
    """Not all servers honour .gitignore; whichever way, no wrong entry comes out."""
    hub.api.create_repo(hub.repository)
    hub.write(".gitignore", "*.toml\n")
    try:
        made = hub.publish(folder)
    except PublishError as error:
        assert "recipe.toml" in str(error)
    else:
        assert hub.read("recipe.toml", made.commit) == (folder / "recipe.toml").read_bytes()


def test_the_audit_comes_first(folder: Path) -> None:
    (folder / "model.pkl").touch()
    (folder / "evaluation.json").unlink()
    edit(folder, "license: apache-2.0\n", "")
    with pytest.raises(AuditError) as refused:  # and nobody is listening there
        publish(folder, "team/x", endpoint="http://127.0.0.1:9", token="x")
    words = str(refused.value)
    assert "model.pkl" in words and "evaluation.json" in words and "license" in words
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    "name", ["books", "My Ships", "team/my ships", "a/b/c", "team/", "team/x.git", "team/a--b", ""]
)
def test_names_that_no_hub_takes(folder: Path, name: str) -> None:
    with pytest.raises(PublishError, match="OWNER/NAME"):
        publish(folder, name)


@pytest.mark.parametrize("tag", ["v 1", "a..b", "-v", "x/", "é:"])
def test_tags_that_git_refuses(folder: Path, tag: str) -> None:
    with pytest.raises(PublishError, match="is not the name of a tag"):
        publish(folder, "team/x", PublishOptions(tag=tag))


def test_tokens_that_may_not_write(hub: Hub, folder: Path) -> None:
    reader = token(hub.root, "reader", "read", ("team",))
    stranger = token(hub.root, "stranger", "write")
    before = hub.everything()
    for given, words in (
        (reader, "may only read"),
        (stranger, "may not write to 'team'.*publish FOLDER stranger/"),
        ("sl_nonsense", "does not accept the token"),
    ):
        for dry_run in (True, False):
            with pytest.raises(PublishError, match=words):
                hub.publish(folder, token=given, dry_run=dry_run)
    assert hub.everything() == before


def test_no_token(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.writer)  # of the public Hub, for all we know
    with pytest.raises(PublishError, match="--token-env"):
        hub.publish(folder, token=None)


def test_a_server_that_dies_meanwhile(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, commit, how = tmp_path / "hub", Client.commit, PublishOptions(tag="v1")
    writer = token(root, "maker", "write")
    with running(root) as server, monkeypatch.context() as patched:

        def late(self: Client, *arguments: Any) -> str:
            server.kill()
            return commit(self, *arguments)

        patched.setattr(Client, "commit", late)
        with pytest.raises(OfflineError, match="run the same command again"):
            publish(folder, "maker/books", how, endpoint=server.url, token=writer)
    with running(root) as server:
        made = publish(folder, "maker/books", how, endpoint=server.url, token=writer)
        tags = HfApi(server.url, writer).list_repo_refs("maker/books").tags
        assert [(tag.name, tag.target_commit) for tag in tags] == [("v1", made.commit)]


def test_a_file_that_is_too_large_for_the_server(tmp_path: Path) -> None:
    root = tmp_path / "hub"
    writer = token(root, "maker", "write")
    with (
        running(root, "--max-file-gb", "0.001") as server,
        pytest.raises(PublishError, match=r"413.*1,000,000 bytes"),
    ):
        publish(content("learners") / "mini", "maker/mini", endpoint=server.url, token=writer)


def test_nobody_answers(folder: Path) -> None:
    with pytest.raises(OfflineError, match=r"cannot be reached.*run the same command again"):
        publish(folder, "team/x", endpoint="http://127.0.0.1:9", token="x")


def test_a_repository_made_for_a_commit_that_fails_is_named(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "hub"
    writer = token(root, "maker", "write")
    with running(root, "--max-files", "1") as server:
        with pytest.raises(PublishError, match="at most 1 files") as first:
            publish(folder, "maker/books", endpoint=server.url, token=writer)
        assert "stays, empty and public" in str(first.value)
        assert f"HF_ENDPOINT={server.url} hf repos delete maker/books" in str(first.value)
        with pytest.raises(PublishError) as second:  # now it is not this command's any more
            publish(folder, "maker/books", endpoint=server.url, token=writer)
        assert "was made for this" not in str(second.value)
        private = PublishOptions(private=True)
        with pytest.raises(PublishError, match="stays, empty and private"):
            publish(folder, "maker/secret", private, endpoint=server.url, token=writer)
