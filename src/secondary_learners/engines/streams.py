"""Files as streams of bytes: local or any address that fsspec knows, compressed or not."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import fsspec
import pyarrow

from secondary_learners.errors import CorpusError
from secondary_learners.text.corpus import visible_files

__all__ = ["ROWS", "Shard", "compressed", "find_shards", "open_stream", "suffix"]

ROWS = (".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".tsv")  # files of rows with fields
_COMPRESSIONS = (".bz2", ".gz", ".xz", ".zst")
_DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, pyarrow.ArrowInvalid)


def suffix(address: str) -> str:
    """The suffix that says what a file is, in lower case: ".jsonl" of "A.JSONL.gz"."""
    path = PurePosixPath(address.lower())
    return path.with_suffix("").suffix if path.suffix in _COMPRESSIONS else path.suffix


@dataclass(frozen=True)
class Shard:
    """A file with rows, or with lines that are a text each; `whole`: the file is one text."""

    address: str
    whole: bool = False


def find_shards(inputs: tuple[str, ...]) -> list[Shard]:
    """The files that inputs name (files, folders, patterns, fsspec addresses), in order, each once.

    A file in a folder is one text, unless its suffix says that it has rows. Raises CorpusError for
    an input that names nothing.
    """
    shards: dict[str, Shard] = {}
    for given in inputs:
        path, folder = Path(given), False
        if "://" in given:
            system, pattern = fsspec.core.url_to_fs(given)
            folder = system.isdir(pattern)
            names = system.find(pattern) if folder else system.glob(pattern)
            matches = [system.unstrip_protocol(name) for name in sorted(names)]
        elif path.is_dir():
            folder = True
            matches = [str(file) for file in visible_files(path)]
        elif path.exists():
            matches = [given]
        else:
            matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise CorpusError(f"{given!r} does not exist. Name a file, a folder or a pattern.")
        for match in matches:
            shards[match] = Shard(match, folder and suffix(match) not in ROWS)
    return list(shards.values())


@contextmanager
def open_stream(address: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed by its suffix; what is damaged is a CorpusError by name."""
    try:
        with fsspec.open(address, "rb") if "://" in address else open(address, "rb") as file:
            yield _decompressed(cast(IO[bytes], file), address)
    except _DAMAGED as error:
        raise CorpusError(
            f"{address} is damaged or cut short: {error}. Get it again; other files are not "
            "concerned."
        ) from error


def _decompressed(file: IO[bytes], address: str) -> IO[bytes]:
    ending = PurePosixPath(address.lower()).suffix
    if ending == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if ending == ".bz2":
        return cast(IO[bytes], bz2.BZ2File(file))
    if ending == ".xz":
        return cast(IO[bytes], lzma.LZMAFile(file))
    if ending == ".zst":
        return cast(IO[bytes], io.BufferedReader(_Zstandard(file)))
    return file


class _Zstandard(io.RawIOBase):
    """Zstandard through pyarrow, which Python's own library has from 3.14 on."""

    def __init__(self, file: IO[bytes]) -> None:
        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def compressed(file: IO[bytes], address: str) -> Iterator[IO[bytes]]:
    """A stream to write to that compresses into `file` by the suffix of `address`."""
    ending = PurePosixPath(address.lower()).suffix
    if ending == ".gz":  # no name and no time inside: the same bytes for the same rows
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
            yield cast(IO[bytes], stream)
    elif ending == ".bz2":
        with bz2.BZ2File(file, "wb") as stream:
            yield cast(IO[bytes], stream)
    elif ending == ".xz":
        with lzma.LZMAFile(file, "wb") as stream:
            yield cast(IO[bytes], stream)
    elif ending == ".zst":
        sink = pyarrow.CompressedOutputStream(pyarrow.PythonFile(file, "w"), "zstd")
        yield cast(IO[bytes], sink)
        sink.close()
    else:
        yield file
