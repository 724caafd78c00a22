"""Classification tasks from TSV files: read, tokenized once for all trials, and scored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import CorpusError, UnknownNameError
from secondary_learners.files import json_bytes, sha256_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["METRICS", "EncodedTask", "Examples", "Task", "encode", "floor", "read_task", "score"]

Integers = npt.NDArray[np.int64]

METRICS = ("accuracy", "f1", "matthews")
_METRIC_OF = {"cola": "matthews", "mrpc": "f1"}  # as GLUE scores them; accuracy for all others
_DRAW = 0  # seeds the choice of a subset and of a held-out tenth, the same for every trial
_HELD_OUT = 0.1


@dataclass(frozen=True)
class Task:
    """Rows of (text, second text or None, number of the label), to train on and to evaluate on.

    labels: their names, sorted. metric: one of METRICS; f1 is that of the label that sorts last.
    """

    name: str
    labels: tuple[str, ...]
    metric: str
    train: tuple[tuple[str, str | None, int], ...]
    dev: tuple[tuple[str, str | None, int], ...]


@dataclass(frozen=True)
class Examples:
    """Token ids without padding, in the order of the file.

    types: token type ids, for models that tell two texts apart by them. labels: [examples].
    """

    ids: tuple[Integers, ...]
    types: tuple[Integers, ...] | None
    labels: Integers

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class EncodedTask:
    name: str
    labels: tuple[str, ...]
    metric: str
    train: Examples
    dev: Examples
    pad: int

    @property
    def floor(self) -> float:
        """The score of always answering the most frequent label of the training examples."""
        return floor(self.metric, self.train.labels, self.dev.labels)

    @property
    def digest(self) -> str:
        """sha256 of everything that a trial sees of it."""
        parts = [
            [
                [ids.tolist() for ids in part.ids],
                part.labels.tolist(),
                [types.tolist() for types in part.types] if part.types else None,
            ]
            for part in (self.train, self.dev)
        ]
        return sha256_bytes(json_bytes([self.labels, self.metric, self.pad, parts]))


def read_task(
    path: Path,
    *,
    metric: str | None = None,
    train_examples: int | None = None,
    dev_examples: int | None = None,
) -> Task:
    """The task in a folder with train.tsv and dev.tsv, or in one .tsv file.

    A file has a header, no quoting, and the columns label and text, or label, text_a and text_b.
    From a single file a random tenth is held out for evaluation. The task is called like the folder
    or file. metric: by default matthews for cola, f1 for mrpc and accuracy for all others.
    train_examples, dev_examples: a random subset of so many. All draws here are from a fixed seed,
    so that every sweep sees the same examples.

    Raises CorpusError, naming file and line, and UnknownNameError for an unknown metric.
    """
    if metric is not None and metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS, "learners trials run --help")
    if path.is_dir():
        name = path.resolve().name
        parts = [_read(path / f"{part}.tsv") for part in ("train", "dev")]
    else:
        name = path.stem
        rows = _read(path)
        order = np.random.default_rng(_DRAW).permutation(len(rows))
        cut = max(1, round(_HELD_OUT * len(rows)))
        parts = [[rows[place] for place in sorted(part)] for part in (order[cut:], order[:cut])]
    train, dev = (
        _subset(part, count)
        for part, count in zip(parts, (train_examples, dev_examples), strict=True)
    )
    labels = sorted({label for *_, label in train})
    if len(labels) < 2:
        raise CorpusError(
            f"{path}: the training examples have {len(labels)} label, and a choice takes two."
        )
    strange = sorted({label for *_, label in dev} - set(labels))
    if strange:
        raise CorpusError(
            f"{path}: the label {strange[0]!r} is among the examples to evaluate on and not among "
            f"those to train on, which have {', '.join(labels)}."
        )
    if metric in ("f1", "matthews") and len(labels) > 2:
        raise CorpusError(f"{path} has {len(labels)} labels, and {metric} is for two.")
    if metric is None:
        metric = _METRIC_OF.get(name, "accuracy") if len(labels) == 2 else "accuracy"
    number = {label: place for place, label in enumerate(labels)}
    return Task(
        name,
        tuple(labels),
        metric,
        *(tuple((a, b, number[label]) for a, b, label in part) for part in (train, dev)),
    )


Row = tuple[str, str | None, str]


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        raise CorpusError(
            f"there is no file {path}. A task is a folder with train.tsv and dev.tsv, or one .tsv "
            "file, with the columns label and text, or label, text_a and text_b."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 text. Save it as TSV in UTF-8.") from error
    header = lines[0].rstrip("\r").split("\t")
    names = ["label", "text"] if "text" in header else ["label", "text_a", "text_b"]
    if any(name not in header for name in names):
        raise CorpusError(
            f"{path} has the columns {', '.join(header)}, and must have label and text, or label, "
            "text_a and text_b, divided by tabs."
        )
    label, first, *second = (header.index(name) for name in names)
    rows: list[Row] = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.rstrip("\r").split("\t")
        if cells == [""]:
            continue
        if len(cells) != len(header):
            raise CorpusError(
                f"{path}, line {number}: {len(cells)} cells under {len(header)} columns."
            )
        rows.append((cells[first], cells[second[0]] if second else None, cells[label]))
    if len(rows) < 2:
        raise CorpusError(f"{path} has {len(rows)} examples.")
    return rows


def _subset(rows: list[Row], count: int | None) -> list[Row]:
    if count is None or count >= len(rows):
        return rows
    order = np.random.default_rng(_DRAW).permutation(len(rows))
    return [rows[place] for place in sorted(order[:count])]


def encode(task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedTask:
    """`task` as token ids, no example longer than `max_length`: the longer text loses its end.

    A tokenizer that marks where a second text begins does so; for others, as causal language models
    have, it begins on a new line.
    """
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    if not isinstance(pad, int):
        raise CorpusError(f"the tokenizer's padding is {pad!r}, not one token.")

    def examples(rows: Sequence[tuple[str, str | None, int]]) -> Examples:
        found = _tokens(rows, tokenizer, max_length)
        types = found.get("token_type_ids")
        return Examples(
            tuple(np.array(ids or [pad], dtype=np.int64) for ids in found["input_ids"]),
            None if types is None else tuple(np.array(t or [0], dtype=np.int64) for t in types),
            np.array([label for *_, label in rows], dtype=np.int64),
        )

    return EncodedTask(
        task.name, task.labels, task.metric, examples(task.train), examples(task.dev), pad
    )


def _tokens(
    rows: Sequence[tuple[str, str | None, int]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Any:
    first = [a for a, _, _ in rows]
    second = None
    if rows[0][1] is not None:
        marked = tokenizer.num_special_tokens_to_add(pair=True) > 0
        second = [b if marked else f"\n{b}" for _, b, _ in rows]
    return tokenizer(first, second, truncation=True, max_length=max_length)


def score(metric: str, predicted: Integers, labels: Integers) -> float:
    """The metric of predicted labels against the true ones, [examples] each."""
    if metric == "accuracy":
        return float(np.mean(predicted == labels))
    positive, true = predicted == 1, labels == 1
    both = int(np.sum(positive & true))
    if metric == "f1":
        claimed = int(positive.sum()) + int(true.sum())
        return 2 * both / claimed if claimed else 0.0
    neither = int(np.sum(~positive & ~true))
    wrong, missed = int(np.sum(positive & ~true)), int(np.sum(~positive & true))
    scale = (both + wrong) * (both + missed) * (neither + wrong) * (neither + missed)
    return (both * neither - wrong * missed) / math.sqrt(scale) if scale else 0.0


def floor(metric: str, train: Integers, dev: Integers) -> float:
    """The score on `dev` of always answering the most frequent label of `train`."""
    ((most, _),) = Counter(train.tolist()).most_common(1)
    return score(metric, np.full_like(dev, most), dev)
