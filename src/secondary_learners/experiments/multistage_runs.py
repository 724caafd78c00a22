"""Runs of a classification task with and without multistage filtering."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import transformers
from torch import Tensor

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.experiments.multistage import ARMS, SHARED, StagedRun, StagedSettings
from secondary_learners.experiments.runs import RunStore
from secondary_learners.filtering.decisions import RandomFilter
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.predictors import LearnerPredictor, NaiveBayes
from secondary_learners.filtering.selection import Scorer
from secondary_learners.filtering.thresholds import Constant, Quantile
from secondary_learners.tasks.batches import LikeLengths, collate
from secondary_learners.tasks.classifier import Backbone, Head
from secondary_learners.tasks.encoding import Encoded, EncodedTask, encode_task
from secondary_learners.tasks.metrics import score
from secondary_learners.tasks.reading import read_task
from secondary_learners.tasks.training import predict
from secondary_learners.trainers.trainer import FilteredTrainer

__all__ = ["Arms", "StagedTask", "Timed", "TrainerRows", "progress_line", "run_arms", "trained"]


@dataclass(frozen=True)
class TrainerRows:
    """Encoded examples as a Trainer takes them: a data set of places, and batches of them."""

    examples: Encoded
    pad: int

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < len(self):
            raise IndexError(place)
        return place

    def collate(self, places: Sequence[int]) -> dict[str, Tensor]:
        return collate(self.examples, places, self.pad)


@dataclass(frozen=True)
class StagedTask:
    """A task whose training examples are in a random order, the same one every time.

    used: those of them that this comparison has.
    """

    encoded: EncodedTask
    used: Encoded
    base: Backbone
    vocabulary: int

    @classmethod
    def read(
        cls,
        path: Path,
        base: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        settings: StagedSettings,
    ) -> StagedTask:
        """From a folder with train.tsv and dev.tsv, or one file; raises what `read_task` does."""
        task = read_task(path, dev_examples=settings.tested or None)
        encoded = encode_task(task, tokenizer, settings.longest)
        order = np.random.default_rng(0).permutation(len(encoded.train))
        used = encoded.train.select(order[: settings.examples or None])
        return cls(encoded, used, Backbone.of(base), len(tokenizer))

    @property
    def name(self) -> str:
        return self.encoded.name

    def part(self, begin: int, end: int | None = None) -> Self:
        """The same task with only these of its training examples."""
        return replace(self, used=self.used.select(range(len(self.used))[begin:end]))

    def model(self, seed: int, dropout: float) -> transformers.PreTrainedModel:
        """The base model with a new head."""
        head = Head(len(self.encoded.classes), seed, self.encoded.pad, dropout)
        return self.base.classifier(head)

    def score(self, logits: Any) -> float:
        """The task's metric of logits [examples, classes] on the development set."""
        guesses = np.asarray(logits).argmax(axis=1)
        return score(self.encoded.metric, guesses, self.encoded.dev.targets)


class Timed:
    """A filter, and the CPU time it takes."""

    def __init__(self, filter_: Any) -> None:
        self._filter, self.seconds = filter_, 0.0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._filter, name)
        if name not in ("admit", "keep", "observe"):
            return value

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            try:
                return value(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - begun

        return timed


class _ByLength:
    """For a Trainer: rows in the order of `LikeLengths`."""

    args: transformers.TrainingArguments
    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> LikeLengths:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return LikeLengths(rows.examples.lengths, self.args.train_batch_size, self.args.seed)


class _PlainByLength(_ByLength, transformers.Trainer): ...


class _FilteredByLength(_ByLength, FilteredTrainer): ...


_TRAINERS: dict[tuple[bool, bool], type[transformers.Trainer]] = {
    (False, False): transformers.Trainer,
    (False, True): _PlainByLength,
    (True, False): FilteredTrainer,
    (True, True): _FilteredByLength,
}
"""The Trainer for: is there a filter, do rows of like length come together."""


def trained(
    task: StagedTask,
    settings: StagedSettings,
    epochs: int,
    seed: int,
    filter_: Any = None,
    *,
    device: str = "cpu",
) -> transformers.Trainer:
    """A Trainer that has trained on the task's used examples, with the filter if there is one."""
    rows = TrainerRows(task.used, task.encoded.pad)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=settings.batch_size,
            num_train_epochs=epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="linear",
            seed=seed,
            logging_steps=1000,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=device == "cpu",
            bf16=settings.bf16,
            dataloader_pin_memory=False,
        )
        options: dict[str, Any] = {
            "model": task.model(seed, settings.dropout),
            "args": arguments,
            "train_dataset": rows,
            "data_collator": rows.collate,
        }
        if filter_ is not None:
            options |= {"filter": filter_, "forwards": settings.forwards}
        trainer = _TRAINERS[filter_ is not None, settings.like_lengths](**options)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return trainer


@dataclass(frozen=True)
class Arms:
    """What is run of a task: each arm, one after the other, with each seed.

    learner: the meta predictor of the arm "learner". An arm of random skipping keeps as many as the
    last filter before it in `arms`.
    """

    epochs: int
    seeds: Sequence[int]
    settings: StagedSettings
    learner: Scorer | None = None
    arms: Sequence[str] = ARMS
    device: str = "cpu"


def run_arms(task: StagedTask, plan: Arms, folder: Path | None) -> Iterator[StagedRun]:
    """Each run of `plan` as it ends, those that `folder` holds read from there."""
    data = {"training": task.used.digest, "tested": task.encoded.dev.digest}
    store = RunStore.begin(folder, {})
    for seed in plan.seeds:
        share = 1.0
        for arm in plan.arms:
            settings = asdict(plan.settings)
            if arm == "plain":
                settings = {name: settings[name] for name in SHARED}
            identity: dict[str, Any] = {
                "task": task.name,
                "arm": arm,
                "epochs": plan.epochs,
                "seed": seed,
                "settings": settings,
                "data": data,
            }
            name = f"{task.name}-{arm}-{plan.epochs}-{seed}"
            kept = store.read(name, **identity)
            if kept is not None:
                run = StagedRun(**kept.figures)
            else:
                run = _measure(task, plan, arm, seed, share)
                store.write(name, asdict(run), **identity)
            if arm in ("multistage", "learner"):
                share = max(1, run.trained) / run.seen
            yield run


def _filter(plan: Arms, arm: str, vocabulary: int, share: float, seed: int) -> Any:
    """The filter of an arm, None for plain training; `share` is what a random arm keeps."""
    settings = plan.settings
    common: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("warmup", "window", "keep_at_least", "reestimate")
    }
    if arm == "multistage":
        predictor = NaiveBayes(
            admit_above=settings.admit_above,
            admit_share=settings.admit_share or None,
            smoothing=settings.smoothing,
            vocabulary=vocabulary,
        )
        return MultistageFilter(predictor, bound=settings.bound, latest=settings.latest, **common)
    if arm == "learner":
        if plan.learner is None:
            raise SecondaryLearnersError("the arm 'learner' needs one. Try the others alone.")
        admitted = settings.admit_share
        threshold = Quantile(admitted) if admitted else Constant(settings.learner_threshold)
        return MultistageFilter(LearnerPredictor(plan.learner, threshold), **common)
    return RandomFilter(share, seed=seed) if arm.startswith("random") else None


def _measure(task: StagedTask, plan: Arms, arm: str, seed: int, share: float) -> StagedRun:
    """Train once and test."""
    filter_ = _filter(plan, arm, task.vocabulary, share, seed)
    timed = Timed(filter_) if filter_ is not None else None
    begun = time.process_time()
    trainer = trained(task, plan.settings, plan.epochs, seed, timed, device=plan.device)
    seconds = time.process_time() - begun
    model = cast(transformers.PreTrainedModel, trainer.model)
    logits = predict(model, task.encoded.dev, bfloat16=plan.settings.bf16)
    seen = plan.epochs * len(task.used)
    savings = trainer.savings if isinstance(trainer, FilteredTrainer) else None
    return StagedRun(
        task=task.name,
        arm=arm,
        epochs=plan.epochs,
        seed=seed,
        seen=seen,
        forwarded=timed.counts.forwarded if timed else seen,
        trained=savings.trained if savings else seen,
        updates=savings.updates if savings else trainer.state.global_step,
        cpu_seconds=seconds,
        deciding_seconds=timed.seconds if timed else 0.0,
        score=task.score(logits),
    )


def progress_line(run: StagedRun) -> str:
    """A finished run in one line."""
    return (
        f"{run.task} {run.arm} {run.epochs} ep seed {run.seed}: {run.score:.4f}, "
        f"{run.seen / max(1, run.trained):.2f}x fewer, "
        f"{run.seen / max(1, run.forwarded):.2f}x fewer forward, {run.cpu_seconds:.1f} s"
    )
