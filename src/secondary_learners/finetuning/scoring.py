"""Scoring a corpus of texts: rows in, scores out, the best share kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from secondary_learners.errors import CorpusError
from secondary_learners.files import atomic_path, write_bytes
from secondary_learners.gains.corpus import normalise, read_texts
from secondary_learners.learners.artifact import Learner

__all__ = ["best_share", "read_rows", "score_texts", "write_rows"]

_CHUNK = 1024  # texts tokenised at once
_TOKENS = 65_536  # tokens scored at once, padding included


def read_rows(path: Path, column: str = "text") -> list[dict[str, Any]]:
    """The rows of a .jsonl or .parquet file, the lines of any other, or the files of a folder.

    Every row has its text, a string, in `column`. Raises CorpusError for a file that is damaged,
    is not UTF-8, has no such column or is empty.
    """
    rows: list[dict[str, Any]]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        rows = [{"file": str(file), column: "\n".join(read_texts(file, column))} for file in files]
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
    """Scores of whole texts, normalised as the learner's own corpus was; see `Learner.score`.

    Texts of similar length are scored together, so that little of a batch is padding.
    """
    learner.check_tokenizer(tokenizer)
    scores = np.empty(len(texts))
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    with tqdm(total=len(texts), desc="scoring", unit="text", disable=not progress) as bar:
        for begin in range(0, len(texts), _CHUNK):
            chunk = [normalise(text) for text in texts[begin : begin + _CHUNK]]
            ids = [encoding.ids for encoding in encode(chunk, add_special_tokens=False)]
            order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
            while order:
                rows = max(1, _TOKENS // max(1, len(ids[order[-1]])))
                batch, order = order[-rows:], order[:-rows]
                scores[[begin + i for i in batch]] = _score(learner, [ids[i] for i in batch])
            bar.update(len(chunk))
    return [float(score) for score in scores]


def _score(learner: Learner, sequences: Sequence[Sequence[int]]) -> Any:
    mask = np.arange(max(1, *map(len, sequences), 0)) < np.array(
        [[len(sequence)] for sequence in sequences]
    )
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences])
    return learner.score(ids, mask).cpu().numpy()


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
