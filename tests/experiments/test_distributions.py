from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.experiments.distributions import (
    f_tail,
    incomplete_beta,
    t_power,
    t_quantile,
    t_tail,
)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.fractions(0, 1, max_denominator=64))
def test_incomplete_beta_is_the_binomial_tail(a, b, x):
    # DLMF 8.17.5, in exact fractions.
    n = a + b - 1
    exact = sum(
        (Fraction(math.comb(n, k)) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1)),
        Fraction(0),
    )
    assert incomplete_beta(a, b, float(x)) == pytest.approx(float(exact), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("x", [1e-9, 0.1, 0.5, 0.9, 1 - 1e-9])
def test_incomplete_beta_of_halves_is_the_arcsine(x):
    assert incomplete_beta(0.5, 0.5, x) == pytest.approx(
        2 / math.pi * math.asin(math.sqrt(x)), rel=1e-10
    )


@pytest.mark.parametrize(("a", "b", "x"), [(0, 1, 0.5), (1, -1, 0.5), (1, 1, 1.5)])
def test_incomplete_beta_refuses_what_it_is_not_defined_for(a, b, x):
    with pytest.raises(ValueError, match="needs a, b > 0"):
        incomplete_beta(a, b, x)


@given(st.floats(0, 1e6))
def test_t_tails_in_closed_form(value):
    assert t_tail(value, 1) == pytest.approx(1 - 2 / math.pi * math.atan(value), rel=1e-7)
    root = math.sqrt(2 + value * value)
    assert t_tail(value, 2) == pytest.approx(2 / (root * (root + value)), rel=1e-9)


def test_f_and_t_against_printed_tables():
    # Critical values of F at 5 % and of t at 5 % two-sided, to the digits of the tables.
    for value, between, within in [(4.965, 1, 10), (3.885, 2, 12), (2.711, 5, 20), (161.45, 1, 1)]:
        assert f_tail(value, between, within) == pytest.approx(0.05, abs=1e-4)
    for value, freedom in [(12.706, 1), (2.571, 5), (2.228, 10), (2.042, 30), (1.980, 120)]:
        assert t_quantile(0.05, freedom) == pytest.approx(value, abs=5e-4)
    assert f_tail(0, 3, 4) == 1
    assert f_tail(math.inf, 3, 4) == 0
    assert t_tail(t_quantile(0.013, 7), 7) == pytest.approx(0.013, rel=1e-10)


def test_tails_and_power_against_scipy():
    # stats.f.sf and stats.nct of scipy 1.17.
    for arguments, value in [
        ((3.2, 4, 37), 0.023606733513331323),
        ((29.26, 1, 48), 1.974705955682936e-06),
        ((0.4, 7, 3), 0.8564905437210608),
        ((150.0, 24, 600), 3.0084993751027937e-235),
    ]:
        assert f_tail(*arguments) == pytest.approx(value, rel=1e-11)
    for arguments, value in [
        ((2.5, 9, 0.05), 0.6061383742015279),
        ((1.0, 1, 0.05), 0.07298889446966995),
        ((3.3, 48, 0.01), 0.7289430986000314),
    ]:
        assert t_power(*arguments) == pytest.approx(value, abs=1e-9)
    assert t_power(0.0, 12, 0.05) == pytest.approx(0.05, rel=1e-9)
