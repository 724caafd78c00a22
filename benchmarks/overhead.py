"""What deciding costs: a training step with a filter that keeps everything, against a plain step.

    python benchmarks/overhead.py

`mini` with a classification head goes over sequences as long as SST-2's, in batches of 8 and of 32:
with transformers' Trainer, and with FilteredTrainer whose filter does all the work of its last
stage (asks the predictor, compares losses, learns) and then keeps every example, so that both do
the same passes. CPU time on one thread, from the beginning of a step to the end of the update,
step by step against the same batch's plain step; the median over rounds, taken in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from common import RESULTS, table, write_result

from secondary_learners.experiments.multistage_runs import Timed
from secondary_learners.filtering.decisions import Losses
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.predictors import Flags, Ids, LearnerPredictor, NaiveBayes
from secondary_learners.filtering.selection import pad
from secondary_learners.registry.load import load_base, load_learner
from secondary_learners.tasks.classifier import classifier
from secondary_learners.trainers.trainer import FilteredTrainer

SIZES = (8, 32)
LEARNER = "books-mini"


class Everything(MultistageFilter):
    """Decides as ever, from stage 2 on nearly at once, and keeps all."""

    def __init__(self, predictor: Any) -> None:
        super().__init__(predictor, warmup=0.0, latest=0.0)

    def admit(self, input_ids: Ids, attention_mask: Flags, *, step: int, total: int) -> Flags:
        return np.ones_like(super().admit(input_ids, attention_mask, step=step, total=total))

    def keep(self, losses: Losses, input_ids: Ids, attention_mask: Flags) -> Flags:
        return np.ones_like(super().keep(losses, input_ids, attention_mask))


class Clock(transformers.TrainerCallback):
    """CPU seconds of every step."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self._begun = 0.0

    def on_step_begin(self, *args: Any, **others: Any) -> None:
        self._begun = time.process_time()

    def on_step_end(self, *args: Any, **others: Any) -> None:
        self.steps.append(time.process_time() - self._begun)


def sequences(count: int, vocabulary: int) -> list[dict[str, Any]]:
    """Encoded of 2 to 60 tokens, 13 on average, their tokens as uneven as those of a text."""
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, vocabulary + 1)
    lengths = np.minimum(1 + random.geometric(1 / 12, count), 60)
    return [
        {
            "input_ids": random.choice(vocabulary, length, p=chances / chances.sum()).tolist(),
            "labels": int(random.integers(2)),
        }
        for length in lengths
    ]


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    ids, mask = pad([row["input_ids"] for row in rows])
    labels = torch.tensor([row["labels"] for row in rows])
    mask_ids = torch.from_numpy(mask.astype(np.int64))
    return {"input_ids": torch.from_numpy(ids), "attention_mask": mask_ids, "labels": labels}


def steps(
    rows: list[dict[str, Any]], size: int, predictor: Callable[[], Any] | None
) -> tuple[list[float], float]:
    """CPU seconds of every step, and how much of one the filter itself takes."""
    clock = Clock()
    filter_ = Timed(Everything(predictor())) if predictor else None
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=size,
            num_train_epochs=1,
            learning_rate=1e-4,
            logging_steps=1000,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        options: dict[str, Any] = {
            "model": classifier(load_base("mini")[0], 2),
            "args": arguments,
            "train_dataset": rows,
            "data_collator": collate,
            "callbacks": [clock],
        }
        trainer = (
            FilteredTrainer(**options, filter=cast(Any, filter_), forwards="same")
            if filter_
            else transformers.Trainer(**options)
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return clock.steps, filter_.seconds / len(clock.steps) if filter_ else 0.0


def measure(size: int, count: int, rounds: int) -> list[dict[str, Any]]:
    rows = sequences(size * count, len(load_base("mini")[1]))
    learner = load_learner(LEARNER)
    arms: dict[str, Callable[[], Any] | None] = {
        "plain": None,
        "naive Bayes": NaiveBayes,
        LEARNER: partial(LearnerPredictor, learner, 0.0),
    }
    taken: dict[str, list[float]] = {name: [] for name in arms}
    deciding: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, predictor in arms.items():
            found, own = steps(rows, size, predictor)
            taken[name] += found[count // 5 :]  # the first ones warm up
            deciding[name].append(own)
    plain = taken["plain"]
    return [
        {
            "predictor": name,
            "batch_size": size,
            "plain_milliseconds": 1e3 * statistics.median(plain),
            "filtered_milliseconds": 1e3 * statistics.median(taken[name]),
            "overhead": statistics.median(
                own / bare - 1 for own, bare in zip(taken[name], plain, strict=True)
            ),
            "filter_milliseconds": 1e3 * statistics.median(deciding[name]),
            "filter_share": statistics.median(deciding[name]) / statistics.median(plain),
        }
        for name in arms
        if name != "plain"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a few steps, for a smoke run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    transformers.logging.set_verbosity_error()
    count, rounds = (5, 1) if given.quick else (40, 5)
    found = [row for size in SIZES for row in measure(size, count, rounds)]
    print(
        table(
            ["predictor", "batch", "plain ms", "filtered ms", "overhead", "filter itself ms", "%"],
            [
                (
                    row["predictor"],
                    row["batch_size"],
                    row["plain_milliseconds"],
                    row["filtered_milliseconds"],
                    f"{row['overhead']:.1%}",
                    row["filter_milliseconds"],
                    f"{row['filter_share']:.1%}",
                )
                for row in found
            ],
        )
    )
    write_result(given.out / "overhead.json", {"steps": count, "rounds": rounds, "rows": found})


if __name__ == "__main__":
    main()
