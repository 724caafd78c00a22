"""`learners select`: exactly the best, and exactly all the rest, as they were."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli_helpers import learners
from corpus_helpers import contents, write_shards
from secondary_learners.engines.choosing import Order, Ranking, Wish, choose
from secondary_learners.engines.sidecars import Facts, Scores, SidecarWriter, read_sidecar, sidecar
from secondary_learners.files import atomic_path

LEARNER = ("-l", "books-mini")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/ and its scores/."""
    folder = tmp_path_factory.mktemp("corpus")
    write_shards(folder / "pool")
    command = ("score", folder / "pool", *LEARNER, "--out", f"{folder / 'scores'}/")
    result = learners(*command, "--workers", 1)
    assert result.code == 0, result.err
    return folder


def select(corpus: Path, *arguments: object) -> Any:
    options = ("--scores", corpus / "scores", "--workers", 1, "--json")
    result = learners("select", corpus / "pool", *options, *arguments)
    assert result.code == 0, result.err
    return result.json


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def scored(corpus: Path) -> list[dict[str, Any]]:
    """Rows with their ids, scores and tokens, in the order of the shards."""
    tables = [pyarrow.parquet.read_table(p) for p in sorted((corpus / "scores").glob("*.parquet"))]
    pairs = zip(rows(corpus / "pool"), pyarrow.concat_tables(tables).to_pylist(), strict=True)
    return [{**row, **score} for row, score in pairs]


def best(documents: list[dict[str, Any]], count: int) -> list[int]:
    order = sorted(documents, key=lambda one: (-one["score"], one["id"]))
    return sorted(one["n"] for one in order[:count])


@pytest.mark.parametrize("keep", [0.001, 0.02, 0.3, 0.987, 1])
def test_exactly_the_best_and_exactly_the_rest(corpus: Path, keep: float, tmp_path: Path) -> None:
    out, rest = tmp_path / "best", tmp_path / "rest"
    result = select(corpus, "--keep", keep, "--out", out, "--dropped", rest)
    count = max(1, round(800 * keep))
    assert (result["kept"], result["documents"]) == (count, 800)
    kept, dropped = rows(out), rows(rest)
    assert sorted(row["n"] for row in kept) == best(scored(corpus), count)
    for shard in sorted((corpus / "pool").iterdir()):
        lines = [
            gzip.decompress((folder / shard.name).read_bytes()).splitlines()
            for folder in (corpus / "pool", out, rest)
        ]
        chosen = set(lines[1])
        assert [line for line in lines[0] if line in chosen] == lines[1]
        assert [line for line in lines[0] if line not in chosen] == lines[2]
    assert len(kept) + len(dropped) == 800


def test_the_kept_are_those_of_the_command_in_memory(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.jsonl"
    command = ("score", corpus / "pool", *LEARNER, "--keep", 0.31, "--out", out)
    assert learners(*command).code == 0
    select(corpus, "--keep", 0.31, "--out", tmp_path / "best")
    together = [json.loads(line)["n"] for line in out.read_text().splitlines()]
    assert [row["n"] for row in rows(tmp_path / "best")] == together


def test_tokens_are_a_limit(corpus: Path, tmp_path: Path) -> None:
    documents = sorted(scored(corpus), key=lambda one: (-one["score"], one["id"]))
    total = np.cumsum([one["tokens"] for one in documents])
    result = select(corpus, "--tokens", "2_000", "--out", tmp_path / "a")
    assert result["kept"] == np.searchsorted(total, 2000, side="right")
    assert result["tokens"] == total[result["kept"] - 1] <= 2000
    both = select(corpus, "--tokens", "2K", "--keep", 0.01, "--out", tmp_path / "b")
    assert both["kept"] == 8
    everything = select(corpus, "--tokens", "1B", "--out", tmp_path / "c")
    assert everything["kept"] == 800
    few = learners(
        *("select", corpus / "pool", "--scores", corpus / "scores"),
        *("--tokens", 1, "--keep", 0.5, "--out", tmp_path / "d"),
    )
    assert few.code == 1
    assert "nothing is kept" in few.err


def test_a_share_of_each_value_of_a_column(corpus: Path, tmp_path: Path) -> None:
    select(corpus, "--keep", 0.25, "--per", "source", "--out", tmp_path / "best")
    kept = rows(tmp_path / "best")
    documents = scored(corpus)
    for source in "ab":
        members = [one for one in documents if one["source"] == source]
        chosen = sorted(one["n"] for one in kept if one["source"] == source)
        assert chosen == best(members, round(0.25 * len(members)))
    result = learners(
        *("select", corpus / "pool", "--scores", corpus / "scores", "--keep", 0.5),
        *("--per", "sauce", "--out", tmp_path / "other", "--workers", 1),
    )
    assert result.code == 1
    assert "line 1 has no column 'sauce'; it has text, source, n" in result.err


def test_drawn_at_a_temperature(corpus: Path, tmp_path: Path) -> None:
    chosen = {}
    for name, options in {
        "cold": ("--soft", 1e-9),
        "warm": ("--soft", 0.5),
        "again": ("--soft", 0.5),
        "other": ("--soft", 0.5, "--seed", 1),
    }.items():
        result = select(corpus, "--keep", 0.3, *options, "--out", tmp_path / name)
        assert result["kept"] == 240
        chosen[name] = {row["n"] for row in rows(tmp_path / name)}
    documents = {one["n"]: one["score"] for one in scored(corpus)}
    mean = {name: np.mean([documents[n] for n in ns]) for name, ns in chosen.items()}
    assert mean["cold"] == pytest.approx(np.mean(sorted(documents.values())[-240:]), abs=1e-9)
    assert chosen["warm"] == chosen["again"] != chosen["other"]
    assert np.mean(list(documents.values())) < mean["warm"] < mean["cold"]


def test_draws_are_in_proportion_to_the_exponential_of_the_score(tmp_path: Path) -> None:
    write_scores(tmp_path, {"a": [0.0, 1.0, 2.0]})
    (rows,) = read_sidecar(sidecar(tmp_path, "a"))
    first = [int(Order(temperature=2.0, seed=seed).keys(rows).argmax()) for seed in range(4000)]
    expected = np.exp([0, 0.5, 1]) / np.exp([0, 0.5, 1]).sum()
    assert np.abs(np.bincount(first) / 4000 - expected).max() < 4 * np.sqrt(0.25 / 4000)


def write_scores(
    folder: Path, shards: dict[str, list[float]], ids: dict[str, list[str]] | None = None
) -> None:
    for name, values in shards.items():
        facts = Facts(name, {}, {})
        with atomic_path(sidecar(folder, name)) as path, SidecarWriter(path, facts) as file:
            names = ids[name] if ids else [f"{name}:{n}" for n in range(len(values))]
            tokens = np.array([1 + len(name) + n % 3 for n in range(len(values))], np.int64)
            file.write(names, Scores(np.array(values, np.float64), tokens))


VALUES = st.one_of(
    st.sampled_from([0.0, 0.5, -0.5, 1 / 64]), st.floats(-200, 200), st.floats(0.5, 0.51)
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shards=st.dictionaries(st.sampled_from("abcd"), st.lists(VALUES, max_size=12), min_size=1),
    share=st.none() | st.floats(0.01, 1),
    tokens=st.none() | st.integers(10, 60),
    few_ids=st.booleans(),
    temperature=st.sampled_from([0.0, 0.0, 0.7]),
    data=st.data(),
)
def test_any_scores_in_any_order_have_one_exact_edge(
    shards: dict[str, list[float]],
    share: float | None,
    tokens: int | None,
    few_ids: bool,
    temperature: float,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("scores")
    if not any(shards.values()):
        return
    count = {name: len(values) for name, values in shards.items()}
    ids = {
        name: [f"i{n % 2 if few_ids else name + str(n)}" for n in range(count[name])]
        for name in shards
    }
    write_scores(folder, shards, ids)
    ranking = Ranking(folder, Order(temperature=temperature, seed=3))
    documents = [
        (-key, one, name, number, length)
        for name in shards
        for part in ranking.parts(name)
        for number, (key, one, length) in enumerate(
            zip(part.keys.tolist(), part.rows.ids(), part.rows.tokens.tolist(), strict=True)
        )
    ]
    most = len(documents) if share is None else max(1, round(share * len(documents)))
    expected, total = set(), 0
    for _, _, name, number, length in sorted(documents)[:most]:
        total += length
        if tokens is not None and total > tokens:
            break
        expected.add((name, number))
    order = data.draw(st.permutations(list(shards)))
    choice = choose(ranking, order, Wish(share, tokens))
    kept = {
        (name, number)
        for name in shards
        for number in np.flatnonzero(choice.flags(name, count[name])).tolist()
    }
    assert kept == expected
    assert choice.documents == len(expected)


def test_every_format_keeps_its_rows(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    texts = ["The ship lay in the harbor.", "import os, sys", "She looked round.", "a = b + c"]
    objects = [{"text": text, "n": 2**70 + n} for n, text in enumerate(texts)]
    (pool / "a.jsonl").write_text(
        "".join(f'{{"text":{json.dumps(text)} , "n" : 1e0}}\n' for text in texts)
    )
    (pool / "b.json").write_text(json.dumps(objects, indent=1))
    (pool / "c.csv").write_text("text,n\n" + "".join(f'"{text}","1"\n' for text in texts))
    (pool / "d.txt").write_text("\n\n".join(texts))
    table = pyarrow.table(
        {
            "text": texts,
            "time": pyarrow.array(
                [datetime.datetime(2026, 1, 1)] * 4, pyarrow.timestamp("ns", "UTC")
            ),
            "class": pyarrow.array(["a", "b", "a", "b"]).dictionary_encode(),
            "nested": pyarrow.array([[{"a": n}] for n in range(4)]),
            "map": pyarrow.array([[("k", n)] for n in range(4)], pyarrow.map_("string", "int8")),
            "large": pyarrow.array([2**63 + n for n in range(4)], pyarrow.uint64()),
            "decimal": pyarrow.array([Decimal("1.10")] * 4),
        }
    ).replace_schema_metadata({"own": "words"})
    pyarrow.parquet.write_table(table, pool / "e.parquet")
    pyarrow.parquet.write_table(table[:0], pool / "f.parquet")
    inputs = [pool / name for name in ("a.jsonl", "b.json", "c.csv", "d.txt", "e.parquet")]
    inputs.append(pool / "f.parquet")
    out, rest = tmp_path / "best", tmp_path / "rest"
    scores = ("--out", f"{tmp_path / 'scores'}/", "--workers", 1)
    assert learners("score", *inputs, *LEARNER, *scores).code == 0
    options = ("--keep", 0.5, "--scores", tmp_path / "scores", "--out", out, "--dropped", rest)
    result = learners("select", *inputs, *options, "--workers", 1)
    assert result.code == 0, result.err
    both = [(out / path.name, rest / path.name) for path in inputs]
    kept, dropped = (path.read_bytes().splitlines(True) for path in both[0])
    assert sorted(kept + dropped) == sorted((pool / "a.jsonl").read_bytes().splitlines(True))
    assert len(kept) == 2
    values = [json.loads(line) for path in both[1] for line in path.read_text().splitlines()]
    assert sorted(values, key=lambda one: one["n"]) == objects
    lines = [path.read_text().splitlines() for path in both[2]]
    assert [one[0] for one in lines] == ["text,n", "text,n"]
    assert len(lines[0]) + len(lines[1]) == 6
    assert sorted(line for path in both[3] for line in path.read_text().splitlines()) == sorted(
        texts
    )
    table = pyarrow.parquet.read_table(pool / "e.parquet")
    parts = [pyarrow.parquet.read_table(path) for path in both[4]]
    assert [part.num_rows for part in parts] == [2, 2]
    assert all(part.schema.equals(table.schema, check_metadata=True) for part in parts)
    order = pyarrow.concat_tables(parts).sort_by("large")
    assert order.to_pylist() == table.to_pylist()
    assert pyarrow.parquet.read_table(out / "f.parquet").schema.equals(table.schema)


def test_files_that_are_one_text_are_kept_whole(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    (pool / "sub").mkdir(parents=True)
    texts = {"a.txt": b"The ship lay in\r\nthe harbor.\n", "sub/b.txt": b"import os, sys"}
    for name, data in texts.items():
        (pool / name).write_bytes(data)
    out, rest, scores = (tmp_path / name for name in ("best", "rest", "scores"))
    assert learners("score", pool, *LEARNER, "--out", f"{scores}/", "--workers", 1).code == 0
    options = ("--keep", 0.5, "--scores", scores, "--out", out, "--dropped", rest, "--workers", 1)
    assert learners("select", pool, *options).code == 0
    written = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for folder in (out, rest)
        for path in folder.rglob("*.txt")
    }
    assert written == texts
    assert (out / "a.txt").is_file() and (rest / "sub" / "b.txt").is_file()


def test_what_was_begun_goes_on_and_another_selection_is_refused(
    corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "best"
    select(corpus, "--keep", 0.3, "--out", out)
    whole = contents(out)
    (out / "part-3.jsonl.gz").unlink()
    (out / ".part-3.jsonl.gz.half").write_bytes(b"of a run that was killed")
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.gz")}
    select(corpus, "--keep", 0.3, "--out", out)
    assert contents(out) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    options = ("--scores", corpus / "scores", "--out", out)
    result = learners("select", corpus / "pool", *options, "--keep", 0.4)
    assert (result.code, "holds another selection" in result.err) == (1, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    options = ("--scores", corpus / "scores", "--out", tmp_path / "mine")
    result = learners("select", corpus / "pool", *options, "--keep", 0.4)
    assert (result.code, "holds other files" in result.err) == (1, True)
    assert contents(out) == whole


def test_shards_that_changed_or_were_not_scored(corpus: Path, tmp_path: Path) -> None:
    pool, scores = tmp_path / "pool", tmp_path / "scores"
    write_shards(pool, 80, 4)
    whole = (pool / "part-1.jsonl.gz").read_bytes()
    (pool / "part-1.jsonl.gz").write_bytes(whole[:-20])
    score = ("score", pool, *LEARNER, "--out", f"{scores}/", "--workers", 1)
    assert learners(*score).code == 1
    command = ("select", pool, "--scores", scores, "--keep", 0.5, "--workers", 1, "--out")
    result = learners(*command, tmp_path / "a")
    assert result.code == 0
    assert "left out, since it was not scored: part-1.jsonl.gz" in result.err
    assert sorted(path.name for path in (tmp_path / "a").glob("*.gz")) == [
        f"part-{n}.jsonl.gz" for n in (0, 2, 3)
    ]
    (pool / "part-0.jsonl.gz").write_bytes(whole)
    result = learners(*command, tmp_path / "b")
    assert result.code == 1
    assert f"{pool / 'part-0.jsonl.gz'} is not as it was when it was scored" in result.err
    assert len(list((tmp_path / "b").glob("*.gz"))) == 2
    (pool / "new.jsonl").write_text('{"text": "a"}\n')
    result = learners(*command, tmp_path / "c")
    assert (result.code, "has no scores of new.jsonl (1 of 5 shards)" in result.err) == (1, True)
    result = learners("select", pool, "--scores", pool, "--keep", 0.5, "--out", tmp_path / "d")
    assert (result.code, "in one folder" in result.err) == (1, True)
    (tmp_path / "empty").mkdir()
    options = ("--scores", tmp_path / "empty", "--keep", 0.5, "--out", tmp_path / "d")
    result = learners("select", pool, *options)
    assert (result.code, "does not hold a whole run.json" in result.err) == (1, True)
    for name in ("new.jsonl", "part-1.jsonl.gz"):
        (pool / name).unlink()
    other = ("--out", f"{scores}/", "--workers", 1, "--column", "source")
    assert learners("score", pool / "part-0.jsonl.gz", *LEARNER, *other).code == 0
    result = learners(*command, tmp_path / "d")
    assert (result.code, "of 2 learners or columns" in result.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "best"), "say how much to keep"),
        (("--out", "best", "--keep", "nan"), "nan is not above 0"),
        (("--out", "best", "--keep", "1.5"), "1.5 is not above 0"),
        (("--out", "best", "--tokens", "many"), "is not a number of tokens"),
        (("--out", "best", "--keep", "0.5", "--soft", "inf"), "is not a temperature"),
        (("--out", "pool", "--keep", "0.5"), "in one folder"),
        (("--out", "pool/best", "--keep", "0.5"), "in one folder"),
        (("--out", "scores", "--keep", "0.5"), "in one folder"),
        (("--out", "best", "--dropped", "best", "--keep", "0.5"), "in one folder"),
        (("--out", "best", "--dropped", "link", "--keep", "0.5"), "in one folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: tuple[str, ...],
    words: str,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pool", "scores"):
        os.symlink(corpus / name, tmp_path / name)
    os.symlink(corpus / "pool", tmp_path / "link")
    before = contents(corpus)
    result = learners("select", "pool", "--scores", "scores", *arguments)
    assert result.code in (1, 2)
    assert words in result.err
    assert contents(corpus) == before
    assert not (tmp_path / "best").exists()


def test_selecting_needs_no_torch(corpus: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom secondary_learners.cli import main\n"
        "try: main()\nexcept SystemExit as exit_: print(exit_.code, 'torch' in sys.modules)"
    )
    options = ("--scores", corpus / "scores", "--keep", 0.3, "--workers", 2, "--quiet")
    command = [sys.executable, "-c", code, "select", corpus / "pool", *options, "--out"]
    found = subprocess.run(
        list(map(str, [*command, tmp_path / "two"])), capture_output=True, text=True
    )
    assert found.stdout.splitlines()[-1] == "0 False", found.stderr
    select(corpus, "--keep", 0.3, "--out", tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
