"""The probe set: texts of many kinds that every learner scores, so that learners compare. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["ProbeText", "agreement", "by_score", "probe_texts"]


@dataclass(frozen=True)
class ProbeText:
    """`name`: what kind of text it is."""

    name: str
    text: str


@cache
def probe_texts() -> tuple[ProbeText, ...]:
    data = (files("secondary_learners.server.pages") / "probe.toml").read_text(encoding="utf-8")
    return tuple(ProbeText(**row) for row in tomllib.loads(data)["text"])


def by_score(scores: Sequence[float]) -> list[tuple[ProbeText, float]]:
    """The texts with their scores, the highest first."""
    pairs = zip(probe_texts(), scores, strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


def agreement(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation of two learners' scores; 0 where either scores all alike."""
    one, other = _ranks(first), _ranks(second)
    middle = (len(one) + 1) / 2
    products = sum((a - middle) * (b - middle) for a, b in zip(one, other, strict=True))
    squares = [sum((rank - middle) ** 2 for rank in ranks) for ranks in (one, other)]
    return products / (squares[0] * squares[1]) ** 0.5 if all(squares) else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, begin = [0.0] * len(values), 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for place in order[begin:end]:
            ranks[place] = (begin + end + 1) / 2
        begin = end
    return ranks
