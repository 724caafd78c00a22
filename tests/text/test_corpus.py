"""Documents from every kind of source, and what is said when there are none."""

from __future__ import annotations

import json
import re
import tarfile
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.errors import CorpusError, UnknownNameError
from secondary_learners.text.corpus import (
    BUILTINS,
    Document,
    Source,
    normalize,
    read_documents,
    read_texts,
)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_jsonl(path: Path, *rows: object) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, **columns: list[object]) -> Path:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def write_archive(path: Path, folder: Path) -> Path:
    with tarfile.open(path, "w:xz") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # the order in it must not matter
            archive.add(file, file.relative_to(folder).as_posix(), recursive=False)
    return path


def texts(root: Path | None, **source: str) -> list[str]:
    return [document.text for document in read_documents([Source("prose", **source)], root)]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets` writes its cache below tmp_path and asks nobody."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@given(st.text())
def test_normalized_text_has_single_spaces_and_straight_quotes(text: str) -> None:
    normal = normalize(text)
    assert not re.search(r"\s\s|^\s|\s$|[^\S ]|[\u2018\u2019\u201c\u201d]", normal)
    assert normalize(normal) == normal
    assert len(normal.split()) == len(text.split())


def test_each_text_file_is_a_document_in_the_order_of_the_names(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/10.txt", "b/1.txt", "b/notes.md"):
        write(tmp_path / name, f"\u201ctext\u201d\n\n  of {name}")
    found = read_documents([Source("prose", files="*/*.txt")], tmp_path)
    assert [document.text for document in found] == [
        '"text" of a/10.txt',
        '"text" of b/1.txt',
        '"text" of b/2.txt',
    ]
    assert {document.domain for document in found} == {"prose"}
    assert len({document.name for document in found}) == 3


def test_sources_follow_each_other_and_keep_their_domains(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "one")
    write(tmp_path / "b.txt", "two")
    sources = [Source("second", files="b.txt"), Source("first", files="a.txt")]
    found = read_documents(sources, tmp_path)
    assert [(document.domain, document.text) for document in found] == [
        ("second", "two"),
        ("first", "one"),
    ]


def test_a_separator_line_divides_a_file_into_documents(tmp_path: Path) -> None:
    text = "one <|doc|> still one\n<|doc|>\n\n  \n<|doc|>\ntwo\n"
    write(tmp_path / "a.txt", text)
    assert texts(tmp_path, files="*.txt", separator="<|doc|>") == ["one <|doc|> still one", "two"]
    assert texts(tmp_path, files="*.txt") == [normalize(text)]


def test_a_separator_is_a_string_and_no_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "one\n***\ntwo\n")
    assert texts(tmp_path, files="*.txt", separator="***") == ["one", "two"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"\xef\xbb\xbfone")
    assert texts(tmp_path, files="a.txt") == ["one"]


def test_each_row_of_jsonl_is_a_document(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", {"text": "one\ntwo"}, {"text": "é", "other": 1})
    path.write_text(path.read_text() + "\n")
    assert texts(tmp_path, files="*.jsonl") == ["one two", "é"]


def test_each_row_of_parquet_is_a_document(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet", body=["one\ntwo", "é"], other=[1, 2])
    assert texts(tmp_path, files="*.parquet", column="body") == ["one two", "é"]


@pytest.mark.usefixtures("no_hub")
def test_rows_without_text_are_no_documents(tmp_path: Path) -> None:
    rows = ["one", None, "", "two"]
    write_jsonl(tmp_path / "rows.jsonl", *({"text": row} for row in rows))
    write_parquet(tmp_path / "rows.parquet", text=rows)
    write_jsonl(tmp_path / "data" / "train.jsonl", *({"text": row} for row in rows))
    assert texts(tmp_path, files="rows.jsonl") == ["one", "two"]
    assert texts(tmp_path, files="rows.parquet") == ["one", "two"]
    assert texts(None, dataset=str(tmp_path / "data")) == ["one", "two"]


def test_an_archive_gives_what_its_unpacked_folder_gives(tmp_path: Path) -> None:
    for name in ("books/b.txt", "books/a.txt", "books/a.md", "books/deep/c.txt", "d.txt"):
        write(tmp_path / "unpacked" / name, f"first of {name}\n%%\nsecond of {name}")
    write_archive(tmp_path / "books.tar.xz", tmp_path / "unpacked")
    unpacked = read_documents(
        [Source("books", files="books/*.txt", separator="%%")], tmp_path / "unpacked"
    )
    source = Source("books", files="books/*.txt", archive="books.tar.xz", separator="%%")
    assert read_documents([source], tmp_path) == unpacked
    assert [document.text for document in unpacked][:2] == [
        "first of books/a.txt",
        "second of books/a.txt",
    ]


def test_files_are_taken_before_an_archive(tmp_path: Path) -> None:
    write(tmp_path / "books" / "a.txt", "packed")
    write_archive(tmp_path / "books.tar.xz", tmp_path)
    write(tmp_path / "books" / "a.txt", "unpacked")
    assert texts(tmp_path, files="books/*.txt", archive="books.tar.xz") == ["unpacked"]


@pytest.mark.usefixtures("no_hub")
def test_a_data_set_gives_a_document_a_row(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data" / "train.jsonl", {"body": "one\ntwo"}, {"body": "three"})
    write_jsonl(tmp_path / "data" / "test.jsonl", {"body": "four"})
    folder = str(tmp_path / "data")
    assert texts(None, dataset=folder, column="body") == ["one two", "three"]
    assert texts(None, dataset=folder, column="body", split="test") == ["four"]


@cache
def built_in(name: str) -> list[Document]:
    """Read once, for parsing the whole standard library takes seconds."""
    return read_documents([Source("python", builtin=name)], None)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILTINS)
def test_built_in_texts_are_long_and_named_apart(name: str) -> None:
    names = [document.name for document in built_in(name)]
    assert len(names) > 50
    assert len(set(names)) == len(names)
    assert sum(len(document.text) for document in built_in(name)) > 300_000


@pytest.mark.slow
def test_built_in_docstrings_hold_no_code() -> None:
    text = next(d.text for d in built_in("python-docstrings") if d.name == "argparse.py:0")
    assert text.startswith("Command-line parsing library")
    assert "import os as _os" not in text


@pytest.mark.parametrize("name", ["latin.txt", "latin.jsonl"])
def test_a_file_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, '{"text": "café"}'.encode("latin-1"))
    with pytest.raises(CorpusError, match=rf"{name} is not UTF-8.*Try `iconv"):
        texts(tmp_path, files="latin.*")


def test_an_archived_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    write(tmp_path / "unpacked" / "latin.txt", "café".encode("latin-1"))
    write_archive(tmp_path / "a.tar.xz", tmp_path / "unpacked")
    with pytest.raises(CorpusError, match=r"latin\.txt is not UTF-8"):
        texts(tmp_path, files="*.txt", archive="a.tar.xz")


@pytest.mark.usefixtures("no_hub")
def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", {"text": "one", "body": "two"})
    write_parquet(tmp_path / "rows.parquet", text=["one"], body=["two"])
    write_jsonl(tmp_path / "data" / "train.jsonl", {"text": "one", "body": "two"})
    for source in (
        {"files": "rows.jsonl"},
        {"files": "rows.parquet"},
        {"dataset": str(tmp_path / "data")},
    ):
        with pytest.raises(CorpusError, match=r"no column 'abstract'; it has text, body.*--column"):
            texts(tmp_path, column="abstract", **source)


def test_a_broken_line_of_jsonl_is_named_by_its_number(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", '{"text": "one"}\n{"text": \n')
    with pytest.raises(CorpusError, match=r"rows\.jsonl, line 2 is not JSON"):
        texts(tmp_path, files="rows.jsonl")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.tar.xz"])
def test_a_damaged_container_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, b"PAR1 but no more than that")
    source = {"files": "*.parquet"} if name == "rows.parquet" else {"files": "x", "archive": name}
    with pytest.raises(CorpusError, match=re.escape(name)):
        texts(tmp_path, **source)


@pytest.mark.parametrize("content", ["", " \n\t\n"])
def test_an_empty_corpus_says_which_domain_and_where(tmp_path: Path, content: str) -> None:
    write(tmp_path / "a.txt", content)
    with pytest.raises(CorpusError, match=r"domain 'prose'.*'\*\.txt'.*--corpus"):
        texts(tmp_path, files="*.txt")


def test_a_missing_corpus_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus folder .*absent does not exist.*--corpus"):
        texts(tmp_path / "absent", files="*.txt")


@pytest.mark.parametrize("name", ["./absent", "no-such-data-set"])
@pytest.mark.usefixtures("no_hub")
def test_a_missing_data_set_is_named(name: str) -> None:
    with pytest.raises(CorpusError, match=f"cannot load the data set '{name}'"):
        texts(None, dataset=name)


def test_an_unknown_built_in_text_gets_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean .*python-reference"):
        texts(None, builtin="python-referense")


@pytest.mark.parametrize("given", [{}, {"files": "*.txt", "builtin": "unicode-names"}])
def test_a_source_has_exactly_one_origin(given: dict[str, str]) -> None:
    with pytest.raises(CorpusError, match="exactly one of files, dataset and builtin"):
        Source("prose", **given)


def test_texts_of_one_file_come_in_order(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.txt", "one\n\n  \ntwo\n")
    rows = write_jsonl(tmp_path / "a.jsonl", {"body": "one"}, {"body": "two"})
    table = write_parquet(tmp_path / "a.parquet", body=["one", "two"])
    assert list(read_texts(plain)) == ["one", "two"]
    assert list(read_texts(rows, "body")) == ["one", "two"]
    assert list(read_texts(table, "body")) == ["one", "two"]
