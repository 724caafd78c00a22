"""`learners registry`, and what `learners list` and `show` say about its names."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest

from cli_helpers import learners
from registry_helpers import entry, save
from secondary_learners.registry.index import entry_toml


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SECONDARY_LEARNERS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A folder with registry/ and learners/."""
    digests = save(tmp_path / "share" / "learners" / "small", "small")
    made = dataclasses.replace(
        entry("small", "learner", digests),
        aliases={"little": "clearer"},
        deprecated="use books-mini",
        size=7,
    )
    (tmp_path / "share" / "registry").mkdir()
    (tmp_path / "share" / "registry" / "small.toml").write_text(entry_toml(made))
    return tmp_path / "share"


def test_a_registry_is_added_listed_updated_and_removed(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "none was added" in learners("registry", "list").err
    added = learners("registry", "add", "team", share)
    assert added.code == 0, added.err
    assert "1 names, such as team:small" in added.out
    (row,) = learners("registry", "list", "--json").json
    assert (row["alias"], row["source"], row["commit"]) == ("team", str(share), "")
    assert learners("registry", "list").out.splitlines()[1].split() == ["team", str(share), "1"]
    toml = share / "registry" / "small.toml"
    toml.write_text(toml.read_text().replace("size = 7", "size = 8"))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    asked = learners("registry", "update")
    assert asked.code == 130  # nobody is there to say yes
    assert "team:small  changed: size" in asked.err
    updated = learners("registry", "update", "team", "--yes")
    assert (updated.code, updated.out) == (0, "team: up to date\n")
    assert learners("registry", "update", "--json").json == [
        {"alias": "team", "state": "up to date"}
    ]
    assert learners("registry", "remove", "team").out == "team: removed\n"
    assert learners("registry", "list", "--json").json == []
    gone = learners("registry", "remove", "team")
    assert gone.code == 1
    assert "no registry named 'team'" in gone.err


def test_an_update_names_both_commits_and_both_places(share: Path) -> None:
    toml = share / "registry" / "small.toml"
    here = toml.read_text()

    def there(location: str, commit: str) -> str:
        new = f'location = "{location}"\nrevision = "{commit * 40}"'
        return here.replace('location = "bundled"', new)

    toml.write_text(there("org/x", "a"))
    learners("registry", "add", "team", share)
    toml.write_text(there("org/x", "b"))
    result = learners("registry", "update", "--yes")
    assert f"team:small  commit {'a' * 40} -> {'b' * 40}" in result.err
    toml.write_text(there("org/y", "c"))
    result = learners("registry", "update", "--yes")
    assert "team:small  moved: org/x -> org/y, commit bbb" in result.err
    toml.rename(toml.with_name("other.toml"))
    other = toml.with_name("other.toml")
    other.write_text(other.read_text().replace('"small"', '"other"'))
    result = learners("registry", "update", "--yes")
    assert f"team:other  new: org/y@{'c' * 40}" in result.err
    assert f"team:small  gone: org/y@{'c' * 40}" in result.err


def test_its_names_are_listed_and_shown_with_what_is_said_about_them(share: Path) -> None:
    learners("registry", "add", "team", share)
    result = learners("list")
    assert "\nteam:small " in result.out
    assert "team:small should no longer be used: use books-mini" in result.out
    assert "team:little is now called team:small: clearer" in result.out
    listed = {found["name"]: found for found in learners("list", "--json").json}
    assert listed["team:small"]["aliases"] == {"little": "clearer"}
    with pytest.warns(FutureWarning, match="use books-mini"):
        shown = learners("show", "team:small", "--json").json
    assert shown["name"] == "team:small"
    assert shown["folder"] == str(share / "learners" / "small")
    with pytest.warns(FutureWarning):
        text = learners("show", "team:small").out
    assert f"sha256 {shown['files']['config.json']}  config.json" in text


def test_list_is_sorted(share: Path) -> None:
    learners("registry", "add", "team", share)
    for key in ("name", "size", "added"):
        found = [row for row in learners("list", "--sort", key, "--json").json]
        made = [row for row in found if row["kind"] == "learner"]
        assert found[: len(made)] == made  # base models are at the end
        values = [row[key].rpartition(":")[2] if key == "name" else row[key] for row in made]
        assert values == sorted(values, reverse=key == "added")
    assert learners("list", "--sort", "color").code == 2


def test_show_says_where_what_ships_is() -> None:
    lines = learners("show", "books-mini").out.splitlines()
    assert any(line.split() == ["location", "bundled"] for line in lines)
    assert any(line.startswith("sha256 ") and line.endswith("  config.json") for line in lines)


def test_show_of_what_cannot_be_fetched_shows_its_entry(
    share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = share / "registry" / "small.toml"
    new = f'location = "org/x"\nrevision = "{"a" * 40}"\nendpoint = "http://127.0.0.1:9"'
    toml.write_text(toml.read_text().replace('location = "bundled"', new).replace("use", ""))
    learners("registry", "add", "team", share)
    with pytest.warns(FutureWarning):
        result = learners("show", "team:small")
    assert result.code == 0
    assert 'location = "org/x"' in result.out
    assert "was not loaded on this machine before" in result.err


def test_a_folder_may_be_a_plain_word(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(share.parent)
    assert learners("registry", "add", "team", "share").code == 0
    (row,) = learners("registry", "list", "--json").json
    assert row["source"] == str(share)
    missing = learners("registry", "add", "other", "nowhere")
    assert missing.code == 1
    assert "'nowhere' is neither a folder nor a repository" in missing.err


def test_other_bytes_at_the_same_commit_are_called_that(share: Path) -> None:
    far = dataclasses.replace(
        entry("far", "learner", {"config.json": "1" * 64, "README.md": "2" * 64}),
        location="team/far",
        revision="3" * 40,
    )
    path = share / "registry" / "far.toml"
    path.write_text(entry_toml(far))
    assert learners("registry", "add", "team", share).code == 0
    path.write_text(
        entry_toml(dataclasses.replace(far, files={**far.files, "README.md": "4" * 64}))
    )
    updated = learners("registry", "update", "team", "--yes")
    assert updated.code == 0
    assert f"OTHER BYTES at the same commit {'3' * 40}: README.md" in updated.err


def test_what_could_steer_a_terminal_is_shown_as_text(share: Path) -> None:
    folder = share / "learners" / "small"
    (folder / "README.md").write_text("---\na: b\n---\n\x1b]0;owned\x07\x9b2Jtext\u202e\n")
    shown = learners("show", folder)
    assert shown.code == 0, shown.err
    assert "\\u001b]0;owned\\u0007\\u009b2Jtext\\u202e" in shown.out
    assert not set(shown.out) & set("\x1b\x07\x9b\u202e")
    name = learners("show", "no\x1b[2Jname")
    assert "\x1b[2J" not in name.err
