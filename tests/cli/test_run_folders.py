"""Which folders a run takes: new ones and its own, and never one with something of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_helpers import Tiny, learners

LEFT_ALONE = "holds something that no run of this made, and it is left alone. Try another --out"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("own", [("README.md", "config.json"), ("a.txt",), ("work/notes.txt",)])
def test_a_folder_of_the_user_s_own_is_left_alone(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: tuple[str, ...]
) -> None:
    for name in own:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    monkeypatch.chdir(tmp_path)
    commands = (
        ("run", *tiny.options),
        ("gains", *tiny.options),
        ("fit", tiny.learner / "work" / "labels"),
        ("run", "mini", "--corpus", tmp_path),
        ("rebuild", tiny.learner, "--corpus", tiny.objective.parent),
    )
    before = contents(tmp_path)
    for command in commands:
        result = learners(*command, "--out", ".")
        assert result.code == 1
        assert LEFT_ALONE in result.err or "holds no finished labels" in result.err, command
        assert contents(tmp_path) == before


def test_an_empty_folder_is_taken_and_so_is_one_with_hidden_files(
    tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / ".gitignore").write_text("*")
    result = learners("gains", *tiny.options, "--out", tmp_path)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ("mini", "a base model, which does not predict information gain"),
        ("sst2-mask-mini", "a delta, which does not predict information gain"),
        ("multistage-sst2", "a learner of training losses, which does not predict"),
        ("wikitext-gpt2", "was made from published labels, so its recipe has no text"),
    ],
)
def test_refresh_calls_every_recipe_what_it_is(tiny: Tiny, recipe: str, what: str) -> None:
    result = learners("refresh", tiny.learner, "--model", tiny.base, "--recipe", recipe)
    assert result.code == 1
    assert what in result.err
