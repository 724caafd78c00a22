from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classification_helpers import write_task
from secondary_learners.errors import CorpusError, UnknownNameError
from secondary_learners.experiments.trials.tasks import encode, floor, read_task, score


def test_a_folder_and_a_single_file(sea: Path) -> None:
    task = read_task(sea)
    assert (task.name, task.labels, task.metric) == ("sea", ("0", "1"), "accuracy")
    assert (len(task.train), len(task.dev)) == (48, 30)
    first = (sea / "train.tsv").read_text().split("\n")[1].split("\t")
    assert task.train[0] == (first[1], None, int(first[0]))

    alone = read_task(sea / "train.tsv", metric="f1")
    assert (alone.name, alone.metric) == ("train", "f1")
    assert (len(alone.train), len(alone.dev)) == (43, 5)
    assert sorted((*alone.train, *alone.dev)) == sorted(task.train)
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
    assert read_task(tmp_path / "t").train[0] == ('"one\u2028two\x0b', None, 0)


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("label\ttext\n0\ta\n1\tb\n", None, "there is no file"),
        ("label,text\n0,a\n1,b\n", "", "has the columns label,text, and must have label and text"),
        ("label\ttext\n0\ta\n1\n", "", "train.tsv, line 3: 1 cells under 2 columns"),
        ("label\ttext\n0\ta\n", "", "has 1 examples"),
        ("label\ttext\n0\ta\n0\tb\n", "label\ttext\n0\ta\n0\tb\n", "have 1 label"),
        ("label\ttext\n0\ta\n1\tb\n", "label\ttext\n0\ta\n2\tb\n", "the label '2' is among"),
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
    with pytest.raises(CorpusError, match="3 labels, and matthews is for two"):
        read_task(tmp_path / "three.tsv", metric="matthews")


def test_tokens_are_cut_and_a_second_text_begins_on_a_new_line(
    loaded: tuple, tmp_path: Path
) -> None:
    _, tokenizer = loaded
    task = read_task(write_task(tmp_path / "two", pairs=True))
    found = encode(task, tokenizer, 64)
    first, second, label = task.train[0]
    assert tokenizer.decode(found.train.ids[0]) == f"{first}\n{second}"
    assert found.train.labels[0] == label
    assert found.pad == tokenizer.eos_token_id
    short = encode(task, tokenizer, 9)
    longest = max(range(len(found.train)), key=lambda place: len(found.train.ids[place]))
    assert max(len(ids) for ids in short.train.ids) == len(short.train.ids[longest]) == 9
    ends = tokenizer.decode(short.train.ids[longest]).split("\n")
    for end, text in zip(ends, task.train[longest], strict=False):
        assert end and str(text).startswith(end)
    assert short.digest != found.digest == encode(task, tokenizer, 64).digest


def plain(metric: str, predicted: np.ndarray, labels: np.ndarray) -> float:
    if metric == "accuracy":
        return sum(a == b for a, b in zip(predicted, labels, strict=True)) / len(labels)
    if metric == "f1":
        hits = sum((predicted == 1) & (labels == 1))
        precision, recall = hits / max(1, sum(predicted)), hits / max(1, sum(labels))
        return 2 * precision * recall / (precision + recall) if hits else 0.0
    if len(set(predicted)) == 1 or len(set(labels)) == 1:
        return 0.0
    return float(np.corrcoef(predicted, labels)[0, 1])


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_metrics_against_their_definitions(metric: str) -> None:
    rng = np.random.default_rng(0)

    def draw(share: float) -> np.ndarray:
        return (rng.random(40) < share).astype(np.int64)

    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        for _ in range(20):
            predicted, labels = draw(share), draw(0.6)
            assert score(metric, predicted, labels) == pytest.approx(
                plain(metric, predicted, labels), abs=1e-12
            )


def test_the_floor_answers_what_training_has_most_of() -> None:
    train, dev = np.array([1, 1, 0]), np.array([1, 0, 0, 0])
    assert floor("accuracy", train, dev) == 0.25
    assert floor("matthews", train, dev) == 0.0
    assert floor("f1", train, dev) == pytest.approx(0.4)
