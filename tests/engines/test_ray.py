"""A learner in Ray: for data sets, and its workers as an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli_helpers import learners
from corpus_helpers import contents, documents, write_shards
from secondary_learners.engines.ray import LearnerScores
from secondary_learners.errors import CorpusError


def test_a_batch_gets_the_scores_of_the_command(tmp_path: Path) -> None:
    write_shards(tmp_path / "pool", 60, 1)
    rows = learners("score", tmp_path / "pool", "-l", "books-mini", "--json").json
    batch = {"text": np.array([row["text"] for row in rows], object), "n": np.arange(60)}
    scored = LearnerScores("books-mini")(batch)
    assert list(scored) == ["text", "n", "score"]
    assert scored["score"].tolist() == pytest.approx([row["score"] for row in rows], abs=1e-6)
    assert len(LearnerScores("books-mini")({"text": np.array([])})["score"]) == 0
    with pytest.raises(CorpusError, match="already has a column 'score'"):
        LearnerScores("books-mini")(scored)
    with pytest.raises(CorpusError, match="row 1 of a batch: 'text' is 3"):
        LearnerScores("books-mini")({"text": np.array(["a", 3], object)})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_two_worker_processes_keep_what_one_process_keeps(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    data = pytest.importorskip("ray.data")
    pool = tmp_path / "pool"
    write_shards(pool, 160, 4)
    command = ("score", pool, "-l", "books-mini", "--workers")
    assert learners(*command, 1, "--out", f"{tmp_path / 'one'}/").code == 0
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        place = ("--engine", "ray", "--out", f"{tmp_path / 'two'}/")
        result = learners(*command, 2, *place)
        assert result.code == 0, result.err
        table = data.from_items(documents(160)).map_batches(
            LearnerScores, fn_constructor_args=("books-mini",), batch_size=40, concurrency=1
        )
        scores = {row["n"]: row["score"] for row in table.take_all()}
    finally:
        ray.shutdown()
    one, two = (contents(tmp_path / name) for name in ("one", "two"))
    assert two.pop("run.json") == one.pop("run.json").replace(b'"local"', b'"ray"')
    assert two == one
    best = ("select", pool, "--scores", tmp_path / "two", "--keep", 0.3, "--workers", 1)
    assert learners(*best, "--out", tmp_path / "best").code == 0
    kept = learners("score", tmp_path / "best", "-l", "books-mini", "--json").json
    order = sorted(scores, key=lambda n: -scores[n])
    assert {row["n"] for row in kept} == set(order[:48])
