from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.errors import TrialsError
from secondary_learners.experiments.trials.best import expected_best
from secondary_learners.experiments.trials.stopping import (
    STARTED_MOST,
    Curves,
    Setting,
    best_setting,
    expected_stopped,
    paper_setting,
    settings_within,
    value_setting,
)
from secondary_learners.experiments.trials.table import Trial

FRACTIONS = np.array([0.25, 0.5, 1.0])


def distinct(seed: int, count: int = 7) -> Curves:
    scores = np.random.default_rng(seed).random((count, 3))
    return Curves(FRACTIONS, np.maximum.accumulate(scores, axis=1))


def run(so_far: list[list[float]], look: int, start: int, finish: int) -> list[float]:
    """The rule as it is told, for every choice of `start` trials."""
    results = []
    for chosen in combinations(so_far, start):
        ranked = sorted(chosen, key=lambda curve: curve[look], reverse=True)
        finished = [curve[-1] for curve in ranked[:finish]]
        stopped = [curve[look] for curve in ranked[finish:]]
        results.append(max(finished + stopped))
    return results


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(0, 6), st.sampled_from([0, 1]))
def test_the_expectation_is_that_of_every_choice(seed, start, finish, look):
    trials = distinct(seed)
    finish = min(finish, start)
    best = run(trials.so_far.tolist(), look, start, finish)
    mean, deviation = expected_stopped(trials, Setting(start, float(FRACTIONS[look]), finish))
    assert mean == pytest.approx(np.mean(best), abs=1e-12)
    assert deviation == pytest.approx(np.std(best), abs=1e-6)


def test_sampling_agrees_on_many_trials():
    trials, setting = distinct(3, count=80), Setting(12, 0.5, 4)
    rng = np.random.default_rng(0)
    best = []
    for _ in range(4000):
        drawn = trials.so_far[rng.permutation(80)[:12]]
        ranked = drawn[np.argsort(-drawn[:, 1])]
        best.append(ranked[:4, 2].max())
    mean, deviation = expected_stopped(trials, setting)
    assert mean == pytest.approx(np.mean(best), abs=4 * np.std(best) / np.sqrt(4000))
    assert deviation == pytest.approx(np.std(best), rel=0.1)


def test_ties_at_the_look_are_broken_at_random():
    # All alike when looked at, so that the ones finished are any: the table's order tells nothing.
    so_far = np.array([[0.5, 0.5, 0.5 + place / 10] for place in range(6)])
    found, _ = expected_stopped(Curves(FRACTIONS, so_far), Setting(6, 0.5, 2), shuffles=400)
    assert found == pytest.approx(expected_best(so_far[:, 2], 2).mean, abs=0.02)


def test_a_look_that_tells_all_costs_nothing_in_quality():
    scores = np.linspace(0.1, 0.9, 20)
    curves = Curves(FRACTIONS, np.stack([scores / 10, scores / 5, scores], axis=1))
    mean, deviation = expected_stopped(curves, Setting(10, 0.25, 1))
    best = expected_best(scores, 10)
    assert (mean, deviation) == (pytest.approx(best.mean), pytest.approx(best.deviation))


@given(st.integers(1, 12), st.booleans())
def test_settings_spend_the_budget(budget, finish_none):
    found = list(settings_within(FRACTIONS, budget, finish_none=finish_none))
    assert len(set(found)) == len(found)
    for setting in found:
        assert setting.stops and setting.cost <= budget + 1e-9
        more = Setting(setting.start + 1, setting.fraction, setting.finish)
        assert more.cost > budget or setting.start == STARTED_MOST * budget
        assert setting.finish >= (0 if finish_none else 1)


def test_the_paper_s_cost():
    # Its best setting on MRPC for ten full runs.
    assert Setting(24, 0.3, 4).cost == pytest.approx(10)
    assert str(Setting(24, 0.3, 4)) == "start 24, look at 30%, finish 4"
    assert str(Setting(3, 1.0, 3)) == "run 3 to the end"


def test_the_best_setting_is_the_best_of_all(table):
    trials = Curves.of(table.of("rte"))
    found = best_setting(trials, 3)
    drawn_from = trials.repeated(3)
    values = [expected_stopped(drawn_from, s)[0] for s in settings_within(trials.fractions, 3)]
    assert found.mean == pytest.approx(max(values))
    assert found.gain > 0.01  # the diverged fifth can be seen early
    assert found.plain == expected_best(drawn_from.full, 3)


def test_trials_are_repeated_only_where_they_are_too_few():
    assert len(distinct(0, count=80).repeated(10)) == 80
    few = distinct(0).repeated(10)
    assert len(few) == 84 and len(np.unique(few.full)) == 7


@pytest.mark.parametrize(("start", "fraction", "finish"), [(2, 0.5, 3), (0, 0.5, 0), (2, 0.0, 1)])
def test_impossible_settings_are_refused(start, fraction, finish):
    with pytest.raises(TrialsError, match="not early stopping"):
        Setting(start, fraction, finish)


def test_what_the_table_lacks_is_named():
    with pytest.raises(TrialsError, match="only 7 trials"):
        expected_stopped(distinct(0), Setting(8, 0.5, 1))
    with pytest.raises(TrialsError, match=r"no evaluation at fraction 0.3: there are 0.25, 0.5, 1"):
        expected_stopped(distinct(0), Setting(5, 0.3, 1))
    with pytest.raises(TrialsError, match="column `fraction`"):
        Curves.of([Trial("a", 0, 0, 1.0)])


def test_the_paper_s_advice_spends_the_budget_on_half_as_many():
    fractions = np.arange(1, 11) / 10
    assert paper_setting(fractions, 10) == Setting(30, 0.2, 5)
    assert not paper_setting(fractions, 1).stops
    assert paper_setting(np.array([1.0]), 7) == Setting(7, 1.0, 7)
    for budget in range(1, 31):
        assert paper_setting(fractions, budget).cost <= budget + 1e-9
    found = value_setting(distinct(0, 80), paper_setting(FRACTIONS, 4), 4)
    assert found.mean == expected_stopped(distinct(0, 80), found.setting)[0]
    assert found.gain == found.mean - expected_best(distinct(0, 80).full, 4).mean
