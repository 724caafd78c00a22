"""`learners select --report`: figures that add up, texts that are shown as text."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from cli_helpers import learners
from corpus_helpers import write_shards
from secondary_learners.files import sha256_file

LEARNER = ("-l", "books-mini")
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> & {{ 7 * 7 }}'


class Elements(HTMLParser):
    """The names of a page's elements, and what it refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.references: list[str | None] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "onerror")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_shards(folder / "pool", 300, 3)
    rows = [{"text": f"{HOSTILE} naïve {n}", "source": "<b>c</b>", "n": n} for n in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "pool" / "hostile.jsonl").write_text(lines)
    command = ("score", folder / "pool", *LEARNER, "--out", f"{folder / 'scores'}/")
    assert learners(*command, "--workers", 1).code == 0
    return folder


def report(corpus: Path, tmp_path: Path, *options: object) -> tuple[dict[str, Any], str]:
    place = ("--scores", corpus / "scores", "--out", tmp_path / "best", "--workers", 1)
    folder = tmp_path / "report"
    result = learners("select", corpus / "pool", *place, "--report", folder, *options)
    assert result.code == 0, result.err
    page = (folder / "index.html").read_text(encoding="utf-8")
    return json.loads((folder / "receipt.json").read_text(encoding="utf-8")), page


def test_the_figures_are_those_of_the_files(corpus: Path, tmp_path: Path) -> None:
    options = ("--keep", 0.3, "--source", "source", "--dropped", tmp_path / "rest")
    receipt, _ = report(corpus, tmp_path, *options)
    kept = learners("score", tmp_path / "best", *LEARNER, "--json").json
    assert receipt["learner"] == "books-mini"
    assert (receipt["kept"], receipt["documents"]) == (len(kept), 305) == (92, 305)
    assert set(receipt["sources"]) == {"a", "b", "<b>c</b>"}
    for name, arms in receipt["sources"].items():
        assert arms["kept"]["documents"] == sum(row["source"] == name for row in kept)
        assert arms["kept"]["rate"] == arms["kept"]["documents"] / arms["all"]["documents"]
    for arm, count in (("all", 305), ("kept", 92), ("random", 92)):
        total = receipt["total"][arm]
        assert total["documents"] == count
        for part in ("documents", "tokens"):
            assert total[part] == sum(arms[arm][part] for arms in receipt["sources"].values())
        assert sum(row[1] for row in total["scores"]) == count
        assert sum(row[1] for row in total["lengths"]) == count
    mean = {
        arm: sum(place * count for place, count, _ in receipt["total"][arm]["scores"])
        / receipt["total"][arm]["documents"]
        for arm in ("all", "kept", "random")
    }
    assert mean["kept"] > mean["random"] + 5
    assert abs(mean["random"] - mean["all"]) < (mean["kept"] - mean["all"]) / 3
    for option, folder in (("kept", "best"), ("dropped", "rest")):
        names = sorted(receipt["outputs"][option])
        assert names == sorted(path.name for path in (corpus / "pool").iterdir())
        for name in names:
            assert receipt["outputs"][option][name] == sha256_file(tmp_path / folder / name)
    for name, value in receipt["inputs"].items():
        assert value["sha256"] == sha256_file(corpus / "pool" / name)
    where = {(row["source"], row["n"]) for row in kept}
    digest = hashlib.sha256()
    for shard in sorted(receipt["inputs"]):
        scores = pyarrow.parquet.read_table(corpus / "scores" / f"{shard}.scores.parquet")
        rows = learners("score", corpus / "pool" / shard, *LEARNER, "--json").json
        for row, one in zip(rows, scores["id"].to_pylist(), strict=True):
            if (row["source"], row["n"]) in where:
                digest.update(f"{one}\n".encode())
    assert receipt["ids"] == digest.hexdigest()


def test_examples_are_at_the_edge_and_far_from_it(corpus: Path, tmp_path: Path) -> None:
    receipt, page = report(corpus, tmp_path, "--keep", 0.3)
    assert set(receipt["sources"]) == {path.name for path in (corpus / "pool").iterdir()}
    (edge,) = receipt["edges"].values()
    tables = [pyarrow.parquet.read_table(path) for path in (corpus / "scores").glob("*.parquet")]
    scores = sorted(score for table in tables for score in table["score"].to_pylist())
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in receipt["examples"]:
        by_kind.setdefault(one["kind"], []).append(one)
    kinds = ["the best", "just kept", "just dropped", "the worst", "drawn at random"]
    assert list(by_kind) == kinds
    assert all(len(examples) == 5 for examples in by_kind.values())
    values = {kind: [one["score"] for one in examples] for kind, examples in by_kind.items()}
    assert values["the best"] == scores[::-1][:5]
    assert values["the worst"] == scores[:5]
    assert values["just kept"] == scores[-92:][:5]
    assert values["just dropped"] == scores[:-92][::-1][:5]
    assert min(values["just kept"]) >= edge["key"] >= max(values["just dropped"])
    assert {one["kept"] for one in by_kind["just dropped"]} == {False}
    for one in receipt["examples"]:
        if one["text"]:
            total = sum(share for _, share in one["shares"])
            pieces = "".join(piece for piece, _ in one["shares"])
            assert pieces.split()[0] in one["text"] and total != 0
    assert "the dashed line is the threshold" in page


def test_the_page_needs_nothing_else_and_runs_nothing(corpus: Path, tmp_path: Path) -> None:
    place = ("--scores", corpus / "scores", "--out", tmp_path / "best", "--workers", 1)
    options = ("--keep", 1, "--per", "source", "--report", tmp_path / "report")
    assert learners("select", corpus / "pool" / "hostile.jsonl", *place, *options).code == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    elements = Elements(page)
    assert not elements.names & {"script", "img", "b", "link", "iframe", "a"}
    assert elements.references == []
    assert {"svg", "table", "article", "style"} <= elements.names
    words = "".join(elements.words)
    assert f"{HOSTILE} naïve 3" in words and "<b>c</b>" in words
    assert "default-src 'none'" in page


def test_a_learner_that_is_gone_leaves_the_texts(corpus: Path, tmp_path: Path) -> None:
    run = json.loads((corpus / "scores" / "run.json").read_text())
    scores = tmp_path / "scores"
    scores.mkdir()
    for path in (corpus / "scores").glob("*.parquet"):
        (scores / path.name).write_bytes(path.read_bytes())
    (scores / "run.json").write_text(json.dumps({**run, "learner": "books-gone"}))
    place = ("--scores", scores, "--out", tmp_path / "best", "--workers", 1, "--soft", 0.5)
    result = learners(
        "select", corpus / "pool", *place, "--tokens", "2K", "--report", tmp_path / "report"
    )
    assert result.code == 0, result.err
    assert "which tokens decided: no learner named 'books-gone'" in result.err
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Drawn at temperature 0.5 with seed 0." in page
    assert "The ship lay in the harbor" in page
    assert "the dashed line" not in page
