"""The trials of one task and arm, in Optuna's storage.

A study keeps what it was begun with, and goes on from any write that a kill left it at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondary_learners.errors import TrialsError
from secondary_learners.experiments.runs import differences
from secondary_learners.experiments.trials.stopping import Setting
from secondary_learners.experiments.trials.table import Trial
from secondary_learners.experiments.trials.training import (
    Evaluation,
    Job,
    KnownScores,
    TrialSettings,
    Work,
    evaluation_steps,
)
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.tasks.encoding import EncodedTask

if TYPE_CHECKING:
    import optuna

    from secondary_learners.experiments.trials.pruning import StartLookFinish

__all__ = ["MOST_SEED", "Study"]

MOST_SEED = 2**31 - 1
_FORMAT = 1
_ORDER = 0  # seeds the order in which pairs of seeds are started, with early stopping


class Study:
    """The trials of one task and arm.

    A trial is waiting, running (in a process, or left at the look or by a kill), complete or
    pruned; only the last two are finished. Its curve is a user attribute, a dict by step.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: optuna.storages.RDBStorage,
        task: EncodedTask,
        arm: str,
        settings: TrialSettings,
        pruner: StartLookFinish | None,
        states: Path,
    ) -> None:
        self.task, self.arm = task.name, arm
        self._study, self._storage, self._states = study, storage, states
        self._pruner = pruner
        self._steps = settings.steps(len(task.train))
        self._busy: set[int] = set()
        self._handles: dict[int, optuna.trial.Trial] = {}
        self._curves: dict[int, dict[str, Any]] = {}
        self._reported: dict[int, set[int]] = {}
        for trial in self.finished():  # a kill may have come before this was deleted
            self._state(trial.number).unlink(missing_ok=True)

    @classmethod
    def open(
        cls,
        storage: optuna.storages.RDBStorage,
        work: Work,
        task: EncodedTask,
        arm: str,
        early_stop: Setting | None,
        seeds: tuple[Sequence[int], Sequence[int]],
    ) -> Study:
        """The study of this task and arm in `storage`, with a trial waiting for each new pair.

        Raises TrialsError for a study begun with other settings, and for an early stopping that
        does not fit.
        """
        import optuna

        from secondary_learners.experiments.trials.pruning import StartLookFinish

        grid = [(init, order) for init in seeds[0] for order in seeds[1]]
        identity = _identity(work, task, arm)
        pruner = None
        if early_stop is not None:
            if early_stop.start > len(grid):
                raise TrialsError(
                    f"{early_stop}: {len(seeds[0])} × {len(seeds[1])} seeds make only {len(grid)} "
                    "trials. Give more seeds, or start fewer."
                )
            look = _look(work.settings, len(task.train), early_stop)
            if early_stop.stops:
                pruner = StartLookFinish(early_stop.start, look, early_stop.finish)
            order = np.random.default_rng(_ORDER).permutation(len(grid))
            grid = [grid[place] for place in order[: early_stop.start]]
            identity["early stopping"] = [early_stop.start, look, early_stop.finish]
            identity["seeds"] = sorted(map(list, grid))
        study = optuna.create_study(
            storage=storage,
            study_name=f"{task.name}, {arm}",
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: all trials are enqueued
            pruner=pruner or optuna.pruners.NopPruner(),
        )
        before = study.user_attrs.get("identity")
        if before is None:
            study.set_user_attr("identity", identity)
            study.set_user_attr("settings", asdict(work.settings))
            study.set_user_attr("floor", task.floor)
        elif differing := differences(before, identity):
            raise TrialsError(
                f"the folder holds the trials {study.study_name} of another sweep: "
                f"{'; '.join(differing)}. Name another folder, or delete this one to start afresh."
            )
        names = ("init_seed", "order_seed")
        held = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
        there = {tuple(attributes[name] for name in names) for attributes in held}
        for pair in grid:
            if pair not in there:
                values = dict(zip(names, map(int, pair), strict=True))
                study.enqueue_trial(values, user_attrs=values)
        states = Path(storage.url.removeprefix("sqlite:///")).parent / "states"
        return cls(study, storage, task, arm, work.settings, pruner, states)

    @property
    def total(self) -> int:
        return len(self._study.get_trials(deepcopy=False))

    @property
    def setting(self) -> Setting | None:
        pruner = self._pruner
        if pruner is None:
            return None
        return Setting(pruner.start, round(pruner.look / self._steps, 6), pruner.finish)

    def finished(self) -> list[optuna.trial.FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.is_finished()]

    def next_job(self) -> Job | None:
        """The next thing to do: a trial that was left, or a new one; None for now, or for good."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in self._busy and (job := self._go_on(trial)):
                return job
        if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return None
        handle = self._study.ask()
        return self._begin(handle)

    def _go_on(self, trial: optuna.trial.FrozenTrial) -> Job | None:
        if trial.number not in self._handles:  # left by a kill
            import optuna

            study = self._storage.get_study_id_from_name(self._study.study_name)
            place = self._storage.get_trial_id_from_study_id_trial_number(study, trial.number)
            return self._begin(optuna.trial.Trial(self._study, place))
        assert self._pruner is not None  # no other trial stops on its way
        if self._pruner.settled(self._study, trial):
            return self._job(trial.number, trial.user_attrs, self._steps)
        if self._pruner.prune(self._study, trial):
            self._end(trial.number, pruned=True)
        return None

    def _begin(self, handle: optuna.trial.Trial) -> Job | None:
        """Start a trial, or take up one that a kill left: at the look, if it came that far."""
        number, attributes = handle.number, handle.user_attrs
        for name in ("init_seed", "order_seed"):
            handle.suggest_int(name, 0, MOST_SEED)  # as enqueued
        self._handles[number] = handle
        curve = self._curves[number] = dict(attributes.get("curve", {}))
        self._reported[number] = set(self._find(number).intermediate_values)
        for step, point in curve.items():
            self._report(number, int(step), point["score"])
        if self._pruner is None:
            return self._job(number, attributes, self._steps)
        if str(self._pruner.look) not in curve:
            return self._job(number, attributes, self._pruner.look)
        return self._go_on(self._find(number))

    def _find(self, number: int) -> optuna.trial.FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _report(self, number: int, step: int, value: float) -> None:
        if step not in self._reported[number]:  # a trial begun anew gives the same values again
            self._handles[number].report(value, step)
            self._reported[number].add(step)

    def _job(self, number: int, attributes: dict[str, Any], until: int) -> Job:
        self._busy.add(number)
        seeds = attributes["init_seed"], attributes["order_seed"]
        job = Job(self.task, self.arm, number, *seeds, until)
        if self._pruner is None:
            return job
        state = self._state(number)
        if until == self._pruner.look:
            return replace(job, keep=state)
        # Without the state, which only someone else can have deleted, from the start.
        return replace(job, begin=self._pruner.look, resume=state) if state.exists() else job

    def _state(self, number: int) -> Path:
        name = sha256_bytes(self._study.study_name.encode())[:12]
        return self._states / f"{name}-{number}.safetensors"

    def keep(self, job: Job, evaluation: Evaluation | None) -> None:
        """Store an evaluation, or (None) the end of the job."""
        number, curve = job.number, self._curves[job.number]
        if evaluation is not None:
            if job.begin:  # its seconds are those since the look
                before = curve[str(job.begin)]["seconds"]
                evaluation = replace(evaluation, seconds=before + evaluation.seconds)
            curve[str(evaluation.step)] = {
                name: value for name, value in asdict(evaluation).items() if name != "step"
            }
            self._handles[number].set_user_attr("curve", curve)
            self._report(number, evaluation.step, evaluation.score)
            return
        if str(self._steps) in curve:
            self._end(number, pruned=False)
        self._busy.discard(number)

    def _end(self, number: int, *, pruned: bool) -> None:
        from optuna.trial import TrialState

        best = max(point["score"] for point in self._curves[number].values())
        if pruned:
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, best, state=TrialState.COMPLETE)
        self._state(number).unlink(missing_ok=True)

    def trials(self) -> list[Trial]:
        """The finished trials, for the table."""
        return [self._trial(trial.user_attrs) for trial in self.finished()]

    def _trial(self, attributes: dict[str, Any]) -> Trial:
        points = sorted((int(step), point) for step, point in attributes["curve"].items())
        scores = tuple(point["score"] for _, point in points)
        last = points[-1][1]
        return Trial(
            self.task,
            attributes["init_seed"],
            attributes["order_seed"],
            max(scores),
            self.arm,
            tuple(round(step / self._steps, 6) for step, _ in points),
            scores,
            bool(last["broken"] or last["constant"]),
        )

    def curves(self) -> list[dict[str, Any]]:
        return [
            {"task": self.task, "arm": self.arm, **trial.user_attrs} for trial in self.finished()
        ]


def _look(settings: TrialSettings, examples: int, setting: Setting) -> int:
    """The evaluation nearest to the setting's fraction of the training."""
    steps = settings.steps(examples)
    points = evaluation_steps(settings, examples)
    look = min(points, key=lambda step: round(abs(step / steps - setting.fraction), 9))
    if setting.stops and look == steps:
        raise TrialsError(
            f"{setting}: of the {len(points)} evaluations none before the end is near that. Look "
            "earlier, or evaluate more often."
        )
    return look


def _identity(work: Work, task: EncodedTask, arm: str) -> dict[str, Any]:
    """Everything that a trial's figures depend on, but for its seeds."""
    filter_ = work.filters.get((task.name, arm))
    return {
        "format": _FORMAT,
        "task": task.digest,
        "base model": work.fingerprint,
        "filter": None if filter_ is None else _digest(filter_[0]),
        "threshold": None if filter_ is None else str(filter_[1]),
        "device": work.device,
        **asdict(work.settings),
    }


def _digest(scores: KnownScores | None) -> str:
    if scores is None:
        return "random"
    return sha256_bytes(json_bytes([scores.scores.tolist(), *scores.quantiles]))
