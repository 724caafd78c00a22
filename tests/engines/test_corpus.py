"""`learners score --out FOLDER/`: sidecars that are whole or absent, whoever makes them."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import fsspec
import pyarrow.parquet
import pytest

from cli_helpers import learners
from corpus_helpers import contents, write_shards
from secondary_learners.engines.histograms import Histogram
from secondary_learners.engines.sidecars import read_facts

LEARNER = ("-l", "books-mini")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "pool"
    write_shards(folder)
    return folder


@pytest.fixture(scope="module")
def scores(pool: Path) -> Path:
    """By one worker."""
    out = pool.parent / "scores"
    result = learners("score", pool, *LEARNER, "--out", f"{out}/", "--workers", 1, "--json")
    assert result.code == 0, result.err
    assert result.json["documents"] == 800
    return out


def test_sidecars_hold_the_scores_of_the_command_in_memory(pool: Path, scores: Path) -> None:
    rows = learners("score", pool, *LEARNER, "--json").json
    tables = [pyarrow.parquet.read_table(path) for path in sorted(scores.glob("*.parquet"))]
    assert len(tables) == 8
    table = pyarrow.concat_tables(tables)
    assert table["score"].to_pylist() == pytest.approx([row["score"] for row in rows], abs=1e-6)
    assert table["id"].to_pylist()[:2] == ["part-0.jsonl.gz:0", "part-0.jsonl.gz:1"]
    assert len(set(table["id"].to_pylist())) == 800
    assert (table["tokens"].to_numpy() == 0).sum() == 16  # the empty ones


def test_the_run_says_what_was_scored_and_by_whom(scores: Path) -> None:
    run = json.loads((scores / "run.json").read_text())
    assert (run["learner"], run["column"], run["normalization"]) == ("books-mini", "text", "layout")
    assert (run["documents"], len(run["shards"]), run["failed"]) == (800, 8, {})
    facts = [read_facts(path) for path in sorted(scores.glob("*.parquet"))]
    assert run["tokens"] == sum(one.tokens for one in facts) > 5_000
    assert {one["name"] for one in run["shards"]} == {one.shard for one in facts}
    assert {"python", "torch", "tokenizers", "secondary-learners"} <= set(run["versions"])
    for one, path in zip(facts, sorted(scores.glob("*.parquet")), strict=True):
        table, histogram = pyarrow.parquet.read_table(path), Histogram()
        histogram.add(table["score"].to_numpy(), table["tokens"].to_numpy())
        assert [list(row) for row in one.histogram] == histogram.to_json()
        assert (one.documents, one.tokens) == (histogram.documents, histogram.tokens)


def test_what_is_done_is_not_done_again(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    command = ("score", pool, *LEARNER, "--out", f"{out}/", "--workers", 1)
    assert learners(*command).code == 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    whole = contents(out)
    changed = out / "part-3.jsonl.gz.scores.parquet"
    changed.unlink()
    assert learners(*command).code == 0
    after = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert {path for path in after if after[path] != before[path]} == {changed}
    assert contents(out) == whole


def test_other_bytes_and_another_column_are_scored_again(tmp_path: Path) -> None:
    pool, out = tmp_path / "pool", tmp_path / "scores"
    pool.mkdir()
    for name in "ab":
        row = {"text": name, "other": "The ship lay in the harbor.", "key": f"k{name}"}
        (pool / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    command = ("score", pool, *LEARNER, "--out", f"{out}/", "--workers", 1)
    assert learners(*command).code == 0
    first = contents(out)
    (pool / "a.jsonl").write_text(json.dumps({"text": "c"}) + "\n")
    assert learners(*command).code == 0
    second = contents(out)
    assert {name for name in first if first[name] != second[name]} == {
        "a.jsonl.scores.parquet",
        "run.json",
    }
    (pool / "a.jsonl").write_text((pool / "b.jsonl").read_text())
    assert learners(*command, "--column", "other", "--id", "key").code == 0
    table = pyarrow.parquet.read_table(out / "b.jsonl.scores.parquet")
    assert table["id"].to_pylist() == ["kb"]
    assert contents(out)["b.jsonl.scores.parquet"] != second["b.jsonl.scores.parquet"]


def test_a_damaged_shard_fails_alone(pool: Path, scores: Path, tmp_path: Path) -> None:
    copy, out = tmp_path / "pool", tmp_path / "scores"
    copy.mkdir()
    for path in pool.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    whole = (copy / "part-2.jsonl.gz").read_bytes()
    (copy / "part-2.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (copy / "part-5.jsonl.gz").write_bytes(b"not a gzip file")
    command = ("score", copy, *LEARNER, "--out", f"{out}/", "--workers", 1)
    result = learners(*command)
    assert result.code == 1
    assert "2 of 8 shards could not be scored: part-2.jsonl.gz, part-5.jsonl.gz" in result.err
    assert f"{copy / 'part-2.jsonl.gz'} is damaged or cut short" in result.err
    run = json.loads((out / "run.json").read_text())
    assert set(run["failed"]) == {"part-2.jsonl.gz", "part-5.jsonl.gz"}
    expected = contents(scores)
    written = contents(out)
    assert len(written) == 7  # six sidecars and run.json, nothing half written
    assert all(written[name] == expected[name] for name in written if name != "run.json")
    for name in ("part-2.jsonl.gz", "part-5.jsonl.gz"):
        (copy / name).write_bytes((pool / name).read_bytes())
    assert learners(*command).code == 0
    assert contents(out) == expected


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ('{"text": "a"}\n{"text": 3}\n', "line 2: 'text' is 3"),
        ('{"text": "a"}\n{"body": "b"}\n', "line 2 has no column 'text'"),
        ('{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    ],
)
def test_a_row_that_is_not_a_text_is_named_by_its_line(
    rows: str, named: str, tmp_path: Path
) -> None:
    (tmp_path / "pool.jsonl").write_text(rows)
    out = tmp_path / "scores"
    result = learners("score", tmp_path / "pool.jsonl", *LEARNER, "--out", f"{out}/")
    assert result.code == 1
    assert named in result.err
    assert contents(out).keys() == {"run.json"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pool", "--out", "pool/"), "and would be read or replaced"),
        (("pool", "--out", "pool/scores/"), "and would be read or replaced"),
        (("pool/**/*.jsonl", "--out", "pool/scores/"), "and would be read or replaced"),
        (("pool/a.jsonl", "--out", "pool/"), "and would be read or replaced"),
        (("pool", "--out", "scores/", "--keep", "0.5"), "Run `learners select` on it afterwards"),
        (("pool", "--out", "scores.jsonl", "--workers", "2"), "need --out FOLDER/"),
        (("pool", "--out", "scores/", "--engine", "sparc"), "no engine named 'sparc'"),
        (("-", "--out", "scores/"), "standard input has no shards"),
        (("pool", "--out", "scores/", "--columns", "a,b"), "--columns is for instructions"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.jsonl").write_text('{"text": "a"}\n')
    result = learners("score", *arguments, *LEARNER)
    assert result.code in (1, 2)
    assert words in result.err
    assert [path.name for path in tmp_path.rglob("*")] == ["pool", "a.jsonl"]


def test_two_runs_do_not_write_into_one_folder(pool: Path, tmp_path: Path) -> None:
    from secondary_learners.engines.shards import only_writer

    with only_writer(tmp_path / "scores"):
        result = learners("score", pool, *LEARNER, "--out", f"{tmp_path / 'scores'}/")
    assert result.code == 1
    assert "another run writes into" in result.err


def test_an_address_that_fsspec_knows(pool: Path, scores: Path, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for path in pool.iterdir():
        system.pipe_file(f"/bucket/pool/{path.name}", path.read_bytes())
    out = tmp_path / "scores"
    command = ("score", "memory://bucket/pool", *LEARNER, "--out", f"{out}/", "--workers", 1)
    for _ in range(2):
        assert learners(*command).code == 0
    tables, expected = (
        [pyarrow.parquet.read_table(path) for path in sorted(folder.glob("*.parquet"))]
        for folder in (out, scores)
    )
    assert tables == expected
    place = ("--scores", out, "--keep", 0.2, "--out", tmp_path / "best", "--workers", 1)
    assert learners("select", "memory://bucket/pool", *place).code == 0
    place = ("--scores", scores, "--keep", 0.2, "--out", tmp_path / "own", "--workers", 1)
    assert learners("select", pool, *place).code == 0
    best, own = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.gz")}
        for name in ("best", "own")
    )
    assert best == own
    system.pipe_file("/bucket/pool/part-0.jsonl.gz", gzip.compress(b'{"text": "other"}'))
    place = ("--scores", out, "--keep", 0.2, "--out", tmp_path / "again", "--workers", 1)
    result = learners("select", "memory://bucket/pool", *place)
    assert (result.code, "part-0.jsonl.gz is not as it was" in result.err) == (1, True)


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    """What a batch needs is let go before the next one, so the rows held at once are a batch's."""
    from secondary_learners.engines.corpus import ScoreShard
    from secondary_learners.engines.shards import name_shards
    from secondary_learners.engines.specification import specify
    from secondary_learners.engines.streams import find_shards

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        path.write_text("".join(json.dumps({"text": f"{n} " * 30}) + "\n" for n in range(rows)))
        (shard,) = name_shards(find_shards((str(path),)))
        work = ScoreShard(specify("books-mini"), tmp_path / "scores")
        tracemalloc.start()
        try:
            assert work(shard, lambda tokens: None).facts is not None
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(6 * 1024) < 1.5 * peak(2 * 1024)


@pytest.mark.slow
def test_killed_at_ten_moments_and_resumed_to_equal_files(
    pool: Path, scores: Path, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("killed_scoring.py")
    steps = [random.Random(7).randrange(1, 5) for _ in range(10)]
    out = tmp_path / "scores"
    command = [sys.executable, script, pool, f"{out}/", *steps, 10**6]
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    codes = [int(line) for line in result.stdout.splitlines() if line.strip("-").isdigit()]
    killed = codes.count(-signal.SIGKILL)
    assert killed >= 5 and codes[killed:] == [0] * (len(codes) - killed), result.stdout
    assert contents(out) == contents(scores)


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one_and_end_with_who_started_them(
    pool: Path, scores: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    arguments = ["score", str(pool), *LEARNER, "--out", f"{out}/", "--workers", "2"]
    command = [sys.executable, "-m", "secondary_learners", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while len(list(out.glob("*.parquet"))) < 5 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    assert process.stderr is not None
    process.stderr.read()  # until the last worker has closed it
    process.stderr.close()
    process.wait()
    assert len(list(out.glob("*.parquet"))) >= 5
    result = learners(*arguments[:-1], "1")
    assert result.code == 0, result.err
    assert contents(out) == contents(scores)
