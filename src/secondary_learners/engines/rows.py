"""Rows of text files, as they are read to be scored and written again with their scores.

Line formats keep the bytes of each row, so that what is written is what was read and a score.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol

from secondary_learners.engines.streams import Shard, open_stream, suffix
from secondary_learners.errors import CorpusError

__all__ = ["Format", "Row", "format_of", "in_batches", "read_shard", "text_of", "whole_characters"]

_BATCH = 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Row:
    """One row: its fields, where it is ("pool.jsonl, line 3") and its bytes in a file of lines."""

    where: str
    fields: Mapping[str, Any]
    raw: bytes = b""


Rows = Iterator[tuple[Row, float]]  # with their scores


class Format(Protocol):
    """How rows are read from a stream and written to one; raises CorpusError naming the place.

    score: what the column with the scores is called; "" to write the rows alone.
    """

    def read(self, stream: IO[bytes], name: str, column: str) -> Iterator[Row]: ...

    def write(self, stream: IO[bytes], rows: Rows, score: str, column: str) -> None: ...


def format_of(address: str) -> Format | None:
    """The format of a file by its suffix; None for Parquet, which is read by the batch."""
    ending = suffix(address)
    return None if ending == ".parquet" else _FORMATS.get(ending, _Lines())


def read_shard(shard: Shard, column: str, only: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of one file; `only`: of Parquet, the columns that are needed."""
    kind = format_of(shard.address)
    if shard.whole:
        with open_stream(shard.address) as stream:
            lines = [text for _, _, text in _numbered(stream, shard.address)]
        name = os.fsencode(shard.address).decode("utf-8", "replace")
        yield Row(name, {"file": name, column: "\n".join(lines)})
    elif kind is None:
        yield from _parquet_rows(shard.address, only)
    else:
        with open_stream(shard.address) as stream:
            yield from kind.read(stream, shard.address, column)


def in_batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """The rows in lists, each of as many as are scored at once."""
    while batch := list(itertools.islice(rows, _BATCH)):
        yield batch


def text_of(row: Row, column: str) -> str:
    """The text of a row; raises CorpusError unless the column holds a string.

    Half of a surrogate pair, which JSON can spell and UTF-8 cannot, is read as U+FFFD.
    """
    try:
        text = row.fields[column]
    except KeyError:
        raise CorpusError(
            f"{row.where} has no column {column!r}; it has {', '.join(row.fields) or 'none'}. "
            "Try `--column NAME`."
        ) from None
    if not isinstance(text, str):
        raise CorpusError(
            f"{row.where}: {column!r} is {_short(text)}, and not a string. Leave the row out, or "
            "name another column with `--column NAME`."
        )
    return whole_characters(text)


def whole_characters(text: str) -> str:
    """`text` as UTF-8 can spell it."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _numbered(stream: IO[bytes], name: str) -> Iterator[tuple[int, bytes, str]]:
    """The lines that are not blank: number, bytes without the line's end, text."""
    begin = 0
    for number, line in enumerate(stream, start=1):  # divided at \n alone
        data = line.rstrip(b"\n")
        data = data[:-1] if data.endswith(b"\r") else data
        data = data.removeprefix(_BOM)  # also of a second file after a first
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            skipped = len(line.rstrip(b"\r\n")) - len(data)
            raise CorpusError(
                f"{name}, line {number} is not UTF-8 text (byte {begin + skipped + error.start} "
                "of the file). Try `iconv -t utf-8`, or leave the file out."
            ) from error
        begin += len(line)
        if text.strip():
            yield number, data, text


class _Lines:
    """A text a line."""

    def read(self, stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
        for number, data, text in _numbered(stream, name):
            yield Row(f"{name}, line {number}", {column: text}, data)

    def write(self, stream: IO[bytes], rows: Rows, score: str, column: str) -> None:
        """The texts alone: there is no place for a score."""
        for row, _ in rows:
            line = row.raw or " ".join(text_of(row, column).splitlines()).encode()
            stream.write(line + b"\n")


class _JsonLines:
    """A JSON object a line."""

    def read(self, stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
        for number, data, text in _numbered(stream, name):
            where = f"{name}, line {number}"
            yield Row(where, _object(_parsed(text, where), where), data)

    def write(self, stream: IO[bytes], rows: Rows, score: str, column: str) -> None:
        """Each object's own bytes, with the score as one more field before its last brace."""
        for row, value in rows:
            raw = row.raw.rstrip() or _dumped(row.fields)
            if not score:
                stream.write((row.raw or raw) + b"\n")
                continue
            addition = f"{json.dumps(score)}: {value!r}}}\n".encode()
            comma = b", " if row.fields else b""
            stream.write(raw[:-1].rstrip() + comma + addition)


class _Json:
    """An array of JSON objects, one object, or objects by the line under the name .json."""

    def read(self, stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
        data = stream.read()
        try:
            text = data.removeprefix(_BOM).decode("utf-8")
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):  # not one value: lines, whose faults have a number
            yield from _JsonLines().read(io.BytesIO(data), name, column)
            return
        values = value if isinstance(value, list) else [value]
        for number, item in enumerate(values, start=1):
            where = f"{name}, item {number}"
            yield Row(where, _object(item, where))

    write = _JsonLines.write


class _Separated:
    """A table with a header line, its cells divided by `delimiter` and quoted where need be."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter

    def read(self, stream: IO[bytes], name: str, column: str) -> Iterator[Row]:
        csv.field_size_limit(sys.maxsize)
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        table = csv.reader(text, delimiter=self._delimiter, strict=True)
        try:
            header = next(table, [])
            if len(set(header)) < len(header):
                raise CorpusError(f"{name} has two columns of one name. Rename one of them.")
            for cells in table:
                if not cells:
                    continue
                where = f"{name}, line {table.line_num}"
                if len(cells) != len(header):
                    raise CorpusError(
                        f"{where} has {len(cells)} cells, and the header {len(header)}. Quote "
                        "cells that hold the delimiter or a line's end."
                    )
                yield Row(where, dict(zip(header, cells, strict=True)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise CorpusError(
                f"{name}, line {table.line_num + 1} cannot be read as a table: {error}."
            ) from error
        finally:
            text.detach()

    def write(self, stream: IO[bytes], rows: Rows, score: str, column: str) -> None:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        table = csv.writer(text, delimiter=self._delimiter, lineterminator="\n")
        header: Sequence[str] = ()
        for row, value in rows:
            if not header:
                header = list(row.fields)
                table.writerow([*header, score] if score else header)
            cells = [row.fields[name] for name in header]
            table.writerow([*cells, repr(value)] if score else cells)
        text.detach()


_FORMATS: Mapping[str, Format] = {
    ".jsonl": _JsonLines(),
    ".ndjson": _JsonLines(),
    ".json": _Json(),
    ".csv": _Separated(","),
    ".tsv": _Separated("\t"),
}


def _dumped(fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(dict(fields), ensure_ascii=False, default=str)
    return whole_characters(text).encode()


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON: {error}. Correct it or leave it out.") from error


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorpusError(
            f"{where} is {_short(value)}, and not an object with fields. Correct it or leave it "
            "out."
        )
    return value


def _parquet_rows(address: str, only: Sequence[str] | None) -> Iterator[Row]:
    from secondary_learners.engines.parquet import read_batches, schema_of

    if only is not None and not set(only) <= set(schema_of(address).names):
        only = None  # whoever looks for the column says what there is
    number = 0
    for batch in read_batches(address, only, rows=1024):
        for fields in batch.to_pylist(maps_as_pydicts="lossy"):
            number += 1
            yield Row(f"{address}, row {number}", fields)
