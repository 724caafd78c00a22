from __future__ import annotations

import math
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.errors import MissingExtraError
from secondary_learners.experiments.statistics import (
    crossed_permutation_test,
    deviation,
    fewest_pairs,
    mean,
    one_way,
    permutation_test,
    seeds_needed,
    smallest_p,
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


def test_deviation_is_over_n_minus_one():
    assert deviation([1, 2, 3, 6]) == pytest.approx(math.sqrt(14 / 3), rel=1e-12)
    assert deviation([5.0]) is None


def test_one_way_against_a_worked_example():
    # Means 5, 9 and 10 over three groups of six: F = 84 / 2 over 68 / 15, p as scipy 1.17 has it.
    groups = [[6, 8, 4, 5, 3, 4], [8, 12, 9, 11, 6, 8], [13, 9, 11, 8, 7, 12]]
    value, p = one_way(groups)
    assert value == pytest.approx(42 / (68 / 15), rel=1e-12)
    assert p == pytest.approx(0.0023987773293929083, rel=1e-10)


def test_one_way_where_nothing_varies():
    assert one_way([[0.1, 0.1], [0.1, 0.1, 0.1]]) == (0.0, 1.0)
    assert one_way([[0.1, 0.1], [0.2, 0.2]]) == (math.inf, 0.0)


@pytest.mark.parametrize("groups", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0], []]])
def test_one_way_needs_groups_that_vary(groups):
    with pytest.raises(ValueError, match="needs two groups"):
        one_way(groups)


def test_the_fewest_pairs_are_those_whose_smallest_p_will_do():
    for alpha in (0.05, 0.01, 0.25, 2.0**-7):
        pairs = fewest_pairs(alpha)
        assert smallest_p(pairs) <= alpha < smallest_p(pairs - 1)
    assert fewest_pairs() == 6
    assert permutation_test([1.0] * 6, [0.0] * 6) == smallest_p(6)


@pytest.mark.parametrize(
    ("effect", "paired", "alpha", "power", "seeds"),
    [  # the t tests of G*Power and of R's power.t.test
        (0.5, False, 0.05, 0.8, 64),
        (0.8, False, 0.05, 0.8, 26),
        (0.2, False, 0.05, 0.8, 394),
        (0.5, False, 0.01, 0.9, 121),
        (0.5, True, 0.05, 0.8, 34),
        (0.2, True, 0.05, 0.8, 199),
        (0.8, True, 0.05, 0.8, 15),
        (9.0, True, 0.05, 0.8, 6),  # below which no permutation test can be significant
        (9.0, False, 0.05, 0.8, 2),
    ],
)
def test_seeds_needed_are_those_of_power_tables(effect, paired, alpha, power, seeds):
    for sign in (1, -1):
        found = seeds_needed(sign * effect / 3, 1 / 3, paired=paired, alpha=alpha, power=power)
        assert found == seeds


def test_seeds_needed_without_a_difference_or_without_luck():
    assert seeds_needed(0.0, 1.0, paired=False) is None
    assert seeds_needed(1e-9, 1.0, paired=True) is None
    assert seeds_needed(0.1, 0.0, paired=True) == 6
    assert seeds_needed(0.1, 0.0, paired=False) == 2


def test_the_crossed_test_flips_whole_rows_and_whole_columns():
    differences = np.array([[0.3, -0.1, 0.2], [0.5, 0.4, 0.1]])
    by_kind = []
    for values in (differences, differences.T):
        reached = []
        for signs in product((1, -1), repeat=len(values)):
            total = sum(np.array(signs) @ values)
            reached.append(abs(total) >= abs(differences.sum()) - 1e-12)
        by_kind.append(sum(reached) / len(reached))
    assert crossed_permutation_test(differences) == max(by_kind)
    assert crossed_permutation_test(-differences.T) == max(by_kind)
    assert crossed_permutation_test(np.full((5, 5), 0.1)) == 2 / 2**5
    hole = differences.copy()
    hole[0, 1] = np.nan
    without = crossed_permutation_test(np.where(np.isnan(hole), 0.0, hole))
    assert crossed_permutation_test(hole) == without


def test_one_order_alone_leaves_independent_pairs():
    values = [0.3, 0.1, 0.4, -0.2]
    expected = permutation_test(values, [0.0] * 4)
    assert crossed_permutation_test([[value] for value in values]) == expected
    assert crossed_permutation_test([values]) == expected
    assert crossed_permutation_test([[0.3]]) == 1.0


def test_the_crossed_test_is_less_sure_than_pairs_where_seeds_matter():
    # Two good initializations, whatever the order: two facts, and not ten.
    differences = np.full((5, 5), 0.01) * np.random.default_rng(0).choice([1, -1], (5, 5))
    differences[:2] += 0.3
    pairs = permutation_test(differences.ravel().tolist(), [0.0] * 25)
    assert pairs < 0.01 < 0.2 < crossed_permutation_test(differences)


def test_seeds_that_matter_by_chance_are_not_taken_for_a_difference():
    # No difference, but initializations with luck of their own: at most 1 in 16 is "significant".
    rng = np.random.default_rng(0)
    tables = rng.normal(0, 1, (400, 6, 1)) + rng.normal(0, 0.2, (400, 6, 6))
    crossed = np.mean([crossed_permutation_test(table) <= 0.05 for table in tables])
    assert crossed < 0.07


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    for call in (
        lambda: one_way([[1.0, 2.0], [3.0, 4.0]]),
        lambda: seeds_needed(0.1, 0.2, paired=False),
    ):
        with pytest.raises(MissingExtraError, match=r"scipy.*secondary-learners\[trials\]"):
            call()
