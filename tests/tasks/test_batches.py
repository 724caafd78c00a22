"""Batches of examples of like length."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.tasks.batches import (
    LikeLengths,
    by_length,
    collate,
    halves,
    shuffled_batches,
)
from secondary_learners.tasks.encoding import Encoded


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


def test_shuffled_batches_are_of_like_length_and_new_each_epoch() -> None:
    lengths = [1 + place % 50 for place in range(1000)]
    batches = list(islice(shuffled_batches(lengths, 10, 3), 200))
    epochs = [np.concatenate(batches[:100]), np.concatenate(batches[100:])]
    assert all(sorted(epoch.tolist()) == list(range(1000)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    padded = sum(10 * max(lengths[place] for place in batch) for batch in batches)
    assert padded < 1.1 * 2 * sum(lengths)
    again = islice(shuffled_batches(lengths, 10, 3), 200)
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))


def test_by_length_covers_all_within_the_tokens() -> None:
    lengths = [3, 9, 1, 4, 4, 2, 30]
    groups = list(by_length(lengths, 12))
    assert groups == [[2, 5, 0], [3, 4], [1], [6]]


def test_halves_part_short_from_long_only_where_it_pays() -> None:
    assert halves([0, 1, 2, 3], [9, 1, 8, 2]) == [[1, 3], [2, 0]]
    assert halves([0, 1, 2, 3], [9, 9, 8, 9]) == [[2, 0, 1, 3]]
    assert halves([4], [0, 0, 0, 0, 5]) == [[4]]


def test_a_batch_is_padded_on_the_right() -> None:
    examples = Encoded(((5, 6), (7,), (8, 9, 4)), (1, 0, 1), ("a", "b"), ((0, 1), (1,), (0, 1, 1)))
    batch = collate(examples, [0, 1], pad=99)
    assert batch["input_ids"].tolist() == [[5, 6], [7, 99]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 1], [1, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert "token_type_ids" not in collate(Encoded(((1,),), (0,), ("a", "b")), [0], 0)
