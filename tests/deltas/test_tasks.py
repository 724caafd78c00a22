from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from secondary_learners.deltas.settings import Training
from secondary_learners.deltas.tasks import (
    Examples,
    classifier,
    evaluate,
    matthews,
    predict,
    read_examples,
    train,
)
from secondary_learners.errors import CorpusError, DivergedError, SecondaryLearnersError


class Letters:
    """A token a letter; 0 ends a text."""

    eos_token_id = 0

    def __call__(self, texts: Sequence[str], *, add_special_tokens: bool) -> dict[str, Any]:
        assert not add_special_tokens
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def read(path: Path, **options: Any) -> Examples:
    return read_examples(path, Letters(), **options)  # type: ignore[arg-type]


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('label\ttext_a\ttext_b\nyes\ta"b\tc\nno\t\t\nyes\tabcdef\tg\n')
    found = read(path, max_length=6)
    assert found.names == ("no", "yes")
    assert found.labels == (1, 0, 1)
    assert found.ids == ((97, 34, 98, 0, 99), (0,), (97, 98, 99, 100, 101, 102))
    assert read(path, names=["yes", "no"]).labels == (0, 1, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "header line"),
        ("label\n1\n", "columns of text"),
        ("text\na\n", "column `label`"),
        ("label\ttext\n1\n0\ta\n", "line 2"),
        ("label\ttext\n1\ta\tb\n0\ta\n", "line 2"),
        ("label\ttext\n1\ta\n1\tb\n", "only the label '1'"),
    ],
)
def test_files_that_are_no_task(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(text)
    with pytest.raises(CorpusError, match=reason):
        read(path)


def test_unknown_labels_and_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("label\ttext\n2\ta\n")
    with pytest.raises(CorpusError, match=r"label '2'; known: 0, 1"):
        read(path, names=["0", "1"])
    path.write_bytes(b"label\ttext\n\xff\ta\n")
    with pytest.raises(CorpusError, match="TSV"):
        read(path)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_matthews_is_the_correlation_of_two_labels(pairs: list[tuple[int, int]]) -> None:
    labels, guesses = zip(*pairs, strict=True)
    expected = 0.0
    if len(set(labels)) == len(set(guesses)) == 2:
        expected = float(np.corrcoef(labels, guesses)[0, 1])
    assert matthews(labels, guesses) == pytest.approx(expected, abs=1e-12)


def test_matthews_of_three_labels() -> None:
    # Its definition for many labels, by covariances of one-hot codes (Gorodkin 2004).
    labels, guesses = [0, 1, 2, 2, 1, 0, 0], [0, 2, 2, 1, 1, 0, 1]
    x, y = np.eye(3)[labels], np.eye(3)[guesses]

    def covariance(a: Any, b: Any) -> float:
        return float(sum(np.cov(a[:, k], b[:, k])[0, 1] for k in range(3)))

    expected = covariance(x, y) / math.sqrt(covariance(x, x) * covariance(y, y))
    assert matthews(labels, guesses) == pytest.approx(expected)


def test_a_classifier_has_the_base_and_a_head_of_its_seed(base: PreTrainedModel) -> None:
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    first, same, other = (classifier(base, 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), drawn)  # the caller's random numbers are left alone
    for name, weight in base.base_model.named_parameters():
        assert torch.equal(first.base_model.get_parameter(name), weight)
        assert first.base_model.get_parameter(name) is not weight
    heads = [model.get_parameter("score.weight") for model in (first, same, other)]
    assert heads[0].shape == (3, base.config.n_embd)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_training_learns_and_repeats(trainable: PreTrainedModel, examples: Examples) -> None:
    again = copy.deepcopy(trainable)
    training = Training(epochs=4, batch_size=10, learning_rate=5e-3, mixed_precision=False)
    assert train(trainable, examples, training, seed=1) > 0
    train(again, examples, training, seed=1)
    assert evaluate(trainable, examples).accuracy > 0.9
    for name, weight in trainable.named_parameters():
        assert torch.equal(weight, again.get_parameter(name)), name


def test_predictions_do_not_depend_on_their_neighbors(
    model: PreTrainedModel, examples: Examples
) -> None:
    together = predict(model, examples)
    for place in (0, 57, 119):
        one = Examples(examples.ids[place : place + 1], (0,), examples.names)
        np.testing.assert_allclose(predict(model, one)[0], together[place], atol=1e-5)


def test_samples(examples: Examples) -> None:
    few = examples.sample(30, seed=2)
    assert len(few) == 30
    assert few == examples.sample(30, seed=2) != examples.sample(30, seed=3)
    assert examples.sample(10**6) == examples
    assert few.digest != examples.digest == examples.sample(10**6).digest


def test_divergence_and_settings(trainable: PreTrainedModel, examples: Examples) -> None:
    with torch.no_grad():
        trainable.get_parameter("score.weight").fill_(torch.nan)
    with pytest.raises(DivergedError, match="nan"):
        train(trainable, examples, Training())
    with pytest.raises(SecondaryLearnersError, match="epochs is 0"):
        Training(epochs=0)
