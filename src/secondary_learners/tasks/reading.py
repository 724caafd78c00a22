"""Classification tasks from TSV files, as texts and class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from secondary_learners.errors import CorpusError, UnknownNameError
from secondary_learners.tasks.metrics import METRICS

__all__ = ["Task", "TextRow", "read_rows", "read_task", "task_path"]

_METRIC_OF = {"cola": "matthews", "mrpc": "f1"}  # as GLUE scores them; accuracy for all others
_DRAW = 0  # seeds the choice of a subset and of a held-out tenth, the same for every trial
_HELD_OUT = 0.1


@dataclass(frozen=True)
class TextRow:
    """One example; second: the second text of a task over pairs. name: of its class."""

    first: str
    second: str | None
    name: str


@dataclass(frozen=True)
class Task:
    """Examples to train on and to evaluate on.

    classes: their names, sorted. metric: one of METRICS; f1 is that of the class that sorts last.
    """

    name: str
    classes: tuple[str, ...]
    metric: str
    train: tuple[TextRow, ...]
    dev: tuple[TextRow, ...]


def read_task(
    path: Path,
    *,
    metric: str | None = None,
    train_examples: int | None = None,
    dev_examples: int | None = None,
) -> Task:
    """The task in a folder with train.tsv and dev.tsv, or in one .tsv file; see `read_rows`.

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
        parts = [read_rows(path / f"{part}.tsv") for part in ("train", "dev")]
    else:
        name = path.stem
        rows = read_rows(path)
        order = np.random.default_rng(_DRAW).permutation(len(rows))
        cut = max(1, round(_HELD_OUT * len(rows)))
        parts = [[rows[place] for place in sorted(part)] for part in (order[cut:], order[:cut])]
    train, dev = (
        _subset(part, count)
        for part, count in zip(parts, (train_examples, dev_examples), strict=True)
    )
    classes = sorted({row.name for row in train})
    if len(classes) < 2:
        raise CorpusError(
            f"{path}: the training examples have the classes {', '.join(classes) or 'none'}, and a "
            "choice takes two."
        )
    if strange := sorted({row.name for row in dev} - set(classes)):
        raise CorpusError(
            f"{path}: the class {strange[0]!r} is among the examples to evaluate on and not among "
            f"those to train on, which have {', '.join(classes)}."
        )
    if metric in ("f1", "matthews") and len(classes) > 2:
        raise CorpusError(f"{path} has {len(classes)} classes, and {metric} is for two.")
    if metric is None:
        metric = _METRIC_OF.get(name, "accuracy") if len(classes) == 2 else "accuracy"
    return Task(name, tuple(classes), metric, tuple(train), tuple(dev))


def read_rows(path: Path) -> list[TextRow]:
    """The examples of a TSV file, in its order.

    It has a header and no quoting. The column `label` holds the name of the class; the text is in
    `text`, or in `text_a` and `text_b`, or in all other columns where there are one or two.
    Raises CorpusError for a file that is not like that, naming the line.
    """
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
    columns = _text_columns(header, path)
    place = header.index("label")
    rows: list[TextRow] = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.rstrip("\r").split("\t")
        if cells == [""]:
            continue
        if len(cells) != len(header):
            raise CorpusError(
                f"{path}, line {number}: {len(cells)} cells under {len(header)} columns."
            )
        first, *second = (cells[column] for column in columns)
        rows.append(TextRow(first, second[0] if second else None, cells[place]))
    if not rows:
        raise CorpusError(f"{path} has no examples: a header and nothing below it.")
    return rows


def _text_columns(header: Sequence[str], path: Path) -> list[int]:
    for names in (["text"], ["text_a", "text_b"], [name for name in header if name != "label"]):
        known = len(names) in (1, 2) and set(names) <= set(header) and "" not in names
        if "label" in header and known:
            return [header.index(name) for name in names]
    raise CorpusError(
        f"{path} has the columns {', '.join(header)}, and must have label and text, or label, "
        "text_a and text_b, divided by tabs."
    )


def _subset(rows: list[TextRow], count: int | None) -> list[TextRow]:
    if count is None or count >= len(rows):
        return rows
    order = np.random.default_rng(_DRAW).permutation(len(rows))
    return [rows[place] for place in sorted(order[:count])]


def task_path(name: str, corpus: Path | None) -> Path:
    """The file or folder `name` below `corpus`, by default the working directory.

    What is not there is also looked for without or with a leading `classification/`, the folder
    that holds all tasks. Raises CorpusError when it is nowhere.
    """
    inner = name.removeprefix("classification/")
    for spelling in (name, inner, f"classification/{inner}"):
        path = (corpus or Path()) / spelling
        if path.exists():
            return path
    where = "here" if corpus is None else f"in {corpus}"
    raise CorpusError(
        f"there is no file {name!r} {where}. Try `--corpus FOLDER`, the folder with it."
    )
