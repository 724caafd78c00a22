"""An entry says what the artifact's own folder says, and nothing else makes one."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from secondary_learners.content import content
from secondary_learners.errors import ArtifactError
from secondary_learners.registry.entries import artifact_entry
from secondary_learners.registry.index import read_index


@pytest.mark.parametrize("name", sorted(read_index()))
def test_the_entry_of_what_ships_comes_out_of_its_folder(name: str) -> None:
    shipped = read_index()[name]
    assert artifact_entry(content("learners") / name, added=shipped.added) == shipped


def test_where_it_is_and_other_bytes_may_be_given() -> None:
    shipped = read_index()["books-mini"]
    made = artifact_entry(
        content("learners") / "books-mini",
        location="team/books",
        revision="0" * 40,
        endpoint="https://hub.example.org",
        added=shipped.added,
        files={"config.json": ("1" * 64, 7), "README.md": ("2" * 64, 5)},
    )
    assert made == dataclasses.replace(
        shipped,
        location="team/books",
        revision="0" * 40,
        endpoint="https://hub.example.org",
        size=12,
        files={"README.md": "2" * 64, "config.json": "1" * 64},
    )


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("recipe.toml", "summary = ", "sum = ", "lacks 'summary'"),
        ("recipe.toml", "name = ", "name = [", "is not TOML"),
        ("config.json", '"tokenizer": {', '"tokeniser": {', "tokenizer"),
        ("config.json", "{", "", "not JSON"),
    ],
)
def test_what_is_missing_is_named(
    name: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(content("learners") / "books-mini", tmp_path / "books")
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace(old, new, 1))
    with pytest.raises(ArtifactError, match=message):
        artifact_entry(folder)
