"""The teacher against plain float64 loops over dictionaries."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.learners.kernel_ridge import (
    ContextKernel,
    arc_cosine,
    fit_kernel_ridge,
    position_waves,
)

VOCABULARY, LENGTH, BUCKETS = 40, 9, 2**18
RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.integers(0, 50, VOCABULARY)
EMBEDDINGS = RANDOM.normal(size=(VOCABULARY, 6)).astype(np.float32)
SHARE = 1 / np.arange(1, VOCABULARY + 1)
OWN = RANDOM.choice(VOCABULARY, (60, LENGTH), p=SHARE / SHARE.sum())
OTHER = RANDOM.integers(0, VOCABULARY, (7, LENGTH))


def bucket(left: int, right: int) -> int:
    return ((1_540_483_477 * left + 1_812_433_253 * right) % 2_147_483_647) % BUCKETS


def plain_features(rows: np.ndarray) -> list[list[dict[object, float]]]:
    """Of each context the four kinds of features, unscaled: as the module's comments say."""
    total = COUNTS + 20.0 * np.bincount(OWN.ravel(), minlength=VOCABULARY)
    weight = ((total + 1) / total.sum()) ** 0.25
    pairs = Counter(bucket(a, b) for row in OWN.tolist() for a, b in pairwise(row))
    place = np.arange(LENGTH)
    values, vectors = np.linalg.eigh(np.exp(-abs(place[:, None] - place) / 6))
    waves = (vectors * np.sqrt(values))[:, ::-1][:, :5]
    found = []
    for row in rows.tolist():
        counts = Counter(row)
        here = Counter(bucket(a, b) for a, b in pairwise(row))
        positions: dict[object, float] = Counter()
        for i, token in enumerate(row):
            for wave in range(5):
                positions[token, wave] += weight[token] * waves[i, wave]
        embedded = sum(math.sqrt(c) * EMBEDDINGS[t].astype(float) for t, c in counts.items())
        found.append(
            [
                {t: c**0.6 * weight[t] for t, c in counts.items()},
                {p: math.sqrt(c) * (pairs[p] + 1) ** 0.25 for p, c in here.items()},
                positions,
                dict(enumerate(embedded)),
            ]
        )
    return found


def dot(a: dict[object, float], b: dict[object, float]) -> float:
    return sum(value * b.get(key, 0.0) for key, value in a.items())


def plain_kernel(rows: np.ndarray) -> np.ndarray:
    own, other = plain_features(OWN), plain_features(rows)
    shares = (1.0, 0.35, 0.35, 0.3)
    scale = [shares[k] / np.mean([dot(x[k], x[k]) for x in own]) for k in range(4)]

    def product(x: list[dict[object, float]], y: list[dict[object, float]]) -> float:
        return sum(scale[k] * dot(x[k], y[k]) for k in range(4))

    result = np.empty((len(rows), len(own)))
    for i, x in enumerate(other):
        for j, y in enumerate(own):
            cosine = product(x, y) / math.sqrt(product(x, x) * product(y, y))
            cosine = max(-1.0, min(1.0, cosine))
            angle = math.acos(cosine)
            result[i, j] = (math.sin(angle) + (math.pi - angle) * cosine) / math.pi
    return result


@pytest.fixture(scope="module")
def kernel() -> ContextKernel:
    return ContextKernel(OWN, COUNTS, EMBEDDINGS)


@pytest.mark.parametrize("rows", [OTHER, OWN[:5]], ids=["unseen", "its own"])
def test_the_kernel_is_that_of_plain_loops(kernel: ContextKernel, rows: np.ndarray) -> None:
    # The arc cosine of a float32 cosine near 1 keeps half of its digits.
    found = kernel(torch.from_numpy(rows)).double().numpy()
    np.testing.assert_allclose(found, plain_kernel(rows), atol=2e-6)


def test_a_context_is_most_like_itself(kernel: ContextKernel) -> None:
    gram = kernel(torch.from_numpy(OWN))
    assert torch.allclose(gram.diagonal(), torch.ones(len(OWN)), atol=1e-5)
    assert float((gram - gram.T).abs().max()) < 1e-6
    assert float(torch.linalg.eigvalsh(gram.double()).min()) > -1e-5


def test_predictions_are_those_of_the_normal_equations_with_and_without_each_fold(
    kernel: ContextKernel,
) -> None:
    labels = RANDOM.normal(size=len(OWN))
    fold = np.arange(len(OWN)) % 3
    found = fit_kernel_ridge(kernel, labels, fold, strength=0.7)
    predicted = found.predict(OTHER)
    assert predicted.shape == (7, 4)
    gram, between = plain_kernel(OWN), plain_kernel(OTHER)
    for fit, rows in enumerate([fold >= 0, *[fold != k for k in range(3)]]):
        mean = labels[rows].mean()
        dual = np.linalg.solve(
            gram[np.ix_(rows, rows)] + 0.7 * np.eye(rows.sum()), labels[rows] - mean
        )
        np.testing.assert_allclose(predicted[:, fit], between[:, rows] @ dual + mean, atol=1e-5)
        assert not found.dual[torch.from_numpy(~rows), fit].any()


def test_contexts_of_another_length_are_refused(kernel: ContextKernel) -> None:
    with pytest.raises(SecondaryLearnersError, match="contexts of 5 tokens"):
        kernel(torch.zeros(2, 5, dtype=torch.int64))


@given(st.floats(-1.1, 1.1))
@settings(max_examples=50)
def test_the_arc_cosine_kernel_rises_from_0_to_1(cosine: float) -> None:
    low, high = arc_cosine(torch.tensor([cosine, cosine + 0.05], dtype=torch.float64)).tolist()
    assert 0 <= low <= high <= 1


@pytest.mark.parametrize("length", [2, 5, 32])
def test_waves_span_the_likeness_of_positions_best(length: int) -> None:
    waves = position_waves(length)
    place = torch.arange(length, dtype=torch.float64)
    likeness = torch.exp(-(place[:, None] - place).abs() / 6)
    left = torch.linalg.eigvalsh(likeness - waves @ waves.T)
    expected = torch.linalg.eigvalsh(likeness).flip(0)[waves.shape[1] :]
    most = float(expected.max()) if len(expected) else 0.0
    assert float(left.max()) == pytest.approx(most, abs=1e-9)
