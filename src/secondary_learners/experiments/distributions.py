"""Tails of the F and t distributions, to about ten digits, and the power of a t test."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["f_tail", "incomplete_beta", "t_power", "t_quantile", "t_tail"]

_TINY = 1e-300


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), for a, b > 0 and 0 <= x <= 1."""
    if not (a > 0 and b > 0 and 0 <= x <= 1):
        raise ValueError(f"I_x(a, b) needs a, b > 0 and 0 <= x <= 1, not {a}, {b} and {x}")
    if x in (0, 1):
        return float(x)
    if x > (a + 1) / (a + b + 2):  # where the fraction below converges slowly
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    return front * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b), by Lentz's method (DLMF 8.17.22)."""
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def f_tail(value: float, between: float, within: float) -> float:
    """P(F >= value) with so many degrees of freedom between and within the groups."""
    if math.isinf(value):
        return 0.0
    scaled = between * max(value, 0.0)
    if scaled < within:  # from the other side, where a small value is not lost beside `within`
        return 1 - incomplete_beta(between / 2, within / 2, scaled / (within + scaled))
    return incomplete_beta(within / 2, between / 2, within / (within + scaled))


def t_tail(value: float, freedom: float) -> float:
    """P(\\|T\\| >= \\|value\\|), two-sided."""
    return f_tail(value * value, 1, freedom)


def t_quantile(alpha: float, freedom: float) -> float:
    """The t with P(\\|T\\| >= t) = alpha, two-sided."""
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > alpha:
        low, high = high, high * 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > alpha else (low, middle)
    return (low + high) / 2


def t_power(effect: float, freedom: float, alpha: float) -> float:
    """The chance that a two-sided t test at `alpha` rejects, when T has this noncentrality.

    effect: the true difference over its standard error. The noncentral t is integrated over its
    estimated deviation s, a scaled chi variable: Simpson's rule on 2001 points, within 1e-6.
    """
    limit = t_quantile(alpha, freedom)
    width = 12 / math.sqrt(2 * freedom)
    s = np.linspace(max(0.0, 1 - width), 1 + width, 2001)
    with np.errstate(divide="ignore"):
        log_density = (freedom - 1) * np.log(s) if freedom > 1 else np.zeros_like(s)
    half = freedom / 2
    constant = math.log(2) + half * math.log(half) - math.lgamma(half)
    density = np.exp(constant + log_density - half * s * s)
    reject = [_normal(effect - limit * x) + _normal(-effect - limit * x) for x in s.tolist()]
    weights = np.ones_like(s)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float(np.sum(weights * density * np.array(reject)) * (s[1] - s[0]) / 3)


def _normal(value: float) -> float:
    return math.erfc(-value / math.sqrt(2)) / 2
