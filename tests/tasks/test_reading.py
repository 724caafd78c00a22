from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from classification_helpers import write_task
from secondary_learners.errors import CorpusError, UnknownNameError
from secondary_learners.tasks.reading import TextRow, read_rows, read_task, task_path


def test_a_folder_and_a_single_file(sea: Path) -> None:
    task = read_task(sea)
    assert (task.name, task.classes, task.metric) == ("sea", ("0", "1"), "accuracy")
    assert (len(task.train), len(task.dev)) == (48, 30)
    first = (sea / "train.tsv").read_text().split("\n")[1].split("\t")
    assert task.train[0] == TextRow(first[1], None, first[0])

    alone = read_task(sea / "train.tsv", metric="f1")
    assert (alone.name, alone.metric) == ("train", "f1")
    assert (len(alone.train), len(alone.dev)) == (43, 5)
    assert Counter((*alone.train, *alone.dev)) == Counter(task.train)
    assert alone == read_task(sea / "train.tsv", metric="f1")


def test_a_subset_is_the_same_for_every_sweep(sea: Path) -> None:
    some = read_task(sea, train_examples=20, dev_examples=7)
    more = read_task(sea, train_examples=30)
    assert (len(some.train), len(some.dev), len(more.dev)) == (20, 7, 30)
    assert set(some.train) <= set(more.train) <= set(read_task(sea).train)


def test_glue_is_scored_as_glue_scores(tmp_path: Path) -> None:
    for name, metric in (("cola", "matthews"), ("mrpc", "f1"), ("rte", "accuracy")):
        assert read_task(write_task(tmp_path / name)).metric == metric


def test_unusual_line_ends_stay_in_the_text(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('label\ttext\na\t"one\u2028two\x0b\nb\tthree\n' * 1)
    (tmp_path / "t" / "x").mkdir(parents=True)
    for part in ("train", "dev"):
        (tmp_path / "t" / f"{part}.tsv").write_text((tmp_path / "t.tsv").read_text())
    assert read_task(tmp_path / "t").train[0] == TextRow('"one\u2028two\x0b', None, "a")


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("label\ttext\n0\ta\n1\tb\n", None, "there is no file"),
        ("", "", "has the columns , and must have"),
        ("label\n1\n", "", "has the columns label, and must have"),
        ("text\na\n", "", "has the columns text, and must have"),
        ("label\ta\tb\tc\n0\t1\t2\t3\n", "", "must have label and text, or label"),
        ("label\ttext\n", "", "has no examples"),
        ("label\ttext\n0\ta\tb\n1\ta\n", "", "train.tsv, line 2: 3 cells under 2 columns"),
        ("label,text\n0,a\n1,b\n", "", "has the columns label,text, and must have label and text"),
        ("label\ttext\n0\ta\n1\n", "", "train.tsv, line 3: 1 cells under 2 columns"),
        ("label\ttext\n0\ta\n", "label\ttext\n0\ta\n", "have the classes 0, and a choice"),
        (
            "label\ttext\n0\ta\n0\tb\n",
            "label\ttext\n0\ta\n0\tb\n",
            "have the classes 0, and a choice",
        ),
        ("label\ttext\n0\ta\n1\tb\n", "label\ttext\n0\ta\n2\tb\n", "the class '2' is among"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, train: str, dev: str | None, message: str) -> None:
    (tmp_path / "train.tsv").write_text(train)
    if dev is not None:
        (tmp_path / "dev.tsv").write_text(dev)
    with pytest.raises(CorpusError) as error:
        read_task(tmp_path)
    assert message in str(error.value)


def test_a_metric_that_does_not_fit(sea: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no metric named 'f2'"):
        read_task(sea, metric="f2")
    (tmp_path / "three.tsv").write_text("label\ttext\n" + "a\tx\nb\ty\nc\tz\n" * 10)
    with pytest.raises(CorpusError, match="3 classes, and matthews is for two"):
        read_task(tmp_path / "three.tsv", metric="matthews")


def test_columns_of_text_by_their_names_or_as_all_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    for text, row in (
        ("sentence\tlabel\nx\t1\n", TextRow("x", None, "1")),
        ("premise\tlabel\thypothesis\nx\t1\ty\n", TextRow("x", "y", "1")),
        ("idx\ttext\tlabel\n7\tx\t1\n", TextRow("x", None, "1")),
        ("text_b\ttext_a\tlabel\tidx\ny\tx\t1\t7\n", TextRow("x", "y", "1")),
        ("label\ttext\n1\t\n", TextRow("", None, "1")),
    ):
        path.write_text(text)
        assert read_rows(path) == [row]
    with pytest.raises(CorpusError, match="have the classes none, and a choice takes two"):
        read_task(path)  # nothing is left to train on
    path.write_bytes(b"label\ttext\n\xff\ta\n")
    with pytest.raises(CorpusError, match="is not UTF-8 text"):
        read_rows(path)


def test_a_corpus_may_keep_its_tasks_together_or_not(tmp_path: Path) -> None:
    (tmp_path / "classification" / "sst2").mkdir(parents=True)
    together = tmp_path / "classification" / "sst2" / "train.tsv"
    together.touch()
    for name in ("sst2/train.tsv", "classification/sst2/train.tsv"):
        assert task_path(name, tmp_path) == together
    alone = tmp_path / "sst2" / "train.tsv"
    alone.parent.mkdir()
    alone.touch()
    assert task_path("sst2/train.tsv", tmp_path) == alone
    together.unlink()
    assert task_path("classification/sst2/train.tsv", tmp_path) == alone
    with pytest.raises(CorpusError, match=r"no file 'cola' in .*--corpus FOLDER"):
        task_path("cola", tmp_path)
