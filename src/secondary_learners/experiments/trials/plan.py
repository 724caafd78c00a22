"""How to spend a budget of full runs: t, f and p from a pilot, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from secondary_learners.errors import TrialsError
from secondary_learners.experiments.trials.stopping import (
    Curves,
    Setting,
    expected_stopped,
    settings_within,
)
from secondary_learners.experiments.trials.table import Trial

__all__ = ["Plan", "plan"]

_LEAST, _FEW = 5, 20
_RESAMPLES = 200
_SHORT_LIST = 100


@dataclass(frozen=True)
class Plan:
    """A recommendation for one task and arm.

    setting: what to do. expected: its expected best score, deviation: that of the best score from
        one such sweep to another, error: the standard error of `expected`, from resampling the
        pilot. plain: the expected best of the whole budget run to the end.
    gain, gain_error: of `candidate`, the best early-stopping setting of the pilot, over `plain`,
        less the optimism of having picked it on the pilot (`optimism`, already taken off). Where
        no gain is left, `setting` does not stop early.
    wins: the share of the resampled pilots in which `candidate` beats no early stopping, without
        regard to `optimism`.
    extrapolated: `candidate` starts more trials than the pilot has.
    warnings: why to trust this less.
    """

    task: str
    arm: str
    budget: int
    pilot: int
    setting: Setting
    expected: float
    deviation: float
    error: float
    plain: float
    candidate: Setting
    gain: float
    gain_error: float
    optimism: float
    wins: float
    extrapolated: bool
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "cost": self.setting.cost}


def plan(
    pilot: Sequence[Trial],
    budget: int,
    *,
    finish_none: bool = False,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Plan:
    """Recommend how to spend `budget` full runs, from finished trials of one task and arm.

    Every setting that the pilot's evaluations allow is valued by its expected best score over all
    draws from the pilot, repeated where it is too small (`Curves.repeated`). The best of many
    settings looks better than it is: choosing on one half of the pilot and valuing the choice on
    the other, many times over, says by how much.

    finish_none: also consider settings that finish no trial.
    Raises TrialsError for a budget below 1, below five trials, or without curves.
    """
    if budget < 1:
        raise TrialsError(f"a budget of {budget} full runs buys nothing. Give 1 or more.")
    if len(pilot) < _LEAST:
        raise TrialsError(
            f"a pilot of {len(pilot)} finished trials says nothing about the best of many. Run at "
            f"least {_LEAST}, better {_FEW}, each with its own pair of seeds."
        )
    known = Curves.of(pilot)
    none = Setting(budget, 1.0, budget)
    settings = [
        setting
        for setting in settings_within(known.fractions, budget, finish_none=finish_none)
        if setting.stops
    ]
    if not settings:
        raise TrialsError(
            f"with a budget of {budget} and evaluations after "
            f"{', '.join(f'{f:.0%}' for f in known.fractions)} of the training there is nothing to "
            "stop early. Raise the budget, or evaluate earlier."
        )

    def value(trials: Curves, setting: Setting) -> tuple[float, float]:
        return expected_stopped(trials.repeated(budget), setting, seed=seed, shuffles=1)

    def gain_of(trials: Curves, setting: Setting) -> float:
        return value(trials, setting)[0] - value(trials, none)[0]

    values = {setting: value(known, setting)[0] for setting in settings}
    ranked = sorted(settings, key=lambda setting: -values[setting])
    candidate, short = ranked[0], ranked[:_SHORT_LIST]
    plain = value(known, none)[0]

    rng = np.random.default_rng(seed)
    gains, expected, optimism = [], [], []
    for _ in range(resamples):
        drawn = known.draw(rng.integers(len(known), size=len(known)))
        expected.append(value(drawn, candidate)[0])
        gains.append(expected[-1] - value(drawn, none)[0])
    for _ in range(resamples // 4):
        first, second = map(known.draw, np.array_split(rng.permutation(len(known)), 2))
        for one, other in ((first, second), (second, first)):
            chosen = max(short, key=lambda setting: value(one, setting)[0])
            optimism.append(gain_of(one, chosen) - gain_of(other, chosen))
    # Optimism falls with the root of the pilot's size, and was measured on halves.
    too_good = max(0.0, float(np.mean(optimism)) / math.sqrt(2))
    gain = values[candidate] - plain - too_good
    gain_error = float(np.std(gains, ddof=1))

    setting = candidate if gain > 0 else none
    best_plan = Plan(
        task=pilot[0].task,
        arm=pilot[0].arm,
        budget=budget,
        pilot=len(known),
        setting=setting,
        expected=plain + max(gain, 0.0),
        deviation=value(known, setting)[1],
        error=float(np.std(expected, ddof=1)),
        plain=plain,
        candidate=candidate,
        gain=gain,
        gain_error=gain_error,
        optimism=too_good,
        wins=float(np.mean(np.array(gains) > 0)),
        extrapolated=candidate.start > len(known),
        warnings=(),
    )
    return replace(best_plan, warnings=_warnings(best_plan, known))


def _warnings(plan: Plan, known: Curves) -> tuple[str, ...]:
    words = []
    if plan.pilot < _FEW:
        words.append(
            f"{plan.pilot} trials are a small pilot: with {_FEW} or more the figures below would "
            "be steadier."
        )
    if plan.extrapolated:
        words.append(
            f"the setting starts {plan.candidate.start} trials and the pilot has {plan.pilot}, "
            "which cannot show a score above its own best: what is expected is too low."
        )
    if plan.gain <= 2 * plan.gain_error:
        words.append(
            f"the pilot cannot tell this from running {plan.budget} to the end: the gain is "
            f"{plan.gain:+.4f} ± {plan.gain_error:.4f}."
        )
    if np.ptp(known.full) == 0:
        words.append("all trials of the pilot score the same: any setting will do.")
    return tuple(words)
