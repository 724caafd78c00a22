"""Classification tasks from TSV files: reading, a model with a head, training, metrics."""

from __future__ import annotations

import copy
import csv
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.deltas.settings import Training
from secondary_learners.errors import CorpusError, DivergedError, SecondaryLearnersError
from secondary_learners.files import json_bytes, sha256_bytes
from secondary_learners.filtering.selection import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Examples",
    "Metrics",
    "classifier",
    "evaluate",
    "matthews",
    "metrics_of",
    "predict",
    "read_examples",
    "train",
]

_TOGETHER = 64  # batches whose examples are sorted by length
_EVALUATED_TOKENS = 8192


@dataclass(frozen=True)
class Examples:
    """Token ids, the number of each one's label, and the labels' names in the order of numbers."""

    ids: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def sample(self, count: int, seed: int = 0) -> Examples:
        """`count` examples, none twice and the same ones for a seed; all when there are less."""
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        return Examples(
            tuple(self.ids[i] for i in chosen), tuple(self.labels[i] for i in chosen), self.names
        )

    @property
    def digest(self) -> str:
        """The sha256 of everything."""
        return sha256_bytes(json_bytes([self.ids, self.labels, self.names]))


def read_examples(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    names: Sequence[str] | None = None,
    max_length: int = 128,
) -> Examples:
    """The examples of a TSV file: a header line, a column `label`, and columns of text.

    Several columns of text are joined by the end-of-text token; what is longer than `max_length`
    tokens is cut. There is no quoting. names: the labels, when they are known; by default those in
    the file, sorted. Raises CorpusError for a file that is not like that.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} cannot be read as TSV: {error}. Give another file.") from error
    columns = [column for column in (rows[0] if rows else ()) if column not in ("label", None)]
    if not rows or "label" not in rows[0] or not columns:
        raise CorpusError(
            f"{path} needs a header line with the column `label` and columns of text, and examples."
        )
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise CorpusError(f"{path}, line {number}, has not as many columns as its header.")
    found = sorted({row["label"] for row in rows})
    known = tuple(found if names is None else names)
    if strange := sorted(set(found) - set(known)):
        raise CorpusError(f"{path} has the label {strange[0]!r}; known: {', '.join(known)}.")
    if len(known) < 2:
        raise CorpusError(f"{path} has only the label {found[0]!r}: nothing to tell apart.")
    end = tokenizer.eos_token_id
    ids: list[list[int]] = [[] for _ in rows]
    for place, column in enumerate(columns):
        encoded = tokenizer([row[column] for row in rows], add_special_tokens=False)["input_ids"]
        for whole, part in zip(ids, encoded, strict=True):
            whole.extend(([end] if place else []) + list(part))
    return Examples(
        tuple(tuple(whole[:max_length]) or (end,) for whole in ids),
        tuple(known.index(row["label"]) for row in rows),
        known,
    )


def classifier(base: PreTrainedModel, labels: int, *, seed: int = 0) -> PreTrainedModel:
    """A sequence classifier on a copy of the weights of `base`, its head drawn from `seed`.

    Raises SecondaryLearnersError when transformers has none for this kind of model.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(base.config)
    config.num_labels = labels
    if config.pad_token_id is None:
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        except ValueError as error:
            raise SecondaryLearnersError(
                f"there is no classifier for a {config.model_type} model: {error}"
            ) from error
    model.base_model.load_state_dict(base.base_model.state_dict())
    torch.nn.Module.to(model, base.device)  # PreTrainedModel.to lost its types
    model.eval()
    return model


@dataclass(frozen=True)
class Metrics:
    """Shares from 0 to 1. mcc: Matthews' correlation coefficient, which CoLA is judged by."""

    examples: int
    accuracy: float
    mcc: float


def train(
    model: PreTrainedModel,
    examples: Examples,
    training: Training,
    *,
    seed: int = 0,
    progress: bool = False,
) -> float:
    """Train what is not frozen of `model`, in place; CPU seconds of this process that it took.

    seed: the order of the examples, and dropout. Raises DivergedError for a loss that is not
    finite.
    """
    from tqdm import tqdm

    from secondary_learners.deltas.layers import parameter_groups

    begun = time.process_time()
    groups = parameter_groups(
        model,
        learning_rate=training.learning_rate,
        head_learning_rate=training.head_learning_rate,
        score_learning_rate=training.score_learning_rate,
    )
    trained = [parameter for group in groups for parameter in group["params"]]
    updates = max(1, round(training.epochs * len(examples) / training.batch_size))
    optimizer = torch.optim.AdamW(groups)
    warm = max(1, round(training.warm_up * updates))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (updates - step) / max(1, updates - warm), 1)
    )
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batches = _batches(examples, training.batch_size, updates, seed)
        for chosen in tqdm(batches, total=updates, unit="update", disable=not progress):
            with torch.autocast(
                model.device.type, torch.bfloat16, enabled=training.mixed_precision
            ):
                loss = model(**_tensors(model, examples, chosen)).loss
            if not bool(torch.isfinite(loss)):
                raise DivergedError(
                    f"the loss became {loss.item()}. Try lower learning rates than {training}."
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, training.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.eval()
    return time.process_time() - begun


def _batches(
    examples: Examples, size: int, updates: int, seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Places of examples, shuffled anew each epoch; a batch has examples of like length."""
    random = np.random.default_rng(seed)
    lengths = np.array([len(ids) for ids in examples.ids])
    given = 0
    while given < updates:
        order = random.permutation(len(examples))
        batches: list[npt.NDArray[np.int64]] = []
        for begin in range(0, len(order), size * _TOGETHER):
            part = order[begin : begin + size * _TOGETHER]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [part[first : first + size] for first in range(0, len(part), size)]
        for number in random.permutation(len(batches))[: updates - given]:
            yield batches[number]
            given += 1


def _tensors(
    model: PreTrainedModel, examples: Examples, chosen: Sequence[int] | npt.NDArray[np.int64]
) -> dict[str, torch.Tensor]:
    ids, mask = pad([examples.ids[i] for i in chosen])
    ids[~mask] = model.config.pad_token_id  # by which some models find the last token
    batch = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask).long(),
        "labels": torch.tensor([examples.labels[i] for i in chosen]),
    }
    return {name: value.to(model.device) for name, value in batch.items()}


def predict(model: PreTrainedModel, examples: Examples) -> npt.NDArray[np.float32]:
    """Logits [examples, labels], in evaluation mode; the model keeps its mode."""
    lengths = [len(ids) for ids in examples.ids]
    order = sorted(range(len(examples)), key=lambda i: lengths[i])
    logits: list[tuple[Any, Any]] = []
    mode = model.training
    model.eval()
    begin = 0
    with torch.no_grad():
        while begin < len(order):
            end = begin + 1
            while end < len(order) and (end - begin + 1) * lengths[order[end]] <= _EVALUATED_TOKENS:
                end += 1
            batch = _tensors(model, examples, order[begin:end])
            found = model(**batch).logits.float().cpu().numpy()
            logits.append((order[begin:end], found))
            begin = end
    model.train(mode)
    result = np.empty((len(examples), logits[0][1].shape[1]), np.float32)
    for places, values in logits:
        result[places] = values
    return result


def evaluate(model: PreTrainedModel, examples: Examples) -> Metrics:
    """How well `model` tells the labels of `examples`."""
    return metrics_of(predict(model, examples), examples)


def metrics_of(logits: npt.NDArray[np.float32], examples: Examples) -> Metrics:
    """How well logits [examples, labels] tell the labels of `examples`."""
    guesses = logits.argmax(axis=1)
    labels = np.array(examples.labels)
    return Metrics(len(labels), float(np.mean(guesses == labels)), matthews(labels, guesses))


def matthews(labels: npt.ArrayLike, guesses: npt.ArrayLike) -> float:
    """Matthews' correlation coefficient, for two labels or more; 0 when one side never varies."""
    true, guess = np.asarray(labels), np.asarray(guesses)
    kinds = np.union1d(true, guess)
    t = np.array([np.sum(true == kind) for kind in kinds], np.float64)
    p = np.array([np.sum(guess == kind) for kind in kinds], np.float64)
    count = len(true)
    spread = math.sqrt((count**2 - float(p @ p)) * (count**2 - float(t @ t)))
    return (float(np.sum(true == guess)) * count - float(t @ p)) / spread if spread else 0.0
