"""A sweep of trials over a grid of two seeds, kept in Optuna's storage and resumed from it.

One study for each task and arm, in one SQLite file: SQLite, since a kill in the midst of a write
rolls back, where a journal file would keep half a line. This process alone writes there; workers
only compute. The pairs of seeds are enqueued as waiting trials, and not drawn by Optuna's
GridSampler: that counts a killed trial as visited, gives a pair twice to processes that ask at the
same time, and cannot be extended by more seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondary_learners.errors import MissingExtraError, TrialsError
from secondary_learners.experiments.trials.stopping import Setting
from secondary_learners.experiments.trials.table import Trial, TrialsTable, write_table
from secondary_learners.experiments.trials.tasks import EncodedTask, Task, encode, read_task
from secondary_learners.experiments.trials.training import (
    Base,
    Evaluation,
    Job,
    KnownScores,
    TrialSettings,
    Work,
    evaluation_steps,
)
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.filtering.selection import Scorer
from secondary_learners.filtering.thresholds import Threshold
from secondary_learners.gains.fingerprints import weights_fingerprint

if TYPE_CHECKING:
    import optuna
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from secondary_learners.experiments.trials.pruning import StartLookFinish

__all__ = ["STANDARD", "Filter", "Sweep", "run_trials"]

STANDARD = "standard"
_FORMAT = 1
_MOST_SEED = 2**31 - 1
_ORDER = 0  # seeds the order in which pairs of seeds are started, with early stopping
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filter:
    """An arm that trains on what `learner` scores at `threshold` or above.

    learner: None skips blindly, at the rate that `Quantile` says: each trial draws examples of its
        own, and keeps to them, as a learner does.
    """

    name: str
    learner: Scorer | None
    threshold: Threshold

    def __str__(self) -> str:
        return f"{self.name} {self.threshold}"


@dataclass(frozen=True)
class Sweep:
    """What ran. floors: of each task, the score of always answering the most frequent label.

    setting: the early stopping, its fraction that of the evaluation looked at; None without.
    curves: for each trial what `table` has no column for, as dicts by step, see `Evaluation`.
    """

    table: TrialsTable
    floors: dict[str, float]
    settings: TrialSettings
    settings_of: dict[str, Setting]
    curves: tuple[dict[str, Any], ...]
    folder: Path


def run_trials(
    tasks: Sequence[Task | str | Path],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    init_seeds: Sequence[int],
    order_seeds: Sequence[int],
    folder: Path,
    filters: Sequence[Filter | None] = (None,),
    settings: TrialSettings | None = None,
    early_stop: Setting | None = None,
    processes: int = 1,
    device: str = "cpu",
    progress: bool = True,
) -> Sweep:
    """Fine-tune `model` as a classifier once for each task, filter and pair of seeds.

    The initialization seed sets the weights of the new layers, the order seed the order of the
    examples and dropout; see `training`. On one machine and CPU, the same seeds give the same
    figures, in however many processes and after however many interruptions.

    tasks: what `read_task` returns, or the folder or .tsv file for it.
    filters: None is an arm without, called "standard". All arms take the same number of steps.
    early_stop: of each task and arm start so many trials, drawn from the grid, look at the
        evaluation nearest to that fraction of the training and finish the best. What was stopped
        keeps a curve that ends there.
    folder: gets trials.csv (a row an evaluation), trials.db (the studies, which Optuna's dashboard
        reads) and, while trials wait to be looked at, their states. Call again with the same folder
        to go on, with the same seeds or more: a finished trial is neither lost nor repeated.
    processes: more than one are started anew, so the calling script needs its
        `if __name__ == "__main__":`.

    A trial whose loss is not finite counts as always answering the most frequent label from there
    on, and is marked diverged, as is one that ends by giving all dev examples the same label.

    Raises MissingExtraError without Optuna, and TrialsError for a folder of another sweep, or one
    that another process is working on.
    """
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna", "trials") from error
    from secondary_learners.experiments.trials.workers import do_jobs

    settings = settings or TrialSettings()
    read = [task if isinstance(task, Task) else read_task(Path(task)) for task in tasks]
    _check(read, filters, init_seeds, order_seeds, processes)
    length = min(
        settings.max_length,
        tokenizer.model_max_length,
        getattr(model.config, "max_position_embeddings", settings.max_length),
    )
    encoded = {task.name: encode(task, tokenizer, length) for task in read}
    work = Work(Base.of(model), encoded, _scored(filters, encoded, tokenizer), settings, device)
    base = weights_fingerprint(model.base_model)
    with _locked(folder), _storage(folder) as storage:
        studies = [
            _Study.open(storage, work, task, arm, base, early_stop, (init_seeds, order_seeds))
            for task in encoded.values()
            for arm in _arms(filters)
        ]
        with _progress(studies, progress) as shown:

            def next_job() -> Job | None:
                return next((job for study in studies if (job := study.next_job())), None)

            def heard(job: Job, evaluation: Evaluation | None) -> None:
                study = next(s for s in studies if (s.task, s.arm) == (job.task, job.arm))
                study.heard(job, evaluation)
                shown(job, evaluation)
                if evaluation is None:
                    _write(studies, folder)

            do_jobs(work, processes, next_job, heard)
        table = _write(studies, folder)
        assert table is not None  # at least one trial has run, or was there before
        return Sweep(
            table,
            {task.name: task.floor for task in encoded.values()},
            settings,
            {s.task: s.setting for s in studies if s.setting is not None},
            tuple(curve for study in studies for curve in study.curves()),
            folder,
        )


def _check(
    tasks: Sequence[Task],
    filters: Sequence[Filter | None],
    init_seeds: Sequence[int],
    order_seeds: Sequence[int],
    processes: int,
) -> None:
    names = [task.name for task in tasks]
    for what, values in (
        ("task", names),
        ("filter", _arms(filters)),
        ("initialization seed", init_seeds),
        ("order seed", order_seeds),
    ):
        given: list[Any] = list(values)
        if not given:
            raise TrialsError(
                f"a sweep needs at least one {what}. Try `learners trials run --help`."
            )
        if len(set(given)) < len(given):  # a trial counted twice would look like evidence
            raise TrialsError(
                f"the {what}s are {', '.join(map(str, given))}: give each once, and tasks "
                "different names."
            )
    for seed in (*init_seeds, *order_seeds):
        if not 0 <= seed <= _MOST_SEED:
            raise TrialsError(f"the seed {seed} is not between 0 and {_MOST_SEED}.")
    if processes < 1:
        raise TrialsError(f"{processes} processes do nothing. Give 1 or more.")


def _arms(filters: Sequence[Filter | None]) -> list[str]:
    return [STANDARD if filter_ is None else str(filter_) for filter_ in filters]


def _scored(
    filters: Sequence[Filter | None], tasks: dict[str, EncodedTask], tokenizer: Any
) -> dict[tuple[str, str], tuple[KnownScores | None, Threshold]]:
    """Every training example scored once, for all trials; not for an arm that skips blindly."""
    found: dict[tuple[str, str], tuple[KnownScores | None, Threshold]] = {}
    for filter_ in filters:
        if filter_ is None:
            continue
        learner = filter_.learner
        if learner is not None:
            learner.check_tokenizer(tokenizer)
        for name, task in tasks.items():
            scores = None if learner is None else KnownScores.of(learner, task.train)
            found[name, str(filter_)] = (scores, filter_.threshold)
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone in `folder`: the lock of a killed process is gone with it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrialsError(
            f"another process is working on {folder}. Wait for it, or name another folder; one "
            "sweep uses several cores with --processes."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _storage(folder: Path) -> Iterator[optuna.storages.RDBStorage]:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder.resolve() / 'trials.db'}")
        yield storage
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
        optuna.logging.set_verbosity(verbosity)


@contextmanager
def _progress(
    studies: Sequence[_Study], progress: bool
) -> Iterator[Callable[[Job, Evaluation | None], None]]:
    from tqdm import tqdm

    total, done = sum(s.total for s in studies), sum(len(s.finished()) for s in studies)
    if done:
        _log.info("%d of %d trials were finished before", done, total)
    with tqdm(total=total, initial=done, unit="trial", disable=not progress) as bar:

        def shown(job: Job, evaluation: Evaluation | None) -> None:
            name = f"{job.task}, {job.arm}, seeds {job.init_seed} and {job.order_seed}"
            if evaluation is not None:
                bar.set_description(f"{name}: {evaluation.score:.3f} at step {evaluation.step}")
                return
            count = sum(len(s.finished()) for s in studies)
            bar.update(count - bar.n)
            if not progress:
                _log.info("%d of %d trials: %s", count, total, name)

        yield shown


def _write(studies: Sequence[_Study], folder: Path) -> TrialsTable | None:
    trials = tuple(trial for study in studies for trial in study.trials())
    if not trials:
        return None
    table = TrialsTable(trials)
    write_table(table, folder / "trials.csv")
    return table


class _Study:
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
        base: str,
        early_stop: Setting | None,
        seeds: tuple[Sequence[int], Sequence[int]],
    ) -> _Study:
        import optuna

        from secondary_learners.experiments.trials.pruning import StartLookFinish

        grid = [(init, order) for init in seeds[0] for order in seeds[1]]
        identity = _identity(work, task, arm, base)
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
        found = study.user_attrs.get("identity")
        if found is None:
            study.set_user_attr("identity", identity)
            study.set_user_attr("settings", asdict(work.settings))
            study.set_user_attr("floor", task.floor)
        elif found != identity:
            _refuse(study.study_name, found, identity)
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
            handle.suggest_int(name, 0, _MOST_SEED)  # as enqueued
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

    def heard(self, job: Job, evaluation: Evaluation | None) -> None:
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


def _identity(work: Work, task: EncodedTask, arm: str, base: str) -> dict[str, Any]:
    """Everything that a trial's figures depend on, but for its seeds."""
    filter_ = work.filters.get((task.name, arm))
    return {
        "format": _FORMAT,
        "task": task.digest,
        "base model": base,
        "filter": None if filter_ is None else _digest(filter_[0]),
        "threshold": None if filter_ is None else str(filter_[1]),
        "device": work.device,
        **asdict(work.settings),
    }


def _digest(scores: KnownScores | None) -> str:
    if scores is None:
        return "random"
    return sha256_bytes(json_bytes([scores.scores.tolist(), *scores.quantiles]))


def _refuse(name: str, found: dict[str, Any], identity: dict[str, Any]) -> None:
    differing = [key for key in {**found, **identity} if found.get(key) != identity.get(key)]
    raise TrialsError(
        f"the folder holds the trials {name} with another {' and '.join(differing)}: "
        + "; ".join(f"{key} was {found.get(key)}, is {identity.get(key)}" for key in differing)
        + ". Name another folder, or delete this one to start afresh."
    )
