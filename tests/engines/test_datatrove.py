"""A learner in datatrove: as a filter in a pipeline, and its executor as an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from cli_helpers import learners
from corpus_helpers import contents, documents, write_shards
from secondary_learners.errors import CorpusError, UnknownNameError

pytest.importorskip("datatrove")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:datatrove")


def test_a_filter_annotates_and_drops_with_a_reason(tmp_path: Path) -> None:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    from secondary_learners.engines.datatrove import LearnerFilter

    rows = [{**row, "id": f"d{row['n']}"} for row in documents(120) if row["text"]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pool.parquet")
    pipeline = [
        ParquetReader(str(tmp_path), glob_pattern="pool.parquet"),
        LearnerFilter(
            "books-mini",
            threshold=0.25,
            exclusion_writer=ParquetWriter(str(tmp_path / "rest")),
        ),
        ParquetWriter(str(tmp_path / "best")),
    ]
    LocalPipelineExecutor(pipeline, logging_dir=str(tmp_path / "logs"), workers=1).run()

    def read(folder: str) -> dict[str, Any]:
        table = pyarrow.parquet.read_table(tmp_path / folder)
        return {row["id"]: row["metadata"] for row in table.to_pylist()}

    kept, dropped = read("best"), read("rest")
    path = tmp_path / "pool.parquet"
    scored = learners("score", path, "-l", "books-mini", "--json").json
    expected = {row["id"]: row["score"] for row in scored}
    assert {one: values["score"] for one, values in (kept | dropped).items()} == pytest.approx(
        expected, abs=1e-6
    )
    assert set(kept) == {one for one, score in expected.items() if score >= 0.25}
    assert set(dropped) == set(expected) - set(kept)
    assert kept and {values["filter_reason"] for values in dropped.values()} == {"score"}
    assert all(values["source"] in "ab" for values in kept.values())


def test_what_a_filter_refuses() -> None:
    from datatrove.data import Document

    from secondary_learners.engines.datatrove import LearnerFilter

    with pytest.raises(UnknownNameError, match="did you mean books-mini"):
        LearnerFilter("books-minni")
    step = LearnerFilter("books-mini")
    plain, taken = (
        Document("She looked round.", "one", metadata=values) for values in ({}, {"score": 3})
    )
    assert step.filter(plain) is True
    assert plain.metadata["score"] > 0
    with pytest.raises(CorpusError, match="document one already has 'score'"):
        step.filter(taken)
    assert taken.metadata == {"score": 3}


def test_its_executor_writes_what_ours_writes(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    write_shards(pool, 80, 3)
    (pool / "part-3.jsonl.gz").write_bytes(b"not a gzip file")
    for engine, code in (("local", 1), ("datatrove", 1)):
        place = ("--out", f"{tmp_path / engine}/", "--workers", 1, "--engine", engine)
        result = learners("score", pool, "-l", "books-mini", *place)
        assert result.code == code
        assert "1 of 4 shards could not be scored: part-3.jsonl.gz" in result.err
    ours, theirs = (contents(tmp_path / engine) for engine in ("local", "datatrove"))
    assert theirs.pop("run.json") == ours.pop("run.json").replace(b'"local"', b'"datatrove"')
    assert theirs == ours
    scores = ("--scores", tmp_path / "datatrove", "--keep", 0.4, "--workers", 1)
    for engine in ("local", "datatrove"):
        place = ("--out", tmp_path / f"best-{engine}", "--engine", engine, "--per", "source")
        assert learners("select", pool, *scores, *place).code == 0
    assert contents(tmp_path / "best-local") == contents(tmp_path / "best-datatrove")
