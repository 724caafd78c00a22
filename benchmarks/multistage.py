"""Multistage filtering against plain training and against random skipping, on three tasks.

    python benchmarks/multistage.py --data classification/

Arms: plain; multistage with naive Bayes; random skipping at that arm's rate; multistage with a
learner, loaded from its folder, as the meta predictor from the first step; random skipping at that
one's rate. The learner is made first, from the losses that a model trained on one part of the
training set (a quarter) has on another (a quarter): its cost is in the results, once a task.

The base model is `mini` with a classification head, trained by transformers' Trainer (plain) and by
FilteredTrainer (the other arms) on one CPU thread. The data folder has `<task>/train.tsv` and
`<task>/dev.tsv` with the columns sentence (or text) and label; GLUE's SST-2 and CoLA, and AG News.
Every run is a file under --runs, so a killed benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import transformers
from common import RESULTS, table, write_result

from secondary_learners.files import json_bytes, sha256_bytes, write_json
from secondary_learners.filtering.decisions import RandomFilter
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.predictors import LearnerPredictor, NaiveBayes
from secondary_learners.filtering.selection import pad
from secondary_learners.finetuning.trainer import FilteredTrainer, Forwards
from secondary_learners.learners.artifact import Learner, save_learner, tokenizer_fingerprint
from secondary_learners.learners.config import Calibration, LearnerConfig, Reference, Score
from secondary_learners.learners.nets import LinearNet, linear_features
from secondary_learners.learners.statistics import spearman
from secondary_learners.registry.load import load_base, load_learner

ARMS = ("plain", "multistage", "random", "learner", "random-learner")
SHARED = ("examples", "tested", "batch_size", "learning_rate", "longest", "dropout", "bf16")
CLASSES = {"sst2": 2, "agnews": 4, "cola": 2}


@dataclass(frozen=True)
class Settings:
    """What a run depends on, but for its task, arm, epochs and seed."""

    examples: int = 0  # of the training set; 0 for all
    tested: int = 2000
    batch_size: int = 8
    learning_rate: float = 3e-4
    longest: int = 96
    dropout: float = 0.1
    bf16: bool = False
    warmup: float = 0.05
    bound: float = 0.6
    latest: float = 0.5
    keep_at_least: float = 0.0
    reestimate: bool = False
    admit_above: float = 0.5
    smoothing: float = 0.05
    learner_threshold: float = 0.0
    forwards: Forwards = "auto"


@dataclass(frozen=True)
class Run:
    """One run. score: accuracy, for CoLA Matthews' correlation, on the development set.

    deciding_seconds: of `cpu_seconds`, what the filter itself took: no forward pass, no moving of
    rows.
    """

    task: str
    arm: str
    epochs: int
    seed: int
    seen: int
    forwarded: int
    trained: int
    updates: int
    cpu_seconds: float
    deciding_seconds: float
    score: float


@dataclass(frozen=True)
class Made:
    """A learner's folder, what it cost and how well it ranks losses of examples it never saw."""

    folder: Path
    cpu_seconds: float
    spearman: float


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


class Task:
    """A task's examples, tokenised."""

    def __init__(self, name: str, folder: Path, settings: Settings) -> None:
        _, self.tokenizer = load_base("mini")
        self.classes, self._longest = CLASSES[name], settings.longest
        self.name = name
        train, dev = (self._read(folder / name / f"{part}.tsv") for part in ("train", "dev"))
        order = np.random.default_rng(0).permutation(len(train))
        self.train = [train[place] for place in order[: settings.examples or None]]
        order = np.random.default_rng(0).permutation(len(dev))
        self.dev = [dev[place] for place in sorted(order[: settings.tested])]

    def _read(self, path: Path) -> list[dict[str, Any]]:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        text = "sentence" if "sentence" in rows[0] else "text"
        labels = sorted({row["label"] for row in rows})
        encoded = self.tokenizer(
            [row[text] for row in rows], truncation=True, max_length=self._longest
        )
        return [
            {"input_ids": ids, "labels": labels.index(row["label"])}
            for ids, row in zip(encoded["input_ids"], rows, strict=True)
            if ids
        ]

    def model(self, seed: int, settings: Settings) -> transformers.PreTrainedModel:
        """`mini` with a new head."""
        base = cast(Any, load_base("mini")[0])
        config = base.config
        config.num_labels = self.classes
        config.pad_token_id = self.tokenizer.pad_token_id
        for name in ("embd_pdrop", "resid_pdrop", "attn_pdrop"):
            setattr(config, name, settings.dropout)
        torch.manual_seed(seed)
        model = transformers.GPT2ForSequenceClassification(config)
        model.transformer.load_state_dict(base.transformer.state_dict())
        return model

    def score(self, predicted: npt.NDArray[np.int64]) -> float:
        truth = np.array([row["labels"] for row in self.dev])
        if self.name != "cola":
            return float((predicted == truth).mean())
        tp, tn, fp, fn = (
            float(((predicted == p) & (truth == t)).sum())
            for p, t in ((1, 1), (0, 0), (1, 0), (0, 1))
        )
        root = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
        return (tp * tn - fp * fn) / root if root else 0.0


def make_learner(task: Task, settings: Settings, folder: Path) -> Made:
    """A linear learner of losses: ridge regression on token counts, as an ordinary artefact."""
    from sklearn.linear_model import Ridge

    note = folder / "made.json"
    if not note.exists():
        begun = time.process_time()
        quarter = len(task.train) // 4
        trainer = trained(task, settings, 1, seed=1000, rows=task.train[:quarter])
        rows = task.train[quarter : 2 * quarter]
        losses = []
        collate = transformers.DataCollatorWithPadding(task.tokenizer)
        network = trainer.model
        assert isinstance(network, torch.nn.Module)
        network.eval()
        for begin in range(0, len(rows), 64):
            batch = collate(rows[begin : begin + 64])
            labels = batch.pop("labels")
            with torch.no_grad():
                logits = network(**batch).logits
            losses += torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
        values = np.array(losses)
        labels = (values - values.mean()) / values.std()
        features = counted(rows, len(task.tokenizer))
        fitted = np.arange(len(rows)) % 5 > 0
        strengths = 10.0 ** np.arange(-2, 4)
        best = max(
            strengths,
            key=lambda strength: spearman(
                labels[~fitted],
                Ridge(strength).fit(features[fitted], labels[fitted]).predict(features[~fitted]),
            ),
        )
        ridge = Ridge(best).fit(features[fitted], labels[fitted])
        predicted = ridge.predict(features[~fitted])
        net = LinearNet(len(task.tokenizer))
        with torch.no_grad():
            net.weight.copy_(torch.from_numpy(ridge.coef_))
            net.bias.fill_(float(ridge.intercept_))
        tokenizer = Reference("mini", None, tokenizer_fingerprint(task.tokenizer))
        config = LearnerConfig(
            name=f"{task.name}-losses",
            architecture="linear",
            sizes={"vocabulary": len(task.tokenizer), "bigrams": 0, "counts": "sqrt"},
            score=Score(float(values.mean()), float(values.std()), "nats"),
            calibration=Calibration(
                float(predicted.mean()),
                float(predicted.std()),
                tuple(np.quantile(predicted, np.linspace(0, 1, 101)).tolist()),
            ),
            context_length=settings.longest,
            base_model=tokenizer,
            tokenizer=tokenizer,
            objective={"text": f"the training loss on {task.name} itself"},
            corpus={"text": task.name},
            optimizer={},
            labels={"count": len(rows), "method": "loss after a quarter of an epoch"},
            versions={},
        )
        found = spearman(labels[~fitted], predicted)
        save_learner(
            Learner(config, net),
            folder / "learner",
            recipe_toml="",
            evaluation={"spearman": found},
            readme=f"Losses on {task.name}, for benchmarks/multistage.py.\n",
        )
        facts = {"cpu_seconds": time.process_time() - begun, "spearman": found}
        write_json(note, facts)
    return Made(folder / "learner", **json.loads(note.read_text(encoding="utf-8")))


def counted(rows: Sequence[Mapping[str, Any]], vocabulary: int) -> Any:
    """The sparse features of a linear learner [rows, vocabulary]."""
    from scipy.sparse import coo_matrix

    ids, mask = pad([row["input_ids"] for row in rows])
    columns, values = linear_features(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        vocabulary=vocabulary,
        bigrams=0,
        counts="sqrt",
    )
    places = np.repeat(np.arange(len(rows)), ids.shape[1])
    shape = (len(rows), vocabulary)
    flat = (values.numpy().ravel(), (places, columns.numpy().ravel()))
    return coo_matrix(flat, shape=shape).tocsr()


def measure(
    task: Task,
    arm: str,
    epochs: int,
    seed: int,
    settings: Settings,
    share: float,
    made: Callable[[], Made],
) -> Run:
    """Train once and test; `share` is what a random arm keeps."""
    filter_: Any = None
    if arm == "multistage":
        predictor = NaiveBayes(
            admit_above=settings.admit_above,
            smoothing=settings.smoothing,
            vocabulary=len(task.tokenizer),
        )
        filter_ = MultistageFilter(
            predictor,
            warmup=settings.warmup,
            bound=settings.bound,
            latest=settings.latest,
            keep_at_least=settings.keep_at_least,
            reestimate=settings.reestimate,
        )
    elif arm == "learner":
        filter_ = MultistageFilter(
            LearnerPredictor(load_learner(made().folder), settings.learner_threshold),
            warmup=settings.warmup,
            keep_at_least=settings.keep_at_least,
            reestimate=settings.reestimate,
        )
    elif arm.startswith("random"):
        filter_ = RandomFilter(share, seed=seed)
    filter_ = Timed(filter_) if filter_ is not None else None
    begun = time.process_time()
    trainer = trained(task, settings, epochs, seed, task.train, filter_)
    seconds = time.process_time() - begun
    logits = trainer.predict(cast(Any, task.dev)).predictions
    score = task.score(np.asarray(logits).argmax(axis=1))
    seen = epochs * len(task.train)
    counts = filter_.counts if filter_ is not None else None
    return Run(
        task=task.name,
        arm=arm,
        epochs=epochs,
        seed=seed,
        seen=seen,
        forwarded=counts.forwarded if counts else seen,
        trained=trainer.savings.trained if isinstance(trainer, FilteredTrainer) else seen,
        updates=(
            trainer.savings.updates
            if isinstance(trainer, FilteredTrainer)
            else trainer.state.global_step
        ),
        cpu_seconds=seconds,
        deciding_seconds=filter_.seconds if filter_ is not None else 0.0,
        score=score,
    )


def trained(
    task: Task,
    settings: Settings,
    epochs: int,
    seed: int,
    rows: Sequence[Any],
    filter_: Any = None,
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
            use_cpu=True,
            bf16=settings.bf16,
            dataloader_pin_memory=False,
        )
        options: dict[str, Any] = {
            "model": task.model(seed, settings),
            "args": arguments,
            "train_dataset": rows,
            "data_collator": transformers.DataCollatorWithPadding(task.tokenizer),
        }
        trainer: transformers.Trainer
        if filter_ is None:
            trainer = transformers.Trainer(**options)
        else:
            trainer = FilteredTrainer(**options, filter=filter_, forwards=settings.forwards)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return trainer


def runs(
    task: Task,
    epochs: int,
    seeds: Sequence[int],
    arms: Sequence[str],
    folder: Path,
    settings: Settings,
) -> list[Run]:
    """All runs of a task and number of epochs, those on disk read."""
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
                place = folder / f"{task.name}-learner-{key}"
                made = partial(make_learner, task, settings, place)
                run = measure(task, arm, epochs, seed, settings, share, made)
                write_json(path, asdict(run))
            if arm in ("multistage", "learner"):
                share = run.trained / run.seen
            done.append(run)
            print(
                f"{run.task} {run.arm} {run.epochs} ep seed {run.seed}: {run.score:.4f}, "
                f"{run.seen / run.trained:.2f}x fewer, "
                f"{run.seen / run.forwarded:.2f}x fewer forward, "
                f"{run.cpu_seconds:.1f} s",
                flush=True,
            )
    return done


def summary(done: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each task, number of epochs and arm; ratios are to plain training's figures."""
    rows = []
    groups = list(dict.fromkeys((run.task, run.epochs, run.arm) for run in done))
    for name, epochs, arm in groups:
        group = [run for run in done if (run.task, run.epochs, run.arm) == (name, epochs, arm)]
        plain = [run for run in done if (run.task, run.epochs, run.arm) == (name, epochs, "plain")]

        def mean(figure: str, of: Sequence[Run] = group) -> float:
            return statistics.fmean(getattr(run, figure) for run in of)

        scores = [run.score for run in group]
        rows.append(
            {
                "task": name,
                "epochs": epochs,
                "arm": arm,
                "seeds": len(group),
                "trained": mean("trained"),
                "forwarded": mean("forwarded"),
                "updates": mean("updates"),
                "cpu_seconds": mean("cpu_seconds"),
                # of what the same number of steps takes without a filter
                "overhead": mean("deciding_seconds") / mean("cpu_seconds", plain),
                "score": mean("score"),
                "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
                "fewer_trained": mean("trained", plain) / mean("trained"),
                "fewer_forwarded": mean("forwarded", plain) / mean("forwarded"),
                "less_time": mean("cpu_seconds", plain) / mean("cpu_seconds"),
                "points_lost": 100 * (mean("score", plain) - mean("score")),
            }
        )
    return rows


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["task", "epochs", "arm", "trained", "run forward", "CPU s", "score"]
    header += ["fewer", "less time", "lost", "overhead"]
    return table(
        header,
        [
            (
                row["task"],
                row["epochs"],
                row["arm"],
                f"{row['trained']:,.0f}",
                f"{row['forwarded']:,.0f}",
                f"{row['cpu_seconds']:.0f}",
                f"{100 * row['score']:.1f} ± {100 * row['deviation']:.1f}",
                f"{row['fewer_trained']:.2f}",
                f"{row['less_time']:.2f}",
                f"{row['points_lost']:.1f}",
                f"{row['overhead']:.1%}",
            )
            for row in rows
        ],
    )


def toy(folder: Path) -> Path:
    """Data of the right form for a smoke run: the first word tells the class."""
    random = np.random.default_rng(0)
    words = ["good", "bad", "large", "small", "red", "blue", "old", "new"]
    for name, classes in CLASSES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for part, count in (("train", 48), ("dev", 16)):
            lines = ["sentence\tlabel"]
            for _ in range(count):
                row = random.choice(words, 6)
                lines.append(f"{' '.join(row)}\t{words.index(row[0]) % classes}")
            (folder / name / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with <task>/train.tsv and dev.tsv")
    parser.add_argument("--tasks", default="sst2,agnews,cola")
    parser.add_argument("--epochs", default="1,2")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/multistage"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="toy data, for a smoke run")
    for name, default in asdict(Settings()).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=type(default), default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.logging.set_verbosity_error()
    settings = Settings(**{name: getattr(given, name) for name in asdict(Settings())})
    if given.quick:
        given.data, given.runs = toy(given.out / "data"), given.out / "runs"
        given.tasks, given.epochs, given.seeds = "cola", "1", 1
    if given.data is None:
        parser.error("--data is needed: the folder with sst2, agnews and cola")
    if given.arms.split(",")[0] != "plain":
        parser.error("--arms begins with plain, which the others are compared with")
    given.runs.mkdir(parents=True, exist_ok=True)
    done = []
    for name in given.tasks.split(","):
        task = Task(name, given.data, settings)
        for epochs in map(int, given.epochs.split(",")):
            done += runs(
                task, epochs, range(given.seeds), given.arms.split(","), given.runs, settings
            )
    rows = summary(done)
    print(report(rows))
    learners = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(given.runs.glob("*/made.json"))
    }
    figures = {
        "learners": learners,
        "settings": asdict(settings),
        "rows": rows,
        "runs": [asdict(run) for run in done],
    }
    write_result(given.out / "multistage.json", figures)


if __name__ == "__main__":
    main()
