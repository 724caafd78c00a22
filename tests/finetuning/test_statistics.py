from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.finetuning.statistics import (
    mean,
    permutation_test,
    standard_error,
    updates_to_reach,
)

# Quarters add up exactly, so that the brute force below has no ties decided by rounding.
quarters = st.integers(-40, 40).map(lambda value: value / 4)


@settings(deadline=None)
@given(st.lists(st.tuples(quarters, quarters), min_size=1, max_size=7))
def test_exact_p_is_that_of_brute_force(pairs):
    first, second = zip(*pairs, strict=True)
    differences = [a - b for a, b in pairs]
    reached = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        >= abs(sum(differences))
        for signs in product((1, -1), repeat=len(pairs))
    ]
    assert permutation_test(first, second) == sum(reached) / len(reached)
    assert permutation_test(second, first) == permutation_test(first, second)


def test_sums_equal_up_to_rounding_count_as_reached():
    # 0.1 + 0.2 - 0.3 and its mirror differ in the last bit.
    assert permutation_test([0.1, 0.2, 0.3], [0.0, 0.0, 0.6]) == 1.0
    assert permutation_test([0.1] * 20, [0.0] * 20) == 2 / 2**20


def test_monte_carlo_agrees_with_the_exact_test_and_repeats():
    random = np.random.default_rng(0)
    first, second = random.normal(0.45, 1, 20), random.normal(0, 1, 20)
    exact = permutation_test(first, second)
    # A pair without a difference changes no sum, but makes 21 pairs.
    first, second = [*first, 1.0], [*second, 1.0]
    drawn = permutation_test(first, second, seed=3)
    assert drawn == permutation_test(first, second, seed=3)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 100_000) + 2e-5)
    assert permutation_test(range(1, 30), [0] * 29) == pytest.approx(1 / 100_001)


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="2 values and 3"):
        permutation_test([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="pairs are needed"):
        permutation_test([], [])


def test_mean_and_standard_error():
    assert mean([1, 2, 3, 6]) == 3
    assert standard_error([1, 2, 3, 6]) == pytest.approx(math.sqrt(14 / 3 / 4), rel=1e-12)
    assert standard_error([5.0]) is None


def test_updates_to_reach_interpolates():
    updates, values = [0, 10, 20, 30], [100.0, 80.0, 60.0, 70.0]
    assert updates_to_reach(updates, values, 75) == 12.5
    assert updates_to_reach(updates, values, 60) == 20
    assert updates_to_reach(updates, values, 100) == 0
    assert updates_to_reach(updates, values, 59.9) is None
