from __future__ import annotations

import numpy as np
import pytest

from secondary_learners.experiments.trials.stopping import Setting

optuna = pytest.importorskip("optuna")
from secondary_learners.experiments.trials.pruning import StartLookFinish, verdict  # noqa: E402


def reference(looks: list[float], finish: int) -> set[int]:
    """The best `finish` of all, the earlier of two equals first."""
    return set(sorted(range(len(looks)), key=lambda number: (-looks[number], number))[:finish])


@pytest.mark.parametrize("finish", [0, 1, 3, 7])
def test_the_rule_against_sorting_in_whatever_order_trials_arrive(finish: int) -> None:
    rng = np.random.default_rng(finish)
    for _ in range(50):
        looks = rng.integers(0, 4, 7).astype(float).tolist()  # with ties
        said: dict[int, str] = {}
        there: dict[int, float] = {}
        for number in rng.permutation(7).tolist():
            there[number] = looks[number]
            for other in there:
                word = verdict(there, other, 7, finish)
                assert said.get(other, "wait") in ("wait", word)  # a word is kept
                said[other] = word
        assert {n for n, word in said.items() if word == "finish"} == reference(looks, finish)
        assert set(said.values()) <= {"finish", "stop"}


def test_in_a_study_trials_are_judged_by_their_best_up_to_the_look() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", pruner=StartLookFinish(3, 2, 1))
    trials = [study.ask() for _ in range(3)]
    for trial, scores in zip(trials, [(0.9, 0.1), (0.2, 0.5), (0.3, 0.4)], strict=True):
        assert not trial.should_prune()
        for step, score in enumerate(scores, 1):
            trial.report(score, step)
    trials[1].report(0.99, 3)  # after the look
    assert [trial.should_prune() for trial in trials] == [False, True, True]
    frozen = study.get_trials()
    pruner = study.pruner
    assert isinstance(pruner, StartLookFinish)
    assert [pruner.settled(study, trial) for trial in frozen] == [True, False, False]
    assert Setting(3, 0.5, 1).cost == 2.0
