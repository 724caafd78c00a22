"""The paper's early stopping as a pruner for Optuna: start t, look at fraction f, finish p."""

from __future__ import annotations

from collections.abc import Mapping

import optuna

__all__ = ["StartLookFinish", "verdict"]


def verdict(looks: Mapping[int, float], number: int, start: int, finish: int) -> str:
    """Whether a trial will "finish" or "stop", or has to "wait" for others to reach the look.

    looks: the best score up to the look of the trials that reached it, by their numbers; `number`
    is one of them. Equal scores are ranked by number, lower first. What is said of a trial never
    changes as others arrive, and once all `start` are there the best `finish` of them finish.
    """
    own = looks[number]
    better = sum(value > own or (value == own and other < number) for other, value in looks.items())
    if better >= finish:
        return "stop"
    return "finish" if better + start - len(looks) < finish else "wait"


class StartLookFinish(optuna.pruners.BasePruner):
    """Stops a trial that cannot be among the best `finish` of `start`, judged at step `look`.

    A trial that is not yet decided, since others have not come so far, should be left there until
    `settled`; one that is simply run on costs what it costs, and may still be stopped later.
    """

    def __init__(self, start: int, look: int, finish: int) -> None:
        self.start, self.look, self.finish = start, look, finish

    def _verdict(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> str:
        looks = {
            other.number: max(v for step, v in other.intermediate_values.items() if step <= limit)
            for other in study.get_trials(deepcopy=False)
            if (limit := self.look) in other.intermediate_values
        }
        if trial.number not in looks:
            return "wait"
        return verdict(looks, trial.number, self.start, self.finish)

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return self._verdict(study, trial) == "stop"

    def settled(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether `trial` reached the look and is certain to be among the best."""
        return self._verdict(study, trial) == "finish"
