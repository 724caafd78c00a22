"""Score columns in the real `datasets` library."""

from __future__ import annotations

import datasets
import pytest

from secondary_learners import filtered
from secondary_learners.errors import IncompatibleError, SecondaryLearnersError
from secondary_learners.filtering.columns import ScoreColumn


@pytest.fixture
def dataset(make_ids):
    ids = make_ids(50, seed=3)
    rows = {"input_ids": ids, "text": [str(row) for row in ids]}
    return datasets.Dataset.from_dict(rows)


@pytest.fixture
def scores(dataset, learner):
    return [float(learner.score([ids])[0]) for ids in dataset["input_ids"]]


def test_map_then_filter(dataset, learner, scores, tokenizer):
    scored = dataset.map(ScoreColumn(learner, tokenizer=tokenizer), batched=True, batch_size=16)
    assert scored["score"] == pytest.approx(scores, abs=1e-5)
    assert scored.column_names == ["input_ids", "text", "score"]
    best = scored.filter(lambda row: row["score"] >= 0.5)
    assert best["text"] == filtered(dataset, learner, 0.5)["text"]
    assert 0 < len(best) < 50


def test_streaming(dataset, learner, scores):
    stream = dataset.to_iterable_dataset().map(
        ScoreColumn(learner, column="gain"), batched=True, batch_size=7
    )
    assert [row["gain"] for row in stream] == pytest.approx(scores, abs=1e-5)
    best = stream.filter(lambda row: row["gain"] >= 0.5)
    expected = filtered(dataset.to_iterable_dataset(), learner, 0.5)
    assert [row["text"] for row in best] == [row["text"] for row in expected]


def test_padding_is_left_out(dataset, learner, scores):
    def padded(row):
        ids = row["input_ids"]
        missing = 12 - len(ids)
        return {"input_ids": ids + [9] * missing, "attention_mask": [1] * len(ids) + [0] * missing}

    scored = dataset.map(padded).map(ScoreColumn(learner), batched=True)
    assert scored["score"] == pytest.approx(scores, abs=1e-5)


def test_says_what_is_wrong(dataset, learner, tokenizer):
    with pytest.raises(SecondaryLearnersError, match="no column 'ids'; it has input_ids, text"):
        dataset.map(ScoreColumn(learner, key="ids"), batched=True)
    with pytest.raises(IncompatibleError):
        ScoreColumn(learner, tokenizer=type(tokenizer)(3))
