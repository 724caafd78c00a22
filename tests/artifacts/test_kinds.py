"""One table of kinds: what a folder is by its config.json, and a kind more by a row more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cli_helpers import learners
from secondary_learners.artifacts import kinds
from secondary_learners.artifacts.kinds import (
    artifact_kind,
    artifact_kinds,
    kind_of,
    kind_of_config,
)
from secondary_learners.artifacts.layout import FILES
from secondary_learners.content import content
from secondary_learners.errors import ArtifactError, UnknownNameError
from secondary_learners.publishing.audit import ArtifactFault, audit
from secondary_learners.registry.entries import artifact_entry
from secondary_learners.registry.index import entry_toml, find, read_index
from secondary_learners.registry.load import locate
from secondary_learners.registry.lock import read_lock
from secondary_learners.registry.locking import lock_references


@pytest.mark.parametrize("name", sorted(read_index()))
def test_a_folder_is_what_its_config_says(name: str) -> None:
    assert kind_of(content("learners") / name).kind == read_index()[name].kind


@pytest.mark.parametrize("config", [b"", b"[[[", b"\xff", b"[" * 100_000])
def test_a_config_that_does_not_parse_is_named(config: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"team/x is not an artifact: its config\.json"):
        kind_of_config(config, "team/x")


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        kind_of(tmp_path)


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="did you mean learner"):
        artifact_kind("lerner")


def test_every_kind_says_how_it_is_loaded() -> None:
    import secondary_learners

    assert all(kind.loader in secondary_learners.__all__ for kind in artifact_kinds())
    assert len({kind.place for kind in artifact_kinds()}) == len(artifact_kinds())


class Toy:
    """A list of words, kept as JSON beside the usual files."""

    kind, name, files, whole, loader = "words", "list of words", FILES, True, "load_words"
    absent, place = ("base", "objective"), 9

    def owns(self, config: Any) -> bool:
        return config.get("format") == "words"

    def read(self, folder: Path, digests: Any = None, *, remedy: Any = None) -> list[str]:
        words = json.loads((folder / "config.json").read_bytes()).get("words")
        if not words:
            raise ArtifactError("there are no words.")
        return list(words)

    def check(self, config: Any) -> str:
        return str(config["name"])

    def card(self, config: Any) -> str:
        return "base-model"

    def needs(self, config: Any) -> tuple[str, ...]:
        return ("mini",)

    def entry(self, config: Any, recipe: Any) -> dict[str, str]:
        made = {"tokenizer": "mini", "corpus": "none", "architecture": "list"}
        return {**made, "optimizer": "none"}


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with a list of words in it, and `mini`, which it needs."""
    module = ModuleType("toy_kind")
    module.KIND = Toy()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_kind", module)
    monkeypatch.setattr(kinds, "_ROWS", {"words": "toy_kind", **kinds._ROWS})
    for folder in ("registry", "learners"):
        (tmp_path / folder).mkdir()
    folder = tmp_path / "learners" / "greetings"
    folder.mkdir()
    config = {"format": "words", "name": "greetings", "words": ["hello"]}
    (folder / "config.json").write_text(json.dumps(config))
    recipe = 'name = "greetings"\nsummary = "What people say."\nlicense = "mit"\n'
    (folder / "recipe.toml").write_text(recipe)
    for name in set(FILES) - {"config.json", "recipe.toml"}:
        (folder / name).write_text("{}")
    entry = artifact_entry(folder)
    (tmp_path / "registry" / "greetings.toml").write_text(entry_toml(entry))
    mini = content("learners") / "mini"
    (tmp_path / "learners" / "mini").symlink_to(mini)
    (tmp_path / "registry" / "mini.toml").write_text(entry_toml(read_index()["mini"]))
    for module_name in ("index", "registries"):
        monkeypatch.setattr(
            f"secondary_learners.registry.{module_name}.content", lambda name: tmp_path / name
        )
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_kind_more_is_a_row_more(words: Path) -> None:
    assert kind_of(words).kind == find("greetings").kind == "words"
    located = locate("greetings")
    assert artifact_kind(located.kind or "").read(located.folder) == ["hello"]
    lock_references(["greetings"])
    assert {key: pin.kind for key, pin in read_lock().items()} == {
        "greetings": "words",
        "mini": "base-model",
    }
    assert "words" in learners("list").out
    assert learners("show", "greetings", "--json").json["kind"] == "words"
    assert learners("verify", "greetings").code == 0
    (words / "config.json").write_text('{"format": "words", "name": "greetings"}')
    assert learners("verify", "greetings").code == 1
    faults = {problem.kind: problem.message for problem in audit(words)}
    assert faults[ArtifactFault.CONTENT] == "there are no words."
