from __future__ import annotations

import json

import numpy as np
import pytest

from secondary_learners.errors import TrialsError
from secondary_learners.experiments.trials.best import expected_best
from secondary_learners.experiments.trials.plan import plan
from secondary_learners.experiments.trials.stopping import Curves, expected_stopped
from secondary_learners.experiments.trials.table import Trial
from trials_helpers import sweep, trial


def blind(seed: int, count: int) -> list[Trial]:
    """Trials whose scores on the way say nothing of the last one."""
    rng = np.random.default_rng(seed)
    early = np.sort(rng.normal(0.5, 0.001, (count, 4)), axis=1)
    last = rng.normal(0.65, 0.03, count)
    return [
        trial("blind", place, 0, [*early[place].tolist(), float(last[place])])
        for place in range(count)
    ]


def test_early_signs_are_used_and_the_gain_is_real():
    truth = Curves.of(sweep("x", 0, inits=20, orders=20))
    found = plan(sweep("x", 0, inits=7, orders=7), 5, resamples=60)
    assert found.setting.stops and found.setting == found.candidate
    assert found.setting.cost <= 5 + 1e-9
    assert found.gain > 0 and found.wins > 0.9
    mean, _ = expected_stopped(truth, found.setting)
    assert mean > expected_best(truth.full, 5).mean
    assert found.expected == pytest.approx(mean, abs=3 * found.error)
    assert json.loads(json.dumps(found.to_dict()))["cost"] == found.setting.cost


def test_without_early_signs_nothing_is_stopped():
    chosen = [plan(blind(seed, 30), 5, resamples=40) for seed in range(8)]
    assert sum(found.setting.stops for found in chosen) <= 2
    calm = next(found for found in chosen if not found.setting.stops)
    assert str(calm.setting) == "run 5 to the end"
    assert calm.expected == calm.plain
    assert any("cannot tell" in warning for warning in calm.warnings)


def test_a_small_pilot_is_called_one():
    found = plan(sweep("x", 1, inits=2, orders=4), 10, resamples=20)
    assert found.extrapolated
    words = " ".join(found.warnings)
    assert "8 trials are a small pilot" in words
    assert "the pilot has 8, which cannot show a score above its own best" in words


def test_the_same_seed_gives_the_same_plan():
    pilot = sweep("x", 2)
    assert plan(pilot, 4, seed=3, resamples=20) == plan(pilot, 4, seed=3, resamples=20)


def test_what_cannot_be_planned_is_refused():
    pilot = sweep("x", 1)
    with pytest.raises(TrialsError, match="a pilot of 4 finished trials"):
        plan(pilot[:4], 3)
    with pytest.raises(TrialsError, match="buys nothing"):
        plan(pilot, 0)
    with pytest.raises(TrialsError, match="column `fraction`"):
        plan([Trial("x", n, 0, 0.5) for n in range(6)], 3)
    late = [trial("x", n, 0, [0.4, 0.5]) for n in range(6)]
    with pytest.raises(TrialsError, match="nothing to stop early"):
        plan(late, 1)


def test_trials_that_are_all_alike_say_so():
    found = plan([trial("x", n, 0, [0.1, 0.2, 0.3, 0.4]) for n in range(20)], 4, resamples=8)
    assert not found.setting.stops
    assert any("all trials of the pilot score the same" in warning for warning in found.warnings)
