"""The scores of one shard in a file beside others: id, score and tokens of each row, in order.

The footer of the file says of which bytes and of which scorer they are, with their histogram: a
sidecar is whole or absent, so one that is there, and of the same bytes and scorer, is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.parquet

from secondary_learners.engines.histograms import Histogram
from secondary_learners.errors import CorpusError

__all__ = [
    "Facts",
    "Scores",
    "SidecarRows",
    "SidecarWriter",
    "read_facts",
    "read_sidecar",
    "sidecar",
]

_KEY = b"secondary_learners"
_GROUP = 64  # batches in a row group
_SCHEMA = pyarrow.schema(
    [("id", pyarrow.string()), ("score", pyarrow.float64()), ("tokens", pyarrow.int64())]
)


class Scores(NamedTuple):
    """The scores of rows [rows] and how many tokens each has [rows]."""

    values: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Facts:
    """What a sidecar is of: the shard's name, what its bytes are, the scorer's identity."""

    shard: str
    input: dict[str, Any]
    scorer: dict[str, Any]
    documents: int = 0
    tokens: int = 0
    histogram: tuple[tuple[int, int, int], ...] = ()

    def of_the_same(self, other: Facts) -> bool:
        """Whether both are of the same bytes and scorer."""
        return (self.shard, self.input, self.scorer) == (other.shard, other.input, other.scorer)


@dataclass(frozen=True)
class SidecarRows:
    """Some rows of a sidecar, all of equal length, from row `begin` on."""

    begin: int
    names: Any  # an array of pyarrow: few need its strings
    scores: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]

    def take(self, index: npt.NDArray[np.int64]) -> SidecarRows:
        """The rows at the places `index` [chosen] of these."""
        names = self.names.take(pyarrow.array(index))
        return SidecarRows(self.begin, names, self.scores[index], self.tokens[index])

    def ids(self) -> list[str]:
        """What each row is called [rows]."""
        return list(self.names.to_pylist())

    def id(self, place: int) -> str:
        """What one of these rows is called."""
        return str(self.names[place].as_py())


class SidecarWriter:
    """Writes the scores of a shard in batches; leaving the block writes the footer."""

    def __init__(self, path: Path, facts: Facts) -> None:
        self._facts, self._histogram = facts, Histogram()
        self._waiting: list[Any] = []
        self._file = pyarrow.parquet.ParquetWriter(path, _SCHEMA, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        footer = json.dumps(asdict(self.facts), sort_keys=True)
        self._file.add_key_value_metadata({_KEY: footer})
        self._file.close()

    def write(self, ids: Sequence[str], scores: Scores) -> None:
        columns = [pyarrow.array(ids), pyarrow.array(scores.values), pyarrow.array(scores.tokens)]
        self._waiting.append(pyarrow.record_batch(columns, schema=_SCHEMA))
        self._histogram.add(scores.values, scores.tokens)
        if len(self._waiting) == _GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pyarrow.Table.from_batches(self._waiting))
            self._waiting.clear()

    @property
    def facts(self) -> Facts:
        """Those of what was written so far."""
        histogram = self._histogram
        rows = tuple((a, b, c) for a, b, c in histogram.to_json())
        one = self._facts
        return Facts(one.shard, one.input, one.scorer, histogram.documents, histogram.tokens, rows)


def sidecar(folder: Path, name: str) -> Path:
    """Where the scores of a shard are."""
    return folder / f"{name}.scores.parquet"


def read_facts(path: Path) -> Facts:
    """What a sidecar is of. Raises CorpusError for a file that is not a sidecar."""
    try:
        values = json.loads(pyarrow.parquet.read_metadata(path).metadata[_KEY])
    except (pyarrow.ArrowException, OSError, TypeError, KeyError) as error:
        raise CorpusError(
            f"{path} does not hold scores of `learners score --out FOLDER/`. Remove it, and score "
            "again: only what is missing is scored."
        ) from error
    return Facts(
        **{
            **values,
            "histogram": tuple((a, b, c) for a, b, c in values["histogram"]),
        }
    )


def read_sidecar(path: Path) -> Iterator[SidecarRows]:
    """The rows of a sidecar, a batch at a time."""
    begin = 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            ids, scores, tokens = batch.columns
            yield SidecarRows(begin, ids, scores.to_numpy(), tokens.to_numpy())
            begin += batch.num_rows
