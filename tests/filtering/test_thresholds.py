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
    parse_threshold,
)

finite = st.floats(-1e6, 1e6)


@settings(deadline=None)
@given(
    st.one_of(
        st.builds(Constant, finite),
        st.builds(Shifting, finite, finite, st.integers(0, 10**6)),
        st.builds(Quantile, st.floats(0, 1, exclude_min=True)),
    )
)
def test_text_reads_back_as_the_same_threshold(threshold):
    assert parse_threshold(str(threshold)) == threshold


def test_labels_are_short():
    assert str(Constant(1.0)) == "constant:1"
    assert str(Shifting()) == "shifting:1,-1,10"
    assert str(Quantile(0.3)) == "quantile:0.3"
    assert parse_threshold(" -0.5 ") == Constant(-0.5)


@pytest.mark.parametrize("text", ["", "high", "shifting:1", "shifting:1,-1,2.5", "quantil:0.3"])
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
