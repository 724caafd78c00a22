"""Scoring a corpus of texts: rows in, scores out, the best share kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from secondary_learners.errors import CorpusError
from secondary_learners.files import atomic_path, write_bytes
from secondary_learners.filtering.selection import pad
from secondary_learners.learners.artifact import Learner
from secondary_learners.text.corpus import (
    Source,
    normalize,
    read_records,
    read_texts,
    visible_files,
)
from secondary_learners.text.examples import Examples, encode
from secondary_learners.text.instructions import instruction

__all__ = [
    "Reading",
    "best_share",
    "instruction_plan",
    "mean_contributions",
    "mean_scores",
    "read_examples",
    "read_rows",
    "score_examples",
    "score_texts",
    "write_rows",
]

_CHUNK = 1024  # texts tokenized at once
_TOKENS = 65_536  # tokens scored at once, padding included


def read_rows(path: Path, column: str = "text") -> list[dict[str, Any]]:
    """The rows of a .jsonl or .parquet file, the lines of any other, or the files of a folder.

    Every row has its text, a string, in `column`. Raises CorpusError for a file that is damaged,
    is not UTF-8, has no such column or is empty.
    """
    rows: list[dict[str, Any]]
    if path.is_dir():
        rows = [
            {"file": str(file), column: "\n".join(read_texts(file, column))}
            for file in visible_files(path)
        ]
    else:
        texts = list(read_texts(path, column))  # first, since it checks the file
        rows = [{**row, column: text} for row, text in zip(_fields(path), texts, strict=False)]
    if not rows:
        raise CorpusError(f"{path} holds no text. Name a file or folder that does.")
    return rows


def _fields(path: Path) -> Iterator[dict[str, Any]]:
    """What each text of a file comes with."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8-sig") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    else:
        yield from itertools.repeat({})


def score_texts(
    learner: Learner, tokenizer: Any, texts: Sequence[str], *, progress: bool = True
) -> list[float]:
    """Scores of whole texts, normalized as the learner's own corpus was; see `Learner.score`.

    A text longer than the learner's contexts is scored in windows of that length, and has their
    mean, each weighted by its tokens: scores are calibrated at that length and no other.
    """
    learner.check_tokenizer(tokenizer)
    scores = np.empty(len(texts))
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    with tqdm(total=len(texts), desc="scoring", unit="text", disable=not progress) as bar:
        for begin in range(0, len(texts), _CHUNK):
            chunk = [normalize(text) for text in texts[begin : begin + _CHUNK]]
            ids = [encoding.ids for encoding in encode(chunk, add_special_tokens=False)]
            scores[begin : begin + len(ids)] = mean_scores(learner, ids)
            bar.update(len(chunk))
    return [float(score) for score in scores]


@dataclass(frozen=True)
class Reading:
    """How the examples that a learner was made from were read."""

    columns: tuple[str, str]
    truncate: str
    longest: int


def instruction_plan(learner: Learner) -> Reading | None:
    """How a learner made from instructions reads them; None for one made from running text."""
    corpus = learner.config.corpus
    if corpus.get("format") != "instructions":
        return None
    columns = str(corpus["prompt"]), str(corpus["completion"])
    return Reading(columns, str(corpus["truncate"]), learner.config.context_length)


def read_examples(
    path: Path, tokenizer: Any, plan: Reading, columns: tuple[str, str] | None = None
) -> tuple[list[dict[str, Any]], Examples]:
    """The rows of a .jsonl or .parquet file, or of a folder of them, and their examples.

    columns: of the prompt and the completion, by default those of the learner's own. Raises
    CorpusError naming file and line of a row that is no example.
    """
    found = list(read_records(Source("", files=str(path.absolute())), None))
    if not found:
        raise CorpusError(f"{path} holds no rows. Name a file or folder that does.")
    examples = encode(
        [instruction(row, where, columns or plan.columns) for where, row in found],
        tokenizer,
        document=range(len(found)),
        domain=[0] * len(found),
        domains=("examples",),
        longest=plan.longest,
        truncate=plan.truncate,
    )
    return [row for _, row in found], examples


def score_examples(learner: Learner, tokenizer: Any, examples: Examples) -> list[float]:
    """Scores of prompts with completions, each read as a whole; see `Learner.score`."""
    learner.check_tokenizer(tokenizer)
    scores = np.empty(len(examples))
    order = np.argsort(-examples.lengths, kind="stable")
    begin = 0
    while begin < len(order):
        rows = max(1, _TOKENS // int(examples.lengths[order[begin]]))
        part = order[begin : begin + rows]
        ids, mask, _ = examples.select(part).padded()
        scores[part] = learner.score(ids, mask).cpu().numpy()
        begin += rows
    return [float(score) for score in scores]


def mean_scores(learner: Learner, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """The token-weighted mean score of each text's windows [texts], from token ids."""
    length = learner.config.context_length
    windows = [(number, part) for number, text in enumerate(texts) for part in _cut(text, length)]
    total, weight = np.zeros(len(texts)), np.zeros(len(texts))
    rows = max(1, _TOKENS // length)
    for part in (windows[begin : begin + rows] for begin in range(0, len(windows), rows)):
        sizes = np.array([len(window) for _, window in part])
        ids, mask = pad([window for _, window in part])
        found = learner.score(ids, mask).cpu().numpy()
        owners = [number for number, _ in part]
        np.add.at(total, owners, found * np.maximum(sizes, 1))
        np.add.at(weight, owners, np.maximum(sizes, 1))
    return total / weight


def mean_contributions(learner: Learner, text: Sequence[int]) -> list[float]:
    """What each token adds to the score that `mean_scores` gives a text [tokens]."""
    return [
        share * len(window) / len(text)
        for window in _cut(text, learner.config.context_length)
        for share in learner.contributions([window])[0].tolist()
    ]


def _cut(text: Sequence[int], length: int) -> list[Sequence[int]]:
    """Windows of `length` tokens, the last one shorter; one empty window for no tokens."""
    return [text[begin : begin + length] for begin in range(0, max(1, len(text)), length)]


def best_share(scores: Sequence[float], keep: float) -> list[int]:
    """Positions of the best `keep` of the texts (at least one), in their original order."""
    count = max(1, round(keep * len(scores)))
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def write_rows(path: Path, rows: Sequence[dict[str, Any]], column: str = "text") -> None:
    """Write rows as .parquet, .jsonl, or the texts alone, one a line; whole or not at all."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        with atomic_path(path) as temporary:
            names = dict.fromkeys(name for row in rows for name in row)  # rows may differ
            columns = {name: [row.get(name) for row in rows] for name in names}
            pyarrow.parquet.write_table(pyarrow.table(columns), temporary)
    elif path.suffix == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        write_bytes(path, "".join(lines).encode())
    else:
        lines = (" ".join(row[column].splitlines()) + "\n" for row in rows)
        write_bytes(path, "".join(lines).encode())
