"""`learners score` on the kinds of files that people have: nothing of a row is lost or made up."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import lzma
import os
import stat
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli_helpers import learners

TEXTS = ["The ship lay in the harbor.", "import os, sys", "", "A café, naïve and far."]
LEARNER = ("-l", "books-mini")


def score(*arguments: object) -> list[dict]:
    result = learners("score", *arguments, *LEARNER, "--json")
    assert result.code == 0, result.err
    return result.json


def refused(*arguments: object) -> str:
    result = learners("score", *arguments, *LEARNER)
    assert result.code in (1, 2)
    assert "Traceback" not in result.err
    return result.err


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    path = tmp_path_factory.mktemp("plain") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return [row["score"] for row in score(path)]


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def zstandard(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


FILES = {
    "a.jsonl": lines(TEXTS),
    "a.JSONL": lines(TEXTS),
    "a.ndjson": lines(TEXTS),
    "lines.json": lines(TEXTS),
    "array.json": json.dumps([{"text": text} for text in TEXTS], indent=1).encode(),
    "a.csv": "text,n\n{}\n".format("\n".join(f'"{text}",1' for text in TEXTS)).encode(),
    "a.tsv": "text\tn\n{}\n".format("\n".join(f"{text}\t1" for text in TEXTS)).encode(),
    "a.jsonl.gz": gzip.compress(lines(TEXTS)),
    "a.jsonl.bz2": bz2.compress(lines(TEXTS)),
    "a.jsonl.xz": lzma.compress(lines(TEXTS)),
    "a.jsonl.zst": zstandard(lines(TEXTS)),
    "two marks.jsonl": b"\xef\xbb\xbf" + lines(TEXTS[:2]) + b"\xef\xbb\xbf" + lines(TEXTS[2:]),
    "windows.jsonl": lines(TEXTS).replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_scores(name: str, scores: list[float], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert [row["score"] for row in score(path)] == pytest.approx(scores, abs=1e-6)


def test_shards_of_a_folder_a_pattern_and_standard_input(
    scores: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(TEXTS[2:])))
    (tmp_path / "a.jsonl").write_bytes(lines(TEXTS[:2]))
    assert [row["score"] for row in score(tmp_path)] == pytest.approx(scores, abs=1e-6)
    assert [row["score"] for row in score(tmp_path / "*.jsonl*")] == pytest.approx(scores, abs=1e-6)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines(TEXTS))))
    assert [row["score"] for row in score("-")] == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("ending", ["\u2028", "\f", "\x85", "\x1c"])
def test_a_line_ends_at_a_line_feed_alone(ending: str, tmp_path: Path) -> None:
    path, out = tmp_path / "a.txt", tmp_path / "out.txt"
    path.write_bytes(f"one{ending}text\nand another\n".encode())
    assert len(score(path)) == 2
    assert learners("score", path, *LEARNER, "--out", out).code == 0
    assert out.read_bytes() == path.read_bytes()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.dictionaries(st.text().filter(lambda name: name not in ("text", "score")), JSON),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_rows_come_back_as_they_were_and_a_score(
    tmp_path: Path, rows: list[dict], ascii_: bool
) -> None:
    rows = [{**row, "text": "words"} for row in rows]
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=ascii_) for row in rows), "utf-8")
    assert learners("score", path, *LEARNER, "--out", out).code == 0
    read = [json.loads(line) for line in out.read_text("utf-8").split("\n")[:-1]]
    for row in read:
        assert isinstance(row.pop("score"), float)
    assert read == rows


def test_the_bytes_of_a_number_stay(tmp_path: Path) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"n": 1.50e+2, "text": "a", "big": 123456789012345678901234567890 }\n')
    assert learners("score", path, *LEARNER, "--out", out).code == 0
    assert out.read_text().startswith(path.read_text().rstrip(" }\n") + ', "score": ')


def test_a_column_named_score_is_never_overwritten(tmp_path: Path) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "score": 100}\n')
    assert "line 2 already has a column 'score'" in refused(path, "--out", out)
    assert not out.exists()
    result = learners("score", path, *LEARNER, "--out", out, "--score-column", "gain")
    assert result.code == 0, result.err
    assert [json.loads(line).get("score") for line in out.read_text().splitlines()] == [None, 100]
    table = pyarrow.table({"text": ["a"], "score": [1]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert "already has a column" in refused(
        tmp_path / "rows.parquet", "--out", tmp_path / "out.parquet"
    )


@pytest.mark.parametrize("text", ["null", "12345", '["a", "b"]', "true", '{"a": "b"}'])
def test_a_text_that_is_not_a_string_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{{"text": {text}}}\n')
    message = refused(path)
    assert "rows.jsonl, line 3: 'text' is" in message
    assert "not a string" in message


def test_numbers_and_lists_in_parquet_are_named_by_their_row(tmp_path: Path) -> None:
    for values in ([1, 2], [["a"], ["b"]], ["a", None]):
        path = tmp_path / "rows.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": values}), path)
        assert f"row {2 if values[1] is None else 1}: 'text' is" in refused(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"', "line 2 is not JSON"),
        ("a.jsonl", b'{"text": "a", "n": NaN}', "line 1 is not JSON: NaN"),
        ("a.jsonl", b'{"text": "a"\r, "n": 1', "line 1 is not JSON"),
        ("a.jsonl", b'{"text":' + b"[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}', "(byte 27 of the file)"),
        ("a.csv", b"text,n\nshort\n", "line 2 has 1 cells, and the header 2"),
        ("a.csv", b"text,text\na,b\n", "two columns of one name"),
        ("a.jsonl.gz", gzip.compress(lines(TEXTS * 50))[:-30], "a.jsonl.gz is damaged or cut"),
        ("a.jsonl.xz", lzma.compress(lines(TEXTS * 50))[:-30], "a.jsonl.xz is damaged or cut"),
        ("a.jsonl.bz2", bz2.compress(lines(TEXTS * 50))[:-30], "a.jsonl.bz2 is damaged or cut"),
        ("a.jsonl.gz", b"never compressed", "a.jsonl.gz is damaged or cut"),
    ],
)
def test_what_is_damaged_is_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert message in refused(path)


def test_a_carriage_return_within_an_object_is_white_space(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a",\r"n": 1}\n')
    assert score(path)[0]["n"] == 1


def test_half_a_surrogate_pair_is_scored_and_written_as_it_was(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"text": "caf\\ud800 au lait"}\n')
    assert learners("score", path, *LEARNER, "--out", out).code == 0
    assert out.read_text().startswith('{"text": "caf\\ud800 au lait", "score": ')
    assert learners("explain", os.fsdecode(b"caf\xe9 au lait"), *LEARNER).code == 0


@pytest.mark.skipif(os.name == "nt", reason="names are characters there")
def test_a_file_name_that_is_not_utf_8(tmp_path: Path) -> None:
    folder, out = tmp_path / "folder", tmp_path / "out.jsonl"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.md")).write_text("a sentence\n")
    result = learners("score", folder, *LEARNER, "--out", out)
    assert result.code == 0, result.err
    assert json.loads(out.read_text())["file"].endswith("caf\ufffd.md")


def test_types_of_parquet_survive(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "text": pyarrow.array(["a ship", "tax forms"], pyarrow.large_string()),
            "when": pyarrow.array([1, 2], pyarrow.timestamp("ns", "UTC")),
            "kind": pyarrow.array(["x", "y"]).dictionary_encode(),
            "map": pyarrow.array([[("k", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int8())),
            "nested": pyarrow.array([{"a": [1]}, None]),
            "decimal": pyarrow.array([Decimal("1.10"), None], pyarrow.decimal128(9, 2)),
            "big": pyarrow.array([2**63, 1], pyarrow.uint64()),
            "day": pyarrow.array([datetime.date(2026, 1, 31), None]),
        }
    ).replace_schema_metadata({"huggingface": '{"info": {"features": {}}}'})
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pyarrow.parquet.write_table(table, path)
    before = pyarrow.parquet.read_table(path)
    assert learners("score", path, *LEARNER, "--keep", 0.5, "--out", out).code == 0
    after = pyarrow.parquet.read_table(out)
    assert after.schema.names == [*before.schema.names, "score"]
    kept = after.drop_columns("score")
    assert kept.schema.equals(before.schema, check_metadata=True)
    row = before["text"].to_pylist().index(kept["text"][0].as_py())
    assert kept.equals(before.slice(row, 1))


@pytest.mark.parametrize(
    "rows", [[{"n": 1}, {"n": "two"}], [{"n": {"a": 1}}, {"n": {"a": "b"}}], [{"n": 2**70}]]
)
def test_types_that_no_column_holds_are_refused_before_the_work(
    rows: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.parquet"
    path.write_text("\n".join(json.dumps({"text": "a", **row}) for row in rows))
    monkeypatch.setattr("secondary_learners.engines.files.score_shards", None)
    assert "the values of 'n' do not fit into one column" in refused(path, "--out", out)


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    path, link = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    path.write_bytes(lines(TEXTS))
    link.symlink_to(path)
    for out in (path, link, tmp_path / "sub" / ".." / "a.jsonl"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        assert "is one of the inputs" in refused(path, "--keep", 0.5, "--out", out)
    assert path.read_bytes() == lines(TEXTS)


def test_an_output_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    path, real, link = tmp_path / "a.txt", tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    path.write_text("one sentence here\n")
    real.touch(mode=0o600)
    link.symlink_to("real.jsonl")
    assert learners("score", path, *LEARNER, "--out", link).code == 0
    assert link.is_symlink()
    assert json.loads(real.read_text())["text"] == "one sentence here"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    path, fifo, read = tmp_path / "a.txt", tmp_path / "pipe.jsonl", []
    path.write_text("one sentence here\n")
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    assert learners("score", path, *LEARNER, "--out", fifo).code == 0
    reader.join(60)
    assert json.loads(read[0])["text"] == "one sentence here"
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_compressed_outputs_are_read_back(scores: list[float], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(TEXTS))
    for ending in (".gz", ".bz2", ".xz", ".zst"):
        out = tmp_path / f"out.jsonl{ending}"
        assert learners("score", path, *LEARNER, "--out", out).code == 0
        read = score(out, "--score-column", "again")
        assert [row["score"] for row in read] == [row["again"] for row in read]


def test_wrong_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(TEXTS))
    assert "it is not a number" in refused(path, "--keep", "nan", "--out", tmp_path / "o.jsonl")
    assert "'absent.jsonl' does not exist" in refused("absent.jsonl")


def test_in_a_pipeline() -> None:
    command = [sys.executable, "-m", "secondary_learners", "score", "-", *LEARNER, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, input='{"text": "the sea"}\n')
    assert json.loads(done.stdout)[0]["text"] == "the sea", done.stderr
