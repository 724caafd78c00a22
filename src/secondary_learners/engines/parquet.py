"""Parquet files with their scores: every column keeps its type, precision and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.parquet

from secondary_learners.errors import CorpusError

__all__ = ["copy_parquet", "one_schema", "read_batches", "schema_of", "table_of"]


def read_batches(
    address: str, columns: Sequence[str] | None = None, rows: int = 65_536
) -> Iterator[Any]:
    """The record batches of a file, of `rows` rows; raises CorpusError for one that is damaged."""
    try:
        with fsspec.open(address, "rb") if "://" in address else open(address, "rb") as file:
            yield from pyarrow.parquet.ParquetFile(file).iter_batches(rows, columns=columns)
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(f"{address} is not a whole Parquet file: {error}") from error


def schema_of(address: str) -> Any:
    """The schema of a file; raises CorpusError for a name that two columns have."""
    try:
        with fsspec.open(address, "rb") if "://" in address else open(address, "rb") as file:
            schema = pyarrow.parquet.ParquetFile(file).schema_arrow
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(f"{address} is not a whole Parquet file: {error}") from error
    if len(set(schema.names)) < len(schema.names):
        raise CorpusError(f"{address} has two columns of one name. Rename one of them.")
    return schema


def one_schema(addresses: Sequence[str]) -> Any | None:
    """The schema that all the files have; None where they differ."""
    schemas = [schema_of(address) for address in addresses]
    return schemas[0] if all(schema.equals(schemas[0]) for schema in schemas) else None


def copy_parquet(
    addresses: Sequence[str],
    out: Path,
    flags: npt.NDArray[np.bool_],
    added: Mapping[str, npt.NDArray[np.float64]],
) -> None:
    """Write the rows where `flags` [rows] is true, with columns of numbers [rows] by their names.

    The files have one schema, and every column keeps it.
    """
    schema = schema_of(addresses[0])
    for name in added:
        schema = schema.append(pyarrow.field(name, pyarrow.float64()))
    with pyarrow.parquet.ParquetWriter(out, schema) as writer:
        begin = 0
        for batch in (batch for address in addresses for batch in read_batches(address)):
            part = slice(begin, begin + batch.num_rows)
            begin += batch.num_rows
            numbers = [pyarrow.array(column[part]) for column in added.values()]
            whole = pyarrow.record_batch([*batch.columns, *numbers], schema=schema)
            writer.write_batch(whole.filter(pyarrow.array(flags[part])))


def table_of(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Rows with fields, which may differ, as a table.

    Raises CorpusError for a field whose values are of types that no column holds together.
    """
    columns: dict[str, list[Any]] = {}
    count = 0
    for row in rows:
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (count - len(column)))
            column.append(value)
        count += 1
    arrays = {}
    for name, column in columns.items():
        column.extend([None] * (count - len(column)))
        try:
            arrays[name] = pyarrow.array(column)
        except (pyarrow.ArrowException, OverflowError) as error:
            raise CorpusError(
                f"the values of {name!r} do not fit into one column of Parquet: {error}. Write "
                "them as they are: --out FILE.jsonl."
            ) from error
    return pyarrow.table(arrays)
