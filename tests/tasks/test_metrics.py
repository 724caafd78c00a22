from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.tasks.metrics import floor, matthews, metrics_of, score


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


def test_metrics_of_logits() -> None:
    logits = np.array([[2, 1], [0, 1], [3, 1], [0, 5]], np.float32)
    metrics = metrics_of(logits, (0, 1, 1, 1))
    assert (metrics.examples, metrics.accuracy) == (4, 0.75)
    assert metrics.mcc == pytest.approx(float(np.corrcoef([0, 1, 0, 1], [0, 1, 1, 1])[0, 1]))
