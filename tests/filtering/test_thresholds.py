from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.filtering.thresholds import (
    Constant,
    Quantile,
    RecentScores,
    Shifting,
    Soft,
    parse_threshold,
)

finite = st.floats(-1e6, 1e6)
hard = st.one_of(
    st.builds(Constant, finite),
    st.builds(Shifting, finite, finite, st.integers(0, 10**6)),
    st.builds(Quantile, st.floats(0, 1, exclude_min=True)),
)


@settings(deadline=None)
@given(st.one_of(hard, st.builds(Soft, hard, st.floats(1e-6, 1e6), st.integers())))
def test_text_reads_back_as_the_same_threshold(threshold):
    assert parse_threshold(str(threshold)) == threshold


def test_labels_are_short():
    assert str(Constant(1.0)) == "constant:1"
    assert str(Shifting()) == "shifting:1,-1,10"
    assert str(Quantile(0.3)) == "quantile:0.3"
    assert parse_threshold(" -0.5 ") == Constant(-0.5)
    assert str(Soft(Quantile(0.3), 0.5, 7)) == "soft:0.5,7:quantile:0.3"
    assert parse_threshold("soft:2:-1") == Soft(Constant(-1.0), 2.0)


@pytest.mark.parametrize(
    "text", ["", "high", "shifting:1", "shifting:1,-1,2.5", "quantil:0.3", "soft:1", "soft:x:1"]
)
def test_unreadable_text_names_the_value_and_examples(text):
    with pytest.raises(UnknownNameError, match=r"quantile:0\.3|constant:1|shifting:1,-1,10"):
        parse_threshold(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(math.nan),
        lambda: Shifting(math.inf),
        lambda: Shifting(after=-1),
        lambda: Quantile(0.0),
        lambda: Quantile(1.5),
        lambda: parse_threshold("quantile:30"),
        lambda: parse_threshold("nan"),
        lambda: Soft(Constant(0.0), 0.0),
        lambda: Soft(Constant(0.0), math.inf),
        lambda: Soft(Soft(Constant(0.0))),
        lambda: parse_threshold("soft:-1:1"),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(SecondaryLearnersError, match="Try one like"):
        make()


def test_shifting_ends_after_its_batches():
    threshold, recent = Shifting(1.0, -1.0, 3), RecentScores(lambda q: q)
    assert [threshold.at(step, recent) for step in range(5)] == [1, 1, 1, -1, -1]


@settings(deadline=None)
@given(st.lists(finite, min_size=5, max_size=60), st.floats(0, 1))
def test_quantiles_are_those_of_the_last_scores(scores, q):
    recent = RecentScores(lambda q: 0.0, size=20, enough=5)
    for score in scores:
        recent.add(score)
    assert len(recent) == min(20, len(scores))
    expected = np.quantile(scores[-20:], q)
    assert recent.quantile(q) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_calibration_answers_until_enough_scores_were_seen():
    recent = RecentScores(lambda q: 100 * q)
    for score in range(255):
        recent.add(float(score))
    assert recent.quantile(0.7) == 70
    recent.add(255.0)
    assert recent.quantile(0.5) == 127.5


def noises(threshold: Soft, count: int) -> np.ndarray:
    return np.array([threshold.noise(np.array([place, 7])) for place in range(count)])


@pytest.mark.parametrize("temperature", [0.25, 2.0])
def test_soft_keeps_with_a_probability_that_grows_with_the_score(temperature):
    drawn = noises(Soft(Constant(0.0), temperature, seed=3), 20_000)
    for score in (-2.0, -0.5, 0.0, 0.5, 2.0):
        expected = 1 / (1 + math.exp(-score / temperature))
        assert (score + drawn >= 0).mean() == pytest.approx(expected, abs=0.012)


def test_soft_draws_depend_on_seed_and_tokens_alone():
    threshold = Soft(Constant(0.0), 0.5, seed=3)
    first = noises(threshold, 50)
    assert (noises(Soft(Quantile(0.3), 0.5, seed=3), 50) == first).all()
    assert (noises(Soft(Constant(0.0), 0.5, seed=4), 50) != first).all()
    assert np.allclose(noises(Soft(Constant(0.0), 1.0, seed=3), 50), 2 * first)
    # Written down, so that a resumed run on another machine or version keeps the same examples.
    assert threshold.noise(np.array([5, 6], np.int32)) == pytest.approx(
        0.9931484226355339, abs=1e-9
    )
    assert threshold.noise(np.array([5, 6])[::1]) == threshold.noise(np.array([6, 5])[::-1])
    assert Constant(0.0).noise(np.array([5, 6])) == 0.0
