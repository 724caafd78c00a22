"""A kind of recipe more is a folder and a row more: parsed, run, resumed, entered, rebuilt."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cli_helpers import learners
from secondary_learners.errors import RecipeError
from secondary_learners.recipes import kinds
from secondary_learners.recipes.parsing import find_recipe, parse_recipe, recipe_toml
from secondary_learners.recipes.run import Run, run_recipe
from secondary_learners.registry.index import read_index

RECIPE = """
from dataclasses import dataclass

from secondary_learners.recipes.record import Record, above_zero, check_name


@dataclass(frozen=True)
class LetterRecipe(Record):
    name: str
    summary: str
    file: str
    letters: int = 3
    kind: str = "letters"
    license: str = "mit"
    attribution: str = ""
    language: str = ""

    WHAT = "a count of letters"
    OPTIONS = frozenset(("license",))

    def __post_init__(self):
        check_name(self.name)
        above_zero(letters=self.letters)


RECIPE = LetterRecipe
"""
MAKE = """
from collections import Counter

from secondary_learners.artifacts.checks import read_json
from secondary_learners.experiments.runs import StoredRun
from secondary_learners.files import sha256_bytes, write_bytes, write_json
from secondary_learners.recipes.parsing import recipe_toml
from secondary_learners.recipes.run import Made

DONE = []  # the stages that ran, in this process


def read(recipe, run):
    return (run.corpus / recipe.file).read_text()


def make(recipe, text, run):
    digest = sha256_bytes(text.encode())
    counts = run.stage("counts", digest, lambda: count(text)).figures
    best = run.stage("best", digest, lambda: choose(counts, recipe.letters)).figures["best"]
    config = {"model_type": "letters", "digest": digest, "best": best}
    write_bytes(run.out / "recipe.toml", recipe_toml(recipe).encode())
    write_json(run.out / "evaluation.json", {"command": run.command})
    write_json(run.out / "config.json", config)
    return Made(run.out, {"best": best})


def count(text):
    DONE.append("counts")
    return StoredRun(dict(Counter(filter(str.isalpha, text))))


def choose(counts, letters):
    DONE.append("best")
    counts = {name: value for name, value in counts.items() if len(name) == 1}
    return StoredRun({"best": sorted(counts, key=lambda name: -counts[name])[:letters]})


def digests(text, config):
    yield "text", sha256_bytes(text.encode()), config["digest"]


def compare(recipe, text, ours, theirs):
    return []


def check(folder):
    return read_json(folder / "config.json")


def report(made):
    return f"the letters are {' '.join(made.evaluation['best'])}"
"""


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module make.py of the kind "letters", whose folder is outside of the package."""
    package = tmp_path / "packages" / "letters_kind"
    package.mkdir(parents=True)
    for name, text in (("__init__", ""), ("recipe", RECIPE), ("make", MAKE)):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(package.parent))
    for name in ("letters_kind", "letters_kind.recipe", "letters_kind.make"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(kinds.ROWS, "letters", "letters_kind")
    (tmp_path / "text.txt").write_text("aaa bb c d")
    plan = 'kind = "letters"\nname = "common"\nsummary = "x"\nfile = "text.txt"\nletters = 2\n'
    (tmp_path / "common.toml").write_text(plan)
    return importlib.import_module("letters_kind.make")


def test_its_recipe_is_read_and_written(letters: ModuleType, tmp_path: Path) -> None:
    recipe = find_recipe(str(tmp_path / "common.toml"))
    assert (recipe.kind, recipe.name, recipe.license) == ("letters", "common", "mit")
    assert parse_recipe(recipe_toml(recipe)) == recipe
    with pytest.raises(RecipeError, match="letters is 0"):
        parse_recipe(recipe_toml(recipe).replace("letters = 2", "letters = 0"))
    with pytest.raises(RecipeError, match="is a count of letters, which does not predict"):
        recipe.on_text()


def test_a_killed_run_goes_on_and_leaves_an_entry(
    letters: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(out=tmp_path / "out", corpus=tmp_path, progress=False)
    recipe = find_recipe(str(tmp_path / "common.toml"))
    with monkeypatch.context() as patch:
        patch.setattr(letters, "choose", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, run)
    assert letters.DONE == ["counts"] and not (run.out / "config.json").exists()
    made = run_recipe(recipe, run)
    assert made is not None and made.evaluation["best"] == ["a", "b"]
    assert letters.DONE == ["counts", "best"]  # what was done is not done again
    entry = read_index(run.work)["common"]
    assert (entry.kind, entry.architecture, entry.license) == ("base-model", "letters", "mit")
    assert set(entry.files) == {"config.json", "evaluation.json", "recipe.toml"}


def test_the_command_line_runs_and_rebuilds_it(letters: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--corpus", tmp_path, "--license", "bsd-3-clause")
    shown = learners("run", tmp_path / "common.toml", "--out", out, *options)
    assert shown.code == 0 and "the letters are a b" in shown.out, shown.err
    assert json.loads((out / "config.json").read_text())["best"] == ["a", "b"]
    assert find_recipe(str(out / "recipe.toml")).license == "bsd-3-clause"
    again = learners("rebuild", out, "--corpus", tmp_path, "--out", tmp_path / "again", "--json")
    assert (tmp_path / "again" / "config.json").read_bytes() == (out / "config.json").read_bytes()
    assert again.json["name"] == "common", again.err
