"""Documents from text files, archives, JSONL, Parquet, `datasets` and the standard library."""

from __future__ import annotations

import ast
import fnmatch
import json
import lzma
import re
import sysconfig
import tarfile
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondary_learners.errors import CorpusError, UnknownNameError

__all__ = [
    "BUILTINS",
    "Document",
    "Source",
    "normalize",
    "read_documents",
    "read_files",
    "read_records",
    "read_texts",
    "visible_files",
]

_RULE = re.compile(r"[^\w\s]*([^\w\s.])\1{3,}[^\w\s]*")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


@dataclass(frozen=True)
class Document:
    """One text that is never divided between splits."""

    domain: str
    name: str
    text: str

    @property
    def size(self) -> int:
        """Its characters."""
        return len(self.text)


@dataclass(frozen=True)
class Source:
    """Where the documents of one domain come from: exactly one of files, dataset and builtin.

    files: a file, folder or glob below the corpus folder, or an absolute file or folder; .jsonl and
        .parquet give one document a row, any other file is one document (or many, divided by lines
        equal to `separator`, or at blank lines into blocks of at least `block_characters`).
    archive: a tar file in the corpus folder that holds `files`, used when the glob finds nothing.
    dataset: a path or name that `datasets.load_dataset` understands, with `split`.
    builtin: text that ships inside every CPython, one of `BUILTINS`.
    column: the column with the text, for rows.
    """

    domain: str
    files: str | None = None
    archive: str | None = None
    separator: str | None = None
    block_characters: int = 0
    dataset: str | None = None
    split: str = "train"
    column: str = "text"
    builtin: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("files", "dataset", "builtin") if getattr(self, name)]
        if len(given) != 1:
            raise CorpusError(
                f"the source of domain {self.domain!r} needs exactly one of files, dataset and "
                f"builtin, and has {' and '.join(given) or 'none'}. "
                "See those that `learners list --recipes` names."
            )


def normalize(text: str) -> str:
    """White space runs become one space, curly quotes straight ones, drawn rules disappear.

    Sources differ in line breaks, quotes and rules (----, ====, +--+--+); a filter could win on
    such layout alone, and a rule's loss is so far from a sentence's that it would drown the rest.
    """
    return " ".join(_RULE.sub(" ", text.translate(_QUOTES)).split())


def read_documents(
    sources: Iterable[Source], root: Path | None, *, clean: Callable[[str], str] = normalize
) -> list[Document]:
    """All documents of `sources`, cleaned, in a fixed order; raises CorpusError when empty."""
    documents = []
    for source in sources:
        texts = [
            Document(source.domain, name, text)
            for name, raw in _raw(source, root)
            if (text := clean(raw))
        ]
        if not texts and source.files and Path(source.files).is_absolute():
            raise CorpusError(f"{source.files} holds no text. Name a file or folder that does.")
        if not texts:
            raise CorpusError(
                f"no text for domain {source.domain!r}: nothing matches "
                f"{source.files or source.dataset or source.builtin!r} below {root}. "
                "Try `--corpus FOLDER` with the folder that holds it."
            )
        documents.extend(texts)
    return documents


def read_files(source: Source, root: Path | None) -> dict[str, str]:
    """The files of a source by name, whole and as they are; raises CorpusError for none."""
    files = {Path(name.rpartition(":")[0]).name: text for name, text in _files(source, root)}
    if not files:
        raise CorpusError(
            f"nothing matches {source.files!r} below {root}. Try `--corpus FOLDER` with the folder "
            "that holds it."
        )
    return files


def _raw(source: Source, root: Path | None) -> Iterator[tuple[str, str]]:
    if source.builtin:
        try:
            reader = BUILTINS[source.builtin]
        except KeyError:
            raise UnknownNameError(
                "built-in text", source.builtin, BUILTINS, "learners run --help"
            ) from None
        for name, text in reader():
            yield from _split(name, text, source)
    elif source.dataset:
        yield from _dataset(source)
    else:
        yield from _files(source, root)


def _files(source: Source, root: Path | None) -> Iterator[tuple[str, str]]:
    root, paths = _paths(source, root)
    if not paths and source.archive and (root / source.archive).is_file():
        for name, text in _archive(root / source.archive, str(source.files)):
            yield from _split(name, text, source)
        return
    for path in paths:
        name = path.relative_to(root).as_posix()
        if path.suffix in (".jsonl", ".parquet"):
            yield from ((f"{name}:{row}", text) for row, text in enumerate(_rows(path, source)))
        else:
            yield from _split(name, _text(path), source)


def _paths(source: Source, root: Path | None) -> tuple[Path, list[Path]]:
    """The files of a source, and the folder that their names are below."""
    assert source.files is not None
    given = Path(source.files)
    if given.is_absolute():
        if not given.exists():
            raise CorpusError(f"{given} does not exist. Name a text file, or a folder of them.")
        root = given.parent
        paths = visible_files(given) if given.is_dir() else [given]
    elif root is None or not root.is_dir():
        problem = f"folder {root} does not exist" if root else "folder is not given"
        raise CorpusError(
            f"the corpus {problem}, and domain {source.domain!r} needs {source.files!r} in it. "
            "Try `--corpus FOLDER`."
        )
    elif (root / given).exists():  # a name, which may hold a star
        paths = visible_files(root / given) if (root / given).is_dir() else [root / given]
    else:
        paths = sorted(root.glob(source.files))
    return root, [path for path in paths if path.is_file()]


def read_records(source: Source, root: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of the .jsonl and .parquet files of a source, or of its data set, with places.

    Raises CorpusError for a file that is neither, or damaged.
    """
    if source.dataset:
        for number, row in enumerate(_load_dataset(source)):
            yield f"{source.dataset}, row {number}", row
        return
    if not source.files:
        raise CorpusError(
            f"the source of domain {source.domain!r} has no rows: it is text of this package. "
            "Name a .jsonl or .parquet file, or a data set."
        )
    for path in _paths(source, root)[1]:
        if path.suffix == ".jsonl":
            for number, row in _json_rows(path):
                yield f"{path.name}, line {number}", row
        elif path.suffix == ".parquet":
            rows = (row for batch in _parquet(path).iter_batches() for row in batch.to_pylist())
            for number, row in enumerate(rows):
                yield f"{path.name}, row {number}", row
        else:
            raise CorpusError(
                f"{path} holds no rows of prompts and completions. Name a .jsonl or .parquet file."
            )


def visible_files(folder: Path) -> list[Path]:
    """The files below `folder` in order, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_texts(path: Path, column: str = "text") -> Iterator[str]:
    """The texts of one file (a line of .txt, a row of .jsonl or .parquet), in order."""
    if path.suffix in (".jsonl", ".parquet"):
        yield from _rows(path, Source("", files=path.name, column=column))
    else:
        yield from (line for line in _text(path).splitlines() if line.strip())


def _text(path: Path) -> str:
    return _decoded(path.read_bytes(), path)


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")  # a byte order mark is not text
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 text (byte {error.start}). Try `iconv -t utf-8`."
        ) from error


def _split(name: str, text: str, source: Source) -> Iterator[tuple[str, str]]:
    if source.separator is not None:
        separator = rf"^{re.escape(source.separator)}$"
        parts = re.split(separator, text, flags=re.MULTILINE)
    elif source.block_characters:
        parts = _blocks(text, source.block_characters)
    else:
        parts = [text]
    yield from ((f"{name}:{number}", part) for number, part in enumerate(parts))


def _blocks(text: str, least: int) -> list[str]:
    """Paragraphs gathered into blocks; a text without blank lines is divided at its line ends."""
    paragraphs = re.split(r"\n\s*\n", text)
    if len(paragraphs) == 1:
        paragraphs = text.splitlines()
    blocks: list[str] = []
    block = ""
    for paragraph in paragraphs:
        block += paragraph + "\n\n"
        if len(block) >= least:
            blocks.append(block)
            block = ""
    return [*blocks, block]


def _rows(path: Path, source: Source) -> Iterator[str]:
    if path.suffix == ".parquet":
        file = _parquet(path)
        if source.column not in file.schema_arrow.names:
            raise _no_column(path, source.column, file.schema_arrow.names)
        for batch in file.iter_batches(columns=[source.column]):
            yield from (text or "" for text in batch.column(0).to_pylist())
        return
    for _, row in _json_rows(path):
        if source.column not in row:
            raise _no_column(path, source.column, row)
        text = row[source.column]
        yield "" if text is None else str(text)


def _parquet(path: Path) -> Any:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise CorpusError(f"{path} is not a whole Parquet file: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with the numbers of their lines; a line of another kind is {}."""
    with path.open("rb") as lines:
        for number, data in enumerate(lines, start=1):
            line = _decoded(data, path)
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise CorpusError(f"{path}, line {number} is not JSON: {error}.") from error
            yield number, row if isinstance(row, dict) else {}


def _no_column(path: Path, column: str, known: Iterable[str]) -> CorpusError:
    return CorpusError(
        f"{path} has no column {column!r}; it has {', '.join(known) or 'none'}. "
        "Try `--column NAME`."
    )


def _archive(path: Path, pattern: str) -> Iterator[tuple[str, str]]:
    try:
        with tarfile.open(path) as archive:
            names = sorted(member.name for member in archive.getmembers() if member.isfile())
            for name in names:
                if not _matches(name, pattern):
                    continue
                file = archive.extractfile(name)
                assert file is not None
                yield name, _decoded(file.read(), path / name)
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise CorpusError(f"{path} is not a whole tar archive: {error}") from error


def _matches(name: str, pattern: str) -> bool:
    """Whether `Path.glob(pattern)` would find `name`: a star stays within one folder."""
    parts, globs = name.split("/"), pattern.split("/")
    return len(parts) == len(globs) and all(map(fnmatch.fnmatchcase, parts, globs))


def _load_dataset(source: Source) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source.dataset, split=source.split)
    except (OSError, ValueError) as error:  # missing names and unreachable hubs, in datasets' words
        raise CorpusError(f"cannot load the data set {source.dataset!r}: {error}") from error


def _dataset(source: Source) -> Iterator[tuple[str, str]]:
    assert source.dataset is not None
    rows = _load_dataset(source)
    if source.column not in rows.column_names:
        raise _no_column(Path(source.dataset), source.column, rows.column_names)
    for number, text in enumerate(rows[source.column]):
        yield f"{source.dataset}:{number}", text or ""


def _python_reference() -> Iterator[tuple[str, str]]:
    """The language reference that `help()` shows: a document a topic."""
    from pydoc_data.topics import topics

    yield from sorted(topics.items())


def _standard_library() -> Iterator[tuple[str, ast.Module]]:
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"pydoc_data", "test", "tests", "idle_test", "site-packages", "dist-packages"}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if skipped.isdisjoint(parts) and not parts[0].startswith(("lib", "_sysconfigdata")):
            yield "/".join(parts), ast.parse(path.read_bytes())


def _python_docstrings() -> Iterator[tuple[str, str]]:
    """The docstrings of the standard library: a document a module."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for name, tree in _standard_library():
        texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, owners)]
        yield name, "\n".join(text for text in texts if text)


def _unicode_names() -> Iterator[tuple[str, str]]:
    """The names of Unicode's characters: a document each 256 code points. Noise, to any reader."""
    for block in range(0, 0x110000, 256):
        names = (unicodedata.name(chr(code), "") for code in range(block, block + 256))
        lines = [name for name in names if name and not name.startswith(("CJK ", "HANGUL "))]
        if lines:
            yield f"U+{block:04X}", "\n".join(lines)


BUILTINS = {
    "python-reference": _python_reference,
    "python-docstrings": _python_docstrings,
    "unicode-names": _unicode_names,
}
