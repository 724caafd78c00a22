"""Scoring files into one file: with a score beside each row, or the best share of them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet
from tqdm import tqdm

from secondary_learners.engines.parquet import copy_parquet, one_schema, schema_of, table_of
from secondary_learners.engines.rows import Row, format_of, in_batches, read_shard
from secondary_learners.engines.scoring import RowScorer
from secondary_learners.engines.streams import ROWS, Shard, compressed, suffix
from secondary_learners.errors import CorpusError
from secondary_learners.files import atomic_path

__all__ = [
    "Scored",
    "best_share",
    "check_not_input",
    "check_output",
    "keep_stdin",
    "score_shards",
    "write_scored",
]


@dataclass(frozen=True)
class Scored:
    """Shards with the score of each of their rows [rows], one shard after the other."""

    shards: tuple[Shard, ...]
    column: str
    scores: npt.NDArray[np.float64]

    def rows(self) -> Iterator[Row]:
        """The rows, read again."""
        for shard in self.shards:
            yield from read_shard(shard, self.column)


def keep_stdin(stack: ExitStack, name: str) -> str:
    """Standard input as a temporary file, of the format that `name` says, while `stack` is open."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = folder / name
    with path.open("wb") as file:
        while data := sys.stdin.buffer.read(1 << 20):
            file.write(data)
    return str(path)


def score_shards(
    shards: Sequence[Shard],
    scorer: RowScorer,
    column: str,
    *,
    score: str | None = None,
    progress: bool = True,
) -> Scored:
    """The score of every row.

    score: what the new column will be called. Raises CorpusError for a row without a text, one that
    already has such a column, and for no rows.
    """
    parts: list[npt.NDArray[np.float64]] = []
    with tqdm(desc="scoring", unit=" rows", disable=not progress) as bar:
        for shard in shards:
            if suffix(shard.address) == ".parquet":
                schema_of(shard.address)
            for batch in in_batches(read_shard(shard, column)):
                for row in batch:
                    if score in row.fields:
                        raise _taken(row.where, str(score))
                parts.append(scorer.scores(batch).values)
                bar.update(len(batch))
    if not parts:
        names = ", ".join(shard.address for shard in shards[:3])
        raise CorpusError(f"{names} holds no text. Name a file or folder that does.")
    return Scored(tuple(shards), column, np.concatenate(parts))


def best_share(scores: npt.NDArray[np.float64], keep: float) -> npt.NDArray[np.bool_]:
    """Which rows [rows] are the best `keep` (at least one); of equals, the first."""
    count = max(1, round(keep * len(scores)))
    flags = np.zeros(len(scores), np.bool_)
    flags[np.argsort(-scores, kind="stable")[:count]] = True
    return flags


def write_scored(
    scored: Scored, out: Path, flags: npt.NDArray[np.bool_], *, score: str = "score"
) -> None:
    """Write the rows where `flags` [rows] is true, in their order, with their scores.

    Rows are written as they were read where the formats agree: the same bytes and one field more,
    the same types in Parquet; a text (.txt) has no place for a score.
    """
    addresses = [shard.address for shard in scored.shards]
    family = _family(str(out))
    if family == ".parquet" and _kinds(scored.shards) == {".parquet"} and one_schema(addresses):
        with atomic_path(out) as temporary:
            copy_parquet(addresses, temporary, flags, {score: scored.scores})
        return
    same = _kinds(scored.shards) == {family}
    rows = (
        (row if same else Row(row.where, row.fields), value)
        for row, kept, value in zip(
            scored.rows(), flags.tolist(), scored.scores.tolist(), strict=True
        )
        if kept
    )
    with atomic_path(out) as temporary:
        if family == ".parquet":
            table = table_of({**row.fields, score: value} for row, value in rows)
            pyarrow.parquet.write_table(table, temporary)
            return
        kind = format_of(str(out))
        assert kind is not None
        with temporary.open("wb") as file, compressed(file, str(out)) as stream:
            kind.write(stream, rows, score, scored.column)


def check_output(shards: Sequence[Shard], out: Path, column: str, score: str) -> None:
    """Raise CorpusError for what would fail when all rows are scored, before any is.

    That is an output that is one of the inputs, a Parquet file with a column named as `score`, and
    fields of types that no column of Parquet holds.
    """
    check_not_input(shards, out, "--out")
    family, kinds = _family(str(out)), _kinds(shards)
    if family == ".txt":
        return
    addresses = [shard.address for shard in shards]
    if kinds == {".parquet"}:
        for address in addresses:
            if score in schema_of(address).names:
                raise _taken(address, score)
        if family == ".parquet" and one_schema(addresses):
            return
    if family == ".parquet":
        table_of(row.fields for shard in shards for row in read_shard(shard, column))


def check_not_input(shards: Sequence[Shard], path: Path, option: str) -> None:
    """Raise CorpusError for a file to write that is one of the inputs."""
    for shard in shards:
        local = "://" not in shard.address
        if local and path.exists() and os.path.samefile(shard.address, path):
            raise CorpusError(
                f"{option} {path} is one of the inputs, and would replace it. Name another file."
            )


def _kinds(shards: Sequence[Shard]) -> set[str]:
    return {_kind(shard) for shard in shards}


def _kind(shard: Shard) -> str:
    return ".txt" if shard.whole else _family(shard.address)


def _family(address: str) -> str:
    """The format that rows are written in: .jsonl for all of JSON, .txt for what has no fields."""
    ending = suffix(address)
    if ending not in ROWS:
        return ".txt"
    return ".jsonl" if ending in (".json", ".ndjson") else ending


def _taken(where: str, score: str) -> CorpusError:
    return CorpusError(
        f"{where} already has a column {score!r}, which would be lost. Name the new one: "
        "`--score-column NAME`."
    )
