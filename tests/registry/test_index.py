"""The index: entries to TOML and back, names and aliases, and entries that are wrong."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners import registry
from secondary_learners.errors import ArtifactError, UnknownNameError
from secondary_learners.registry.index import Entry, entry_toml, find, list_learners, read_index

ENTRY = Entry(
    name="books-mini",
    kind="learner",
    summary='Picks "books" out of a mix',
    base="mini",
    tokenizer="mini",
    corpus="books",
    objective="100 contexts of books",
    architecture="linear",
    optimizer="AdamW",
    license="MIT",
    location="bundled",
    aliases={"books-tiny": "tiny is another size now"},
    added=date(2026, 11, 21),
    size=1234,
    files={"config.json": "0" * 64, "model.safetensors": "a" * 64},
)
BASE = dataclasses.replace(
    ENTRY, name="mini", kind="base-model", base="", objective="", aliases={"tiny": "sizes"}
)
HUB = dataclasses.replace(
    ENTRY, name="code-gpt2", base="gpt2", corpus="code", location="org/x", revision="b" * 40,
    aliases={}, architecture="conv", endpoint="https://hub.example.org:8080/team",
    deprecated='made of "old" text; use books-mini', added=date(2026, 12, 1), size=12,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for entry in (ENTRY, BASE, HUB):
        (tmp_path / f"{entry.name}.toml").write_text(entry_toml(entry), encoding="utf-8")
    return tmp_path


def test_entries_come_back_sorted_and_equal(folder: Path) -> None:
    index = read_index(folder)
    assert list(index) == ["books-mini", "code-gpt2", "mini"]
    assert list(index.values()) == [ENTRY, HUB, BASE]


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_text_survives_toml(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("index")
    entry = dataclasses.replace(ENTRY, summary=text)
    (folder / "books-mini.toml").write_text(entry_toml(entry), encoding="utf-8")
    assert read_index(folder) == {"books-mini": entry}


@pytest.mark.parametrize("code", ["\x1b[2J", "\x07", "\n", "\x9b31m", "\x7f"])
def test_what_could_steer_a_terminal_is_refused(code: str) -> None:
    for field in ("summary", "corpus", "deprecated"):
        with pytest.raises(ArtifactError, match=f"'{field}' must be one line without control"):
            dataclasses.replace(ENTRY, **{field: f"text{code}text"})


def test_names_and_aliases_are_found(folder: Path) -> None:
    assert find("books-mini", folder=folder) == ENTRY
    assert find("mini", kind="base-model", folder=folder) == BASE
    with pytest.warns(FutureWarning, match="'books-tiny' is now called 'books-mini': tiny is"):
        assert find("books-tiny", kind="learner", folder=folder) == ENTRY
    with pytest.warns(FutureWarning, match="'code-gpt2' should no longer be used: made of"):
        assert find("code-gpt2", folder=folder) == HUB


def test_one_name_is_found_without_reading_the_others(folder: Path) -> None:
    (folder / "broken.toml").write_text("not TOML")
    assert find("books-mini", folder=folder) == ENTRY


def test_an_unknown_name_suggests_near_ones(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"learner named 'boks-mini'.*books-mini.*list"):
        find("boks-mini", folder=folder)
    with pytest.raises(UnknownNameError, match="no base model named 'books-mini'"):
        find("books-mini", kind="base-model", folder=folder)


def test_learners_are_listed_by_what_they_are_for(folder: Path) -> None:
    assert list_learners(folder=folder) == [ENTRY, HUB]
    assert list_learners(base="gpt2", folder=folder) == [HUB]
    assert list_learners(corpus="books", architecture="linear", folder=folder) == [ENTRY]
    assert list_learners(base="gpt2", architecture="linear", folder=folder) == []
    assert list_learners(sort="size", folder=folder) == [HUB, ENTRY]  # small ones first
    assert list_learners(sort="added", folder=folder) == [HUB, ENTRY]  # new ones first
    assert list_learners(sort="name", folder=folder) == [ENTRY, HUB]


WRONG: dict[str, Any] = {
    "name": ["Books Mini", "", 7, "../x"],
    "kind": ["model"],
    "summary": ["", 3],
    "base": [""],
    "license": [""],
    "location": ["", "somewhere", "a/b/c", "a--b/c"],
    "endpoint": ["https://hub.example.org", 3],
    "deprecated": [True],
    "revision": ["b" * 40],
    "aliases": ["a", ("a",), {"A b": "why"}, {"a": ""}, {"a": 1}, {1: "why"}],
    "added": ["2026-01-01"],
    "size": [-1, True, 1.5],
    "files": [
        {},
        [],
        {"../x": "0" * 64},
        {"a/b": "0" * 64},
        {"x": "0"},
        {"x": 3},
        {".x": "0" * 64},
    ],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, vs in WRONG.items() for v in vs])
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(
        ArtifactError, match=f"'{field}'" if field != "location" else "revision|loc"
    ):
        dataclasses.replace(ENTRY, **{field: value})


@pytest.mark.parametrize("revision", [None, "main", "b" * 39])
def test_what_is_on_a_hub_is_pinned_to_a_full_commit(revision: str | None) -> None:
    with pytest.raises(ArtifactError, match=r"'revision'.*40"):
        dataclasses.replace(HUB, revision=revision)


@pytest.mark.parametrize(
    "endpoint",
    ["hub.example.org", "ftp://a", "https://a/", "https://u:p@a", "https://a?b", "https://"],
)
def test_a_hub_has_a_plain_address(endpoint: str) -> None:
    with pytest.raises(ArtifactError, match="'endpoint'"):
        dataclasses.replace(HUB, endpoint=endpoint)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = ", "not TOML"),
        (entry_toml(ENTRY).replace("size = 1234\n", ""), "the field 'size' is missing"),
        ("extra = 1\n" + entry_toml(ENTRY), "unknown field 'extra'"),
        (
            entry_toml(ENTRY).replace("2026-11-21", "2026-11-21T00:00:00"),
            "added is .*be a date",
        ),
        (entry_toml(BASE), "holds the entry 'mini'"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "books-mini.toml").write_text(text)
    with pytest.raises(ArtifactError, match=reason) as caught:
        read_index(tmp_path)
    assert "books-mini.toml" in str(caught.value)


@pytest.mark.parametrize("alias", ["mini", "tiny"])
def test_a_name_means_one_thing(folder: Path, alias: str) -> None:
    entry = dataclasses.replace(HUB, aliases={alias: "why not"})
    (folder / "code-gpt2.toml").write_text(entry_toml(entry))
    with pytest.raises(ArtifactError, match=f"alias '{alias}' is already"):
        read_index(folder)


def test_the_index_does_not_load_torch() -> None:
    code = (
        "import sys, secondary_learners.registry.index, secondary_learners.registry.load\n"
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment()
    )
    assert found.stdout.strip() == "[]"


def _environment() -> dict[str, str]:
    source = Path(registry.__file__).parents[2]
    return os.environ | {"PYTHONPATH": str(source)}
