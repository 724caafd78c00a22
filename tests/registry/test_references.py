"""What a reference means, and what can mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.registry.references import (
    FolderReference,
    NameReference,
    RepositoryReference,
    is_commit,
    is_repository,
    parse_reference,
)

COMMIT = "0123456789" * 4


@pytest.mark.parametrize(
    ("ref", "meaning"),
    [
        ("books-mini", NameReference(None, "books-mini")),
        ("books-mini@v1.0", NameReference(None, "books-mini", "v1.0")),
        ("team:books", NameReference("team", "books")),
        ("team:books@main", NameReference("team", "books", "main")),
        ("owner/name", RepositoryReference("owner/name")),
        ("owner/name@v1.0", RepositoryReference("owner/name", "v1.0")),
        ("owner/name@feat/x", RepositoryReference("owner/name", "feat/x")),
        (f"owner/name@{COMMIT}", RepositoryReference("owner/name", COMMIT)),
        ("runs/mine", FolderReference(Path("runs/mine"))),
        ("./mine", FolderReference(Path("mine"))),
        ("../mine", FolderReference(Path("../mine"))),
        (".", FolderReference(Path("."))),
        ("/a/b", FolderReference(Path("/a/b"))),
        ("~/mine", FolderReference(Path.home() / "mine")),
        (Path("books-mini"), FolderReference(Path("books-mini"))),
    ],
)
def test_what_each_form_means(ref: str | Path, meaning: object) -> None:
    assert parse_reference(ref, is_folder=lambda text: text == "runs/mine") == meaning


@pytest.mark.parametrize(
    "ref",
    ["", "@v1", "name@", "a/b@", "a/b/c", "/".join("ab") + "--c", "a/.b", "a/b.git", "-a/b", "a//b",
     "Team X:name", "a:b:c", ":name", "team:", "a/b@..", "a/b@x y", "a/b@-x", "a/b@x..y", "a/b@/x",
     "a/b@x/", "a/b@x~1", "a/b@x\n", "team:a/b", "a/" + "b" * 96, "a/b@" + "x" * 300],
)  # fmt: skip
def test_what_can_mean_nothing_is_refused_with_a_way_out(ref: str) -> None:
    with pytest.raises(SecondaryLearnersError, match=r"`learners list`|such as owner/name@v1\.0"):
        parse_reference(ref)


@given(st.text(max_size=60) | st.from_regex(r"[a-z./:@~-]{0,40}", fullmatch=True))
@example("\0/")
@example("a/b@\ud800")
def test_any_text_means_something_or_is_refused(text: str) -> None:
    try:
        meaning = parse_reference(text, is_folder=lambda _: False)
    except SecondaryLearnersError:
        return
    if isinstance(meaning, FolderReference):
        assert text.startswith((".", "/", "~"))
        return
    assert str(meaning) == text
    assert meaning == parse_reference(str(meaning), is_folder=lambda _: False)
    revision = meaning.revision
    assert revision is None or (".." not in revision and not revision.startswith(("/", "-")))
    if isinstance(meaning, RepositoryReference):
        owner, name = meaning.repository.split("/")
        assert is_repository(meaning.repository)
        assert ".." not in (owner, name) and not {owner, name} & {"", "."}


@given(st.text(alphabet="0123456789abcdefg", min_size=38, max_size=42))
def test_a_commit_has_forty_hexadecimal_digits(text: str) -> None:
    assert is_commit(text) == (len(text) == 40 and "g" not in text)
