"""The order in which rows of like length come together, and comparisons that use it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classification_helpers import write_task
from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.experiments.multistage import Settings
from secondary_learners.experiments.multistage_runs import LikeLengths, StagedTask, trained
from secondary_learners.filtering.decisions import RandomFilter
from secondary_learners.registry.load import load_base


@given(
    lengths=st.lists(st.integers(1, 60), max_size=700),
    size=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_every_row_comes_once_an_epoch_in_another_order_each_time(
    lengths: list[int], size: int, seed: int
) -> None:
    sampler = LikeLengths(lengths, size, seed)
    epochs = [list(sampler) for _ in range(2)]
    assert len(sampler) == len(lengths)
    assert all(sorted(epoch) == list(range(len(lengths))) for epoch in epochs)
    if len(lengths) > 400:
        assert epochs[0] != epochs[1]
    assert list(LikeLengths(lengths, size, seed)) == epochs[0]


def test_batches_have_like_lengths_and_no_trend() -> None:
    lengths = [1 + place % 50 for place in range(4800)]
    order = [lengths[row] for row in LikeLengths(lengths, 8, 0)]
    batches = [order[begin : begin + 8] for begin in range(0, len(order), 8)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)  # 1.75 in random order
    firsts = [batch[0] for batch in batches[::8]]
    falls = sum(later < earlier for earlier, later in pairwise(firsts))
    assert 0.3 < falls / len(firsts) < 0.7  # by `group_by_length` nearly all fall


@pytest.mark.slow
def test_training_takes_that_order_with_and_without_a_filter(tmp_path: Path) -> None:
    write_task(tmp_path / "sea", train=64)
    model, tokenizer = load_base("mini")
    settings = Settings(longest=16, batch_size=4, like_lengths=True)
    task = StagedTask(tmp_path / "sea", model, tokenizer, settings)
    order = LikeLengths([len(row["input_ids"]) for row in task.train], 4, 3)
    expected = [task.train[place]["input_ids"] for place in order]
    seen: list[list[int]] = []
    inner = task.collate

    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        seen.extend(row["input_ids"] for row in rows)
        return inner(rows)

    task.collate = collate  # type: ignore[method-assign, assignment]
    for filter_ in (None, RandomFilter(0.5, seed=0)):
        seen.clear()
        trained(task, settings, 1, 3, task.train, filter_)
        assert seen == expected


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"batch_size": 0}, {"dropout": 1.0}, {"admit_share": 1.0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SecondaryLearnersError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]
