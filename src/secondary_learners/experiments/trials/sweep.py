"""A sweep of trials over a grid of two seeds, kept in Optuna's storage and resumed from it.

One study for each task and arm, in one SQLite file: SQLite, since a kill in the midst of a write
rolls back, where a journal file would keep half a line. This process alone writes there; workers
only compute. The pairs of seeds are enqueued as waiting trials, and not drawn by Optuna's
GridSampler: that counts a killed trial as visited, gives a pair twice to processes that ask at the
same time, and cannot be extended by more seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.errors import MissingExtraError, TrialsError
from secondary_learners.experiments.runs import alone_in
from secondary_learners.experiments.tracking import track
from secondary_learners.experiments.trials.stopping import Setting
from secondary_learners.experiments.trials.study import MOST_SEED, Study
from secondary_learners.experiments.trials.table import TrialsTable, write_table
from secondary_learners.experiments.trials.training import (
    Evaluation,
    Job,
    KnownScores,
    TrialSettings,
    Work,
)
from secondary_learners.filtering.selection import Scorer
from secondary_learners.filtering.thresholds import Threshold
from secondary_learners.gains.fingerprints import weights_fingerprint
from secondary_learners.tasks.classifier import Backbone
from secondary_learners.tasks.encoding import EncodedTask, encode_task
from secondary_learners.tasks.reading import Task, read_task

if TYPE_CHECKING:
    import optuna
    from tqdm import tqdm
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["STANDARD", "Filter", "Running", "Sweep", "SweepPlan", "run_trials"]

STANDARD = "standard"
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


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What is done with each pair of seeds.

    filters: None is an arm without, called "standard". All arms take the same number of steps.
    early_stop: of each task and arm start so many trials, drawn from the grid, look at the
        evaluation nearest to that fraction of the training and finish the best. What was stopped
        keeps a curve that ends there.
    """

    filters: Sequence[Filter | None] = (None,)
    settings: TrialSettings = field(default_factory=TrialSettings)
    early_stop: Setting | None = None

    @property
    def arms(self) -> list[str]:
        return [STANDARD if filter_ is None else str(filter_) for filter_ in self.filters]


@dataclass(frozen=True, kw_only=True)
class Running:
    """Where trials run: none of it changes a figure, but for the device's arithmetic.

    processes: more than one are started anew, so the calling script needs its
        `if __name__ == "__main__":`.
    """

    processes: int = 1
    device: str = "cpu"
    progress: bool = True


@dataclass(frozen=True)
class Sweep:
    """What ran.

    settings_of: each task's early stopping, its fraction that of the evaluation looked at.
    curves: for each trial what `table` has no column for, as dicts by step, see `Evaluation`.
    """

    table: TrialsTable
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
    plan: SweepPlan | None = None,
    running: Running | None = None,
) -> Sweep:
    """Fine-tune `model` as a classifier once for each task, filter and pair of seeds.

    The design is that of Dodge et al. 2020 (arXiv 2002.06305). On one machine and CPU, the same
    seeds give the same figures, in however many processes and after however many interruptions. A
    trial whose loss is not finite counts as always answering the most frequent class from there
    on, and is marked diverged, as is one that ends by giving all dev examples the same class.

    Args:
        tasks: What `read_task` returns, or the folder or .tsv file for it.
        model: Any model of transformers; its backbone is what each trial starts from.
        tokenizer: The model's own.
        init_seeds: They set the weights of the new layers, and nothing else.
        order_seeds: They set the order of the examples and dropout, and nothing else.
        folder: Gets trials.csv (a row an evaluation), trials.db (the studies, which Optuna's
            dashboard reads) and, while trials wait to be looked at, their states. Call again with
            the same folder to go on, with the same seeds or more: a finished trial is neither lost
            nor repeated.
        plan: The arms, how each trial is trained, and early stopping; by default one arm without a
            filter, run to the end.
        running: How many processes, on which device; by default one, on the CPU.

    Returns:
        The table of all finished trials, scores in the task's metric, and every curve.

    Raises:
        MissingExtraError: Optuna is not installed.
        TrialsError: The folder is that of another sweep, or seeds, tasks or filters do not fit.
        SecondaryLearnersError: Another process is working in the folder.
    """
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna", "trials") from error
    from secondary_learners.experiments.trials.workers import do_jobs

    plan, running = plan or SweepPlan(), running or Running()
    read = [task if isinstance(task, Task) else read_task(Path(task)) for task in tasks]
    _check(read, plan, init_seeds, order_seeds, running.processes)
    work = _work(read, model, tokenizer, plan, running.device)
    with alone_in(folder), _storage(folder) as storage:
        studies = [
            Study.open(storage, work, task, arm, plan.early_stop, (init_seeds, order_seeds))
            for task in work.tasks.values()
            for arm in plan.arms
        ]
        with (
            _bar(studies, running.progress) as bar,
            closing(do_jobs(work, running.processes, _Queue(studies))) as events,
        ):
            for job, evaluation in events:
                study = next(s for s in studies if (s.task, s.arm) == (job.task, job.arm))
                study.keep(job, evaluation)
                if evaluation is not None:
                    seeds = f"seeds {job.init_seed} and {job.order_seed}"
                    curve = f"{job.task}/{job.arm}/{seeds}/{work.tasks[job.task].metric}"
                    track({curve: evaluation.score}, evaluation.step)
                _show(bar, studies, job, evaluation)
                if evaluation is None:
                    _write(studies, work, folder)
        table = _write(studies, work, folder)
        assert table is not None  # at least one trial has run, or was there before
        return Sweep(
            table,
            plan.settings,
            {s.task: s.setting for s in studies if s.setting is not None},
            tuple(curve for study in studies for curve in study.curves()),
            folder,
        )


@dataclass(frozen=True)
class _Queue:
    """The next thing to do in any of the studies; None for now, or for good."""

    studies: Sequence[Study]

    def __call__(self) -> Job | None:
        return next((job for study in self.studies if (job := study.next_job())), None)


def _work(
    tasks: Sequence[Task],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: SweepPlan,
    device: str,
) -> Work:
    settings = plan.settings
    length = min(
        settings.max_length,
        tokenizer.model_max_length,
        getattr(model.config, "max_position_embeddings", settings.max_length),
    )
    encoded = {task.name: encode_task(task, tokenizer, length) for task in tasks}
    return Work(
        base=Backbone.of(model),
        fingerprint=weights_fingerprint(model.base_model),
        tasks=encoded,
        filters=_scored(plan.filters, encoded, tokenizer),
        settings=settings,
        device=device,
    )


def _check(
    tasks: Sequence[Task],
    plan: SweepPlan,
    init_seeds: Sequence[int],
    order_seeds: Sequence[int],
    processes: int,
) -> None:
    names = [task.name for task in tasks]
    for what, values in (
        ("task", names),
        ("filter", plan.arms),
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
        if not 0 <= seed <= MOST_SEED:
            raise TrialsError(f"the seed {seed} is not between 0 and {MOST_SEED}.")
    if processes < 1:
        raise TrialsError(f"{processes} processes do nothing. Give 1 or more.")


def _scored(
    filters: Sequence[Filter | None], tasks: dict[str, EncodedTask], tokenizer: Any
) -> dict[tuple[str, str], tuple[KnownScores | None, Threshold]]:
    """Every training example scored once, for all trials; not for an arm that skips blindly."""
    known: dict[tuple[str, str], tuple[KnownScores | None, Threshold]] = {}
    for filter_ in filters:
        if filter_ is None:
            continue
        learner = filter_.learner
        if learner is not None:
            learner.check_tokenizer(tokenizer)
        for name, task in tasks.items():
            scores = None if learner is None else KnownScores.of(learner, task.train)
            known[name, str(filter_)] = (scores, filter_.threshold)
    return known


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


def _bar(studies: Sequence[Study], progress: bool) -> tqdm[Any]:
    from tqdm import tqdm

    total, done = sum(s.total for s in studies), sum(len(s.finished()) for s in studies)
    if done:
        _log.info("%d of %d trials were finished before", done, total)
    return tqdm(total=total, initial=done, unit="trial", disable=not progress)


def _show(
    bar: tqdm[Any], studies: Sequence[Study], job: Job, evaluation: Evaluation | None
) -> None:
    name = f"{job.task}, {job.arm}, seeds {job.init_seed} and {job.order_seed}"
    if evaluation is not None:
        bar.set_description(f"{name}: {evaluation.score:.3f} at step {evaluation.step}")
        return
    count = sum(len(s.finished()) for s in studies)
    bar.update(count - bar.n)
    if bar.disable:
        _log.info("%d of %d trials: %s", count, bar.total, name)


def _write(studies: Sequence[Study], work: Work, folder: Path) -> TrialsTable | None:
    trials = tuple(trial for study in studies for trial in study.trials())
    if not trials:
        return None
    floors = {task.name: task.floor for task in work.tasks.values()}
    table = TrialsTable(trials, floors={t.task: floors[t.task] for t in trials})
    write_table(table, folder / "trials.csv")
    return table
