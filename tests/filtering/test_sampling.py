"""Scores as an order: what is drawn how often, and order files."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.filtering.sampling import ScoreSampler, read_order, write_order


def test_draws_without_replacement_in_proportion():
    scores, temperature = [0.0, 1.0, 2.0], 1.5
    sampler = ScoreSampler(scores, count=2, temperature=temperature, seed=4)
    counts: Counter[tuple[int, ...]] = Counter()
    for epoch in range(6000):
        sampler.set_epoch(epoch)
        counts[tuple(sampler)] += 1
    weights = [math.exp(score / temperature) for score in scores]
    for first, second in permutations(range(3), 2):
        expected = weights[first] / sum(weights)
        expected *= weights[second] / (sum(weights) - weights[first])
        assert counts[first, second] / 6000 == pytest.approx(expected, abs=0.025)


def test_draws_depend_on_seed_and_epoch_alone():
    scores = np.random.default_rng(0).normal(size=40)
    first, again, other = ScoreSampler(scores), ScoreSampler(scores), ScoreSampler(scores, seed=1)
    assert list(first) == list(first) == list(again) != list(other)
    assert sorted(first) == list(range(40)) == list(range(len(first)))
    first.set_epoch(1)
    assert list(first) != list(again)
    again.set_epoch(1)
    assert list(first) == list(again)
    sorts = ScoreSampler(scores, temperature=1e-9)
    assert list(sorts) == list(ScoreSampler(scores, order="descending"))


def test_sorts_and_takes_the_first():
    scores = torch.tensor([0.5, 2.0, -1.0, 0.5])
    assert list(ScoreSampler(scores, order="ascending")) == [2, 0, 3, 1]
    assert list(ScoreSampler(scores, order="descending")) == [1, 0, 3, 2]
    loader = DataLoader(
        list("abcd"), batch_size=2, sampler=ScoreSampler(scores, order="descending", count=3)
    )
    assert list(loader) == [["b", "a"], ["d"]]
    assert len(loader) == 2


def test_an_order_file_is_followed(tmp_path):
    path = tmp_path / "order.txt"
    write_order(path, np.array([0.5, 2.0, -1.0, 0.5]), "ascending")
    assert path.read_text() == "2\n0\n3\n1\n"
    assert read_order(path).tolist() == [2, 0, 3, 1]
    sampler = ScoreSampler.from_order(path)
    sampler.set_epoch(5)
    assert list(sampler) == [2, 0, 3, 1]
    assert list(ScoreSampler.from_order([7, 3])) == [7, 3]
    assert len(ScoreSampler.from_order([7, 3])) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("1\n-2\n", "line 2 is '-2'"), ("0\n1\n0\n", "line 3 repeats row 0"), (None, "No such file")],
)
def test_what_is_not_an_order_file_is_refused(tmp_path, text, message):
    path = tmp_path / "order.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SecondaryLearnersError, match=message):
        ScoreSampler.from_order(path)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([0.0, math.nan], {}, "finite numbers"),
        ([[0.0]], {}, r"shape \[1, 1\]"),
        ([0.0], {"count": 2}, "count is 2, of 1 examples"),
        ([0.0], {"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_values_out_of_range_are_refused(scores, options, message):
    with pytest.raises(SecondaryLearnersError, match=message):
        ScoreSampler(scores, **options)


def test_another_order_is_refused():
    with pytest.raises(UnknownNameError, match="descending"):
        ScoreSampler([0.0], order="descend")
