"""Runs of a classification task with and without multistage filtering, each kept in a file."""

from __future__ import annotations

import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import transformers
from torch import Tensor

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.experiments.multistage import SHARED, Run, Settings
from secondary_learners.experiments.trials.tasks import Examples, encode, read_task, score
from secondary_learners.files import json_bytes, sha256_bytes, write_json
from secondary_learners.filtering.decisions import RandomFilter
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.predictors import LearnerPredictor, NaiveBayes
from secondary_learners.filtering.selection import Scorer
from secondary_learners.filtering.thresholds import Constant, Quantile
from secondary_learners.trainers.trainer import FilteredTrainer

__all__ = ["LikeLengths", "StagedTask", "Timed", "example_losses_of", "run_arms", "trained"]


class StagedTask:
    """A task's examples as a Trainer takes them, and new classifiers for it.

    folder: with train.tsv and dev.tsv; see `read_task`, whose errors it raises. The training
    examples are shuffled, the same way every time, before a part of them is taken.
    """

    def __init__(
        self,
        folder: Path,
        base: transformers.PreTrainedModel,
        tokenizer: transformers.PreTrainedTokenizerBase,
        settings: Settings,
    ) -> None:
        read = read_task(folder, dev_examples=settings.tested or None)
        self.encoded = encode(read, tokenizer, settings.longest)
        self.name, self.metric, self.labels = read.name, read.metric, read.labels
        self.tokenizer = copy.deepcopy(tokenizer)
        if tokenizer.pad_token is None:
            self.tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self.encoded.pad)
        self._base, self._settings = base, settings
        rows = _rows(self.encoded.train)
        order = np.random.default_rng(0).permutation(len(rows))
        self.train = [rows[place] for place in order[: settings.examples or None]]
        self.dev = _rows(self.encoded.dev)

    def part(self, begin: int, end: int | None = None) -> Self:
        """The same task with only these of its training examples."""
        other = copy.copy(self)
        other.train = self.train[begin:end]
        return other

    def model(self, seed: int) -> transformers.PreTrainedModel:
        """The base model with a new head."""
        config = copy.deepcopy(self._base.config)
        config.num_labels = len(self.labels)
        config.pad_token_id = self.encoded.pad
        for name in ("embd_pdrop", "resid_pdrop", "attn_pdrop"):
            setattr(config, name, self._settings.dropout)
        torch.manual_seed(seed)
        try:
            model = transformers.AutoModelForSequenceClassification.from_config(config)
        except ValueError as error:
            raise SecondaryLearnersError(
                f"transformers has no classifier for {config.model_type}: {error}"
            ) from error
        model.base_model.load_state_dict(self._base.base_model.state_dict())
        return cast(transformers.PreTrainedModel, model)

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return dict(transformers.DataCollatorWithPadding(self.tokenizer)(list(rows)))

    def score(self, predicted: Any) -> float:
        return score(self.metric, predicted, self.encoded.dev.labels)


def _rows(examples: Examples) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"input_ids": ids.tolist(), "labels": label}
        for ids, label in zip(examples.ids, examples.labels.tolist(), strict=True)
    ]
    for row, types in zip(rows, examples.types or (), strict=False):
        row["token_type_ids"] = types.tolist()
    return rows


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


class LikeLengths(torch.utils.data.Sampler[int]):
    """A random order, another one each time, in which eight batches at a time have like lengths.

    Padding then costs little, of batches as drawn and of those made of what a filter keeps.
    transformers' own (`group_by_length`) goes from long to short over and over; where length tells
    something, as with the sentences among SST-2's phrases, a model forgets in between.

    lengths: of the rows. seed: of all the orders.
    """

    _RUN = 8  # batches of like length, one after the other
    _POOL = 48  # batches whose rows are sorted together

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._run = torch.tensor(lengths), self._RUN * batch_size
        self._pool = self._POOL * batch_size
        self._random = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self), generator=self._random)
        runs: list[Tensor] = []
        for part in order.split(self._pool):
            runs += part[self._lengths[part].argsort(stable=True)].split(self._run)
        places = torch.randperm(len(runs), generator=self._random).tolist()
        # The only short run comes last, so that every batch is of one run.
        places.sort(key=lambda place: len(runs[place]) < self._run)
        for place in places:
            yield from runs[place].tolist()


class _ByLength:
    """For a Trainer: rows in the order of `LikeLengths`."""

    args: transformers.TrainingArguments
    train_dataset: Any

    def _get_train_sampler(self, train_dataset: Any = None) -> LikeLengths:
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(row["input_ids"]) for row in rows]
        return LikeLengths(lengths, self.args.train_batch_size, self.args.seed)


class _PlainByLength(_ByLength, transformers.Trainer): ...


class _FilteredByLength(_ByLength, FilteredTrainer): ...


_TRAINERS: dict[tuple[bool, bool], Callable[..., transformers.Trainer]] = {
    (False, False): transformers.Trainer,
    (False, True): _PlainByLength,
    (True, False): FilteredTrainer,
    (True, True): _FilteredByLength,
}
"""The Trainer for: is there a filter, do rows of like length come together."""


def trained(
    task: StagedTask,
    settings: Settings,
    epochs: int,
    seed: int,
    rows: Sequence[Any],
    filter_: Any = None,
    *,
    device: str = "cpu",
) -> transformers.Trainer:
    """A Trainer that has trained, with the filter if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=64,
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
            "model": task.model(seed),
            "args": arguments,
            "train_dataset": rows,
            "data_collator": task.collate,
        }
        if filter_ is not None:
            options |= {"filter": filter_, "forwards": settings.forwards}
        trainer = _TRAINERS[filter_ is not None, settings.like_lengths](**options)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return trainer


def example_losses_of(
    model: transformers.PreTrainedModel, task: StagedTask, rows: Sequence[Any]
) -> list[float]:
    """The loss of each row under a classifier, without dropout."""
    losses: list[float] = []
    model.eval()
    for begin in range(0, len(rows), 64):
        batch = task.collate(rows[begin : begin + 64])
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        labels = inputs.pop("labels")
        with torch.no_grad():
            logits = model(**inputs).logits
        losses += torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
    return losses


def run_arms(
    task: StagedTask,
    epochs: int,
    seeds: Sequence[int],
    arms: Sequence[str],
    folder: Path,
    settings: Settings,
    learner: Callable[[Path], Scorer],
    *,
    tell: Callable[[str], None],
    device: str = "cpu",
) -> list[Run]:
    """All runs of a task and number of epochs, those that `folder` holds read from there.

    learner: of the arm of that name; called with a folder of its own below `folder` when a run
        needs it. An arm of random skipping keeps as many as the last filter before it in `arms`.
    """
    done = []
    for seed in seeds:
        share = 1.0
        for arm in arms:
            own = asdict(settings) if arm != "plain" else {}
            shared = {name: value for name, value in asdict(settings).items() if name in SHARED}
            key = sha256_bytes(json_bytes({**shared, **own}))[:8]
            path = folder / f"{task.name}-{arm}-{epochs}-{seed}-{key}.json"
            if path.exists():
                run = Run(**json.loads(path.read_text(encoding="utf-8")))
            else:
                predictor = None
                if arm == "learner":
                    predictor = learner(folder / f"{task.name}-learner-{key}")
                filter_ = _filter(arm, settings, len(task.tokenizer), predictor, share, seed)
                run = _measure(task, arm, epochs, seed, settings, filter_, device)
                write_json(path, asdict(run))
            if arm in ("multistage", "learner"):
                share = max(1, run.trained) / run.seen
            done.append(run)
            tell(
                f"{run.task} {run.arm} {run.epochs} ep seed {run.seed}: {run.score:.4f}, "
                f"{run.seen / max(1, run.trained):.2f}x fewer, "
                f"{run.seen / max(1, run.forwarded):.2f}x fewer forward, "
                f"{run.cpu_seconds:.1f} s"
            )
    return done


def _filter(
    arm: str,
    settings: Settings,
    vocabulary: int,
    learner: Scorer | None,
    share: float,
    seed: int,
) -> Any:
    """The filter of an arm, None for plain training; `share` is what a random arm keeps."""
    if arm == "multistage":
        return MultistageFilter(
            NaiveBayes(
                admit_above=settings.admit_above,
                admit_share=settings.admit_share or None,
                smoothing=settings.smoothing,
                vocabulary=vocabulary,
            ),
            warmup=settings.warmup,
            bound=settings.bound,
            latest=settings.latest,
            window=settings.window,
            keep_at_least=settings.keep_at_least,
            reestimate=settings.reestimate,
        )
    if learner is not None:
        share = settings.admit_share
        threshold = Quantile(share) if share else Constant(settings.learner_threshold)
        return MultistageFilter(
            LearnerPredictor(learner, threshold),
            warmup=settings.warmup,
            window=settings.window,
            keep_at_least=settings.keep_at_least,
            reestimate=settings.reestimate,
        )
    return RandomFilter(share, seed=seed) if arm.startswith("random") else None


def _measure(
    task: StagedTask,
    arm: str,
    epochs: int,
    seed: int,
    settings: Settings,
    filter_: Any,
    device: str,
) -> Run:
    """Train once and test."""
    timed = Timed(filter_) if filter_ is not None else None
    begun = time.process_time()
    trainer = trained(task, settings, epochs, seed, task.train, timed, device=device)
    seconds = time.process_time() - begun
    logits = trainer.predict(cast(Any, task.dev)).predictions
    seen = epochs * len(task.train)
    savings = trainer.savings if isinstance(trainer, FilteredTrainer) else None
    return Run(
        task=task.name,
        arm=arm,
        epochs=epochs,
        seed=seed,
        seen=seen,
        forwarded=timed.counts.forwarded if timed else seen,
        trained=savings.trained if savings else seen,
        updates=savings.updates if savings else trainer.state.global_step,
        cpu_seconds=seconds,
        deciding_seconds=timed.seconds if timed else 0.0,
        score=task.score(np.asarray(logits).argmax(axis=1)),
    )
