"""Rank correlation and R² against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.learners.statistics import r2, ranks, spearman

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
    # One exchange of neighbours in five: 1 - 6 * 2 / (5 * 24).
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
