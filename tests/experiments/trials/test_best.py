from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.errors import TrialsError
from secondary_learners.experiments.trials.best import best_weights, expected_best

values = st.lists(st.integers(-50, 50), min_size=1, max_size=7)


def moments(best: list[int]) -> tuple[float, float]:
    mean = Fraction(sum(best), len(best))
    variance = sum((value - mean) ** 2 for value in best) / len(best)
    return float(mean), math.sqrt(variance)


@settings(deadline=None)
@given(values, st.data())
def test_without_replacement_is_the_mean_over_all_choices(scores, data):
    budget = data.draw(st.integers(1, len(scores)))
    mean, deviation = moments([max(choice) for choice in combinations(scores, budget)])
    found = expected_best(scores, budget)
    assert found.mean == pytest.approx(mean, rel=1e-12, abs=1e-12)
    assert found.deviation == pytest.approx(deviation, rel=1e-9, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=5), st.integers(1, 5))
def test_with_replacement_is_the_mean_over_all_draws(scores, budget):
    mean, deviation = moments([max(draw) for draw in product(scores, repeat=budget)])
    found = expected_best(scores, budget, replacement=True)
    assert found.mean == pytest.approx(mean, rel=1e-12, abs=1e-12)
    assert found.deviation == pytest.approx(deviation, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("trials", [1, 2, 625, 5000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_weights_are_ratios_of_binomials(trials, share):
    budget = max(1, round(share * trials))
    weights = best_weights(trials, budget)
    total = math.comb(trials, budget)
    for place in {0, trials // 3, trials // 2, max(0, trials - 3), trials - 1}:
        exact = Fraction(math.comb(place, budget - 1), total)
        assert weights[place] == pytest.approx(float(exact), rel=1e-9, abs=1e-290)
    assert weights.sum() == pytest.approx(1, rel=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40))
def test_more_trials_are_never_worse_and_end_at_the_best(scores):
    best = [expected_best(scores, budget).mean for budget in range(1, len(scores) + 1)]
    assert all(after >= before - 1e-12 for before, after in pairwise(best))
    assert best[0] == pytest.approx(np.mean(scores), abs=1e-12)
    assert best[-1] == pytest.approx(max(scores), abs=1e-12)


def test_without_replacement_is_unbiased_and_with_it_is_not():
    # Trials uniform in (0, 1): the best of n is n / (n + 1) on average.
    rng = np.random.default_rng(0)
    sweeps = rng.random((4000, 8))
    exact = 5 / 6
    plain = [expected_best(sweep, 5).mean for sweep in sweeps]
    drawn = [expected_best(sweep, 5, replacement=True).mean for sweep in sweeps]
    assert np.mean(plain) == pytest.approx(exact, abs=4 * np.std(plain) / math.sqrt(4000))
    assert np.mean(drawn) < exact - 0.02


@pytest.mark.parametrize(("trials", "budget"), [(3, 4), (3, 0), (0, 1)])
def test_what_the_trials_cannot_tell_is_refused(trials, budget):
    with pytest.raises(TrialsError, match=f"the best of {budget} cannot be told from {trials}"):
        expected_best([0.5] * trials, budget)
