"""Rank correlation and R² against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.learners.statistics import (
    bootstrap_intervals,
    r2,
    ranks,
    spearman,
    spearman_interval,
)

values = st.lists(st.integers(-4, 4), min_size=2, max_size=12)


@given(values)
def test_ranks_average_ties(numbers: list[int]) -> None:
    expected = [
        sum(other < number for other in numbers) + (numbers.count(number) + 1) / 2
        for number in numbers
    ]
    assert ranks(numbers).tolist() == expected


@given(values)
def test_spearman_is_the_correlation_of_ranks_and_knows_only_order(numbers: list[int]) -> None:
    other = [(7 * number) % 5 for number in numbers]
    found = spearman(numbers, other)
    if len(set(numbers)) > 1 and len(set(other)) > 1:
        assert found == pytest.approx(np.corrcoef(ranks(numbers), ranks(other))[0, 1], abs=1e-12)
        assert spearman([n**3 for n in numbers], other) == pytest.approx(found)
        assert spearman([-n for n in numbers], other) == pytest.approx(-found)
    else:
        assert found == 0.0


def test_spearman_by_hand() -> None:
    # One exchange of neighbors in five: 1 - 6 * 2 / (5 * 24).
    assert spearman([1, 2, 3, 4, 5], [10, 30, 20, 40, 50]) == pytest.approx(0.9)


def test_vectors_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="3, 2"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="from 2 up"):
        spearman([1], [1])


def test_r2() -> None:
    truth = [1.0, 2.0, 3.0, 6.0]
    assert r2(truth, truth) == 1.0
    assert r2(truth, [3.0] * 4) == 0.0
    assert r2(truth, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(1 - 4 / 14)
    assert r2(truth, [6.0, 3.0, 2.0, 1.0]) < 0
    assert r2([2.0, 2.0], [1.0, 3.0]) == 0.0


def test_an_interval_is_about_that_of_fisher_s_z() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=600)
    b = 0.7 * a + np.sqrt(1 - 0.49) * random.normal(size=600)
    low, high = spearman_interval(a, b)
    middle, half = np.arctanh(spearman(a, b)), 1.96 * np.sqrt(1.06 / 597)
    assert (low, high) == pytest.approx(tuple(np.tanh([middle - half, middle + half])), abs=0.015)
    assert spearman_interval(a, b) == (low, high)
    assert spearman_interval(a, b, seed=1) != (low, high)


def test_contexts_of_one_document_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    a, b = np.repeat(random.normal(size=(2, 40)), 10, axis=1)  # ten times the same
    a, b = a + 1e-6 * random.normal(size=400), b + 1e-6 * random.normal(size=400)
    whole, alone = (
        spearman_interval(a, b, np.repeat(np.arange(40) * 7, 10)),
        spearman_interval(a, b),
    )
    assert whole[1] - whole[0] > 2.5 * (alone[1] - alone[0])


def test_bootstrap_intervals_cover_the_mean_and_see_the_same_rows() -> None:
    random = np.random.default_rng(0)
    sample = random.normal(size=400)

    def mean(rows: np.ndarray) -> float:
        return float(sample[rows].mean())

    found = bootstrap_intervals(
        400,
        {"mean": mean, "again": mean, "nothing": lambda rows: mean(rows) - mean(rows)},
        resamples=2000,
        seed=3,
    )
    assert found["mean"] == found["again"]
    assert found["nothing"] == (0.0, 0.0)
    low, high = found["mean"]
    error = sample.std() / 20
    assert low == pytest.approx(sample.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(sample.mean() + 1.96 * error, abs=0.15 * error)
