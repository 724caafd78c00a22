"""A recipe of training losses reads every layout of a task that `read_task` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recipes_helpers import make
from secondary_learners.errors import CorpusError
from secondary_learners.experiments.multistage import StagedSettings
from secondary_learners.recipes.loss_learner.make import read_staged_task
from secondary_learners.recipes.loss_learner.recipe import MultistageRecipe
from secondary_learners.registry.load import load_base, load_learner
from secondary_learners.text.corpus import Source

WORDS = ("waves", "harbor", "tax", "ledger", "storm", "sails")
LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a text": ("label\ttext", ("0", "1")),
    "a text in a column of another name": ("sentence\tlabel", ("0", "1")),
    "a pair": ("label\ttext_a\ttext_b", ("0", "1")),
    "a pair in columns of other names": ("question\tlabel\tanswer", ("no", "yes")),
    "four classes by name": ("label\ttext", ("law", "sea", "tax", "weather")),
}


def rows(layout: str, count: int) -> str:
    """`count` examples, the classes in turn."""
    header, classes = LAYOUTS[layout]
    lines = [header]
    for number in range(count):
        cells = {
            column: f"{WORDS[number % 6]} {WORDS[number % 5]} {column} {number}"
            for column in header.split("\t")
        }
        cells["label"] = classes[number % len(classes)]
        lines.append("\t".join(cells.values()))
    return "\n".join(lines) + "\n"


def recipe(base: Path, files: str) -> MultistageRecipe:
    return MultistageRecipe(
        name="sea-losses",
        summary="Of the sea",
        base=str(base),
        sources=(Source("sea", files=files),),
        seeds=0,
        settings=StagedSettings(learning_rate=5e-3, longest=16),
    )


def write(corpus: Path, **files: str) -> Path:
    (corpus / "sea").mkdir()
    for name, text in files.items():
        (corpus / "sea" / f"{name}.tsv").write_text(text)
    return corpus


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("single", [False, True], ids=["two files", "one file"])
def test_every_layout_is_read(layout: str, single: bool, base: Path, tmp_path: Path) -> None:
    parts = {"train": rows(layout, 90), "dev": rows(layout, 10)}
    corpus = write(tmp_path, **({"all": rows(layout, 100)} if single else parts))
    task = read_staged_task(recipe(base, "sea/*.tsv"), corpus, *load_base(str(base)))
    assert task.name == "sea" and task.encoded.classes == LAYOUTS[layout][1]
    assert (len(task.used), len(task.encoded.dev)) == (90, 10)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["a pair", "four classes by name"])
def test_a_learner_is_made_of_one_file(layout: str, base: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path, everything=rows(layout, 100))
    common: dict[str, Any] = {"device": "cpu", "command": "learners run", "progress": False}
    made = make(recipe(base, "sea/*.tsv"), corpus, tmp_path / "out", **common)
    config = load_learner(made.folder).config
    assert config.objective["classes"] == list(LAYOUTS[layout][1])
    assert config.labels["count"] == 22  # a quarter of the nine tenths that are trained on


@pytest.mark.parametrize("names", [("train",), ("dev",), ("train", "test"), ("a", "b")])
def test_other_files_are_named(names: tuple[str, ...], base: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path, **dict.fromkeys(names, rows("a text", 100)))
    with pytest.raises(CorpusError, match=rf"{names[0]}\.tsv.* A task is train\.tsv and dev\.tsv"):
        read_staged_task(recipe(base, "sea/*.tsv"), corpus, *load_base(str(base)))
