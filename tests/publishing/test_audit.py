from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import pytest
import safetensors.torch
import torch

from secondary_learners.artifacts.layout import published_files
from secondary_learners.cards.check import CardFault
from secondary_learners.content import content
from secondary_learners.publishing.audit import (
    ArtifactFault,
    audit,
)
from secondary_learners.registry.index import read_index

SHIPPED = [content("learners") / name for name in read_index()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(content("learners") / "books-mini", tmp_path / "books")


def kinds(folder: Path) -> list[StrEnum]:
    return [problem.kind for problem in audit(folder)]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.name)
def test_what_ships_is_fit_to_be_published(shipped: Path) -> None:
    assert audit(shipped) == []


def test_no_folder(tmp_path: Path) -> None:
    assert kinds(tmp_path / "gone") == [ArtifactFault.FILE]


def test_an_empty_folder_lacks_every_file(tmp_path: Path) -> None:
    assert kinds(tmp_path) == [ArtifactFault.FILE] * 5


@pytest.mark.parametrize("name", ["config.json", "evaluation.json", "README.md", "recipe.toml"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert any(name in problem.message for problem in audit(folder))
    assert ArtifactFault.FILE in kinds(folder)


def test_a_base_model_needs_its_tokenizer(tmp_path: Path) -> None:
    folder = shutil.copytree(content("learners") / "mini", tmp_path / "mini")
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").write_bytes(b"no tensors")
    assert kinds(folder) == [ArtifactFault.FILE, ArtifactFault.CONTENT]


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    return shutil.copytree(content("learners") / "sst2-mask-mini", tmp_path / "mask")


def test_a_delta_lacks_what_a_learner_would(delta: Path) -> None:
    (delta / "evaluation.json").unlink()
    cut(delta)
    (problem, other) = audit(delta)
    assert (problem.kind, other.kind) == (ArtifactFault.FILE, ArtifactFault.CONTENT)
    assert "evaluation.json" in problem.message and "truncated" in other.message


DELTAS: list[tuple[str, str, str, StrEnum, str]] = [
    ("config.json", '"mask"', '"masks"', ArtifactFault.CONTENT, "'kind'"),
    ("config.json", '"sst2-mask-mini"', '"other"', ArtifactFault.RECIPE, "'other'"),
    ("recipe.toml", 'kind = "mask"', 'kind = "veil"', ArtifactFault.RECIPE, "'veil'"),
    ("recipe.toml", '"sst2/dev.tsv"', '"/home/me/dev.tsv"', ArtifactFault.PATH, "/home/me"),
    ("recipe.toml", '"apache-2.0"', '"mit"', ArtifactFault.LICENSE, "'mit'"),
    ("recipe.toml", "summary = ", 'summary = "" # ', ArtifactFault.ENTRY, "summary"),
    ("README.md", "| 0.711 |", "| 0.999 |", CardFault.FIGURE, "0.711"),
    ("README.md", "329,728", "300,000", CardFault.FIGURE, "329,728"),
    ("README.md", "license: apache-2.0\n", "", CardFault.LICENSE, "nobody has said"),
]


@pytest.mark.parametrize(("name", "old", "new", "kind", "words"), DELTAS)
def test_what_is_wrong_with_a_delta(
    delta: Path, name: str, old: str, new: str, kind: StrEnum, words: str
) -> None:
    replace(delta / name, old, new)
    said = [problem.message for problem in audit(delta) if problem.kind is kind]
    assert said and words in said[0]


@pytest.mark.parametrize("name", ["model.pkl", "work/labels/old.PT", "train.py"])
def test_code_anywhere_in_the_folder_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    (problem,) = audit(folder)
    assert problem.kind is ArtifactFault.CODE and name in problem.message


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def not_finite(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["bias"].fill_(torch.nan)
    safetensors.torch.save_file(tensors, path)


SPOILT: list[tuple[Callable[[Path], None], StrEnum, str]] = [
    (cut, ArtifactFault.CONTENT, "truncated"),
    (not_finite, ArtifactFault.CONTENT, "not finite"),
    (
        lambda folder: replace(folder / "config.json", '"linear"', '"cubic"'),
        ArtifactFault.CONTENT,
        "cubic",
    ),
    (
        lambda folder: replace(folder / "recipe.toml", "[labels]", "[labels]\ncolor = 1"),
        ArtifactFault.RECIPE,
        "color",
    ),
    (
        lambda folder: replace(folder / "recipe.toml", '"books-mini"', '"others"'),
        ArtifactFault.RECIPE,
        "others",
    ),
    (
        lambda folder: (folder / "evaluation.json").write_text("[]") and None,
        ArtifactFault.EVALUATION,
        "evaluation.json",
    ),
    (
        lambda folder: replace(folder / "recipe.toml", '"apache-2.0"', '"mit"'),
        ArtifactFault.LICENSE,
        "'mit'",
    ),
    (
        lambda folder: replace(folder / "recipe.toml", '"books/*.txt"', '"/home/me/books"'),
        ArtifactFault.PATH,
        "/home/me/books",
    ),
    (
        lambda folder: replace(folder / "recipe.toml", "\nsummary = ", '\nsummary = "" # '),
        ArtifactFault.ENTRY,
        "summary",
    ),
    (
        lambda folder: replace(folder / "README.md", "0.804", "0.999"),
        CardFault.FIGURE,
        "0.804",
    ),
]


@pytest.mark.parametrize(("spoil", "kind", "words"), SPOILT)
def test_what_is_wrong_is_said_once(
    folder: Path, spoil: Callable[[Path], None], kind: StrEnum, words: str
) -> None:
    spoil(folder)
    said = [problem.message for problem in audit(folder) if problem.kind is kind]
    assert said and words in said[0]
    assert len({problem.kind for problem in audit(folder)}) <= 2


def test_every_problem_is_found_at_once(folder: Path) -> None:
    (folder / "evil.pickle").touch()
    cut(folder)
    (folder / "recipe.toml").unlink()
    replace(folder / "README.md", "license: apache-2.0\n", "")
    assert set(kinds(folder)) == {
        *(ArtifactFault.CODE, ArtifactFault.CONTENT, ArtifactFault.FILE, CardFault.LICENSE)
    }


def test_a_learner_without_figures_is_refused(folder: Path) -> None:
    path = folder / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["held_out"] = {}
    path.write_text(json.dumps(evaluation))
    assert kinds(folder) == [CardFault.FIGURE]


def test_work_in_progress_and_hidden_files_stay(folder: Path) -> None:
    for name in (".env", "notes.txt", "work/labels.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert audit(folder) == []
    assert [path.name for path in published_files(folder)] == [
        *("README.md", "comparison.png", "config.json", "evaluation.json"),
        *("model.safetensors", "recipe.toml"),
    ]
