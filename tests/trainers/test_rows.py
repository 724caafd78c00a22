"""Rows cut out of batches and put together again: nothing but padding may change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.trainers.buffer import Buffer
from secondary_learners.trainers.layout import Layout, Role
from secondary_learners.trainers.rows import Rows
from trainer_helpers import collate, make_rows

ROWS = Layout(token=5)
TOKEN_LABELS = Layout(labels=Role.TOKENS)


def batch_of(rows, side="right"):
    batch = collate(rows)
    if side == "left":
        for place, row in enumerate(rows):
            roll = batch["input_ids"].shape[1] - len(row["input_ids"])
            for name in ("input_ids", "attention_mask"):
                batch[name][place] = batch[name][place].roll(roll)
    return batch


def contents(rows):
    ids, mask = rows.tokens
    labels = rows.columns["labels"].tolist()
    return [
        (row[shown].tolist(), label) for row, shown, label in zip(ids, mask, labels, strict=True)
    ]


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=8),
    st.sampled_from(["left", "right"]),
    st.data(),
)
def test_examples_come_out_in_order_and_whole(flags, side, data):
    waiting, expected = Buffer(), []
    for seed, keep in enumerate(flags):
        rows = make_rows(len(keep), seed=seed)
        waiting.add(Rows.of(batch_of(rows, side), ROWS).select(np.array(keep)))
        expected += [
            (row["input_ids"], row["labels"]) for row, kept in zip(rows, keep, strict=True) if kept
        ]
    assert len(waiting) == len(expected)
    found = []
    while len(waiting):
        count = data.draw(st.integers(1, len(waiting)))
        joined = Rows.joined(waiting.take(count), left=side == "left")
        assert len(joined) == count
        mask = joined.tokens[1]
        edge = mask[:, -1] if side == "left" else mask[:, 0]
        assert edge.all()
        assert (joined.columns["input_ids"].numpy()[~mask] <= 5).all()
        found += contents(joined)
    assert found == expected


def test_trims_what_is_padding_in_every_row():
    batch = collate(make_rows(6))
    rows = Rows.of(batch, ROWS)
    shortest = int(batch["attention_mask"].sum(1).argmin())
    flags = np.arange(6) == shortest
    chosen = rows.select(flags)
    assert chosen.columns["input_ids"].shape[1] == batch["attention_mask"].sum(1).min()
    assert rows.select(np.ones(6, np.bool_)) is rows


def test_labels_of_tokens_are_padded_with_what_no_loss_counts():
    parts = [
        Rows.of(collate(make_rows(1, causal=True, seed=seed)), TOKEN_LABELS) for seed in range(6)
    ]
    joined = Rows.joined(parts, left=False)
    mask = joined.tokens[1]
    assert (joined.columns["labels"].numpy()[~mask] == -100).all()
    assert (joined.columns["labels"].numpy()[mask] == joined.tokens[0][mask]).all()


def test_graphs_are_kept_for_what_is_taken_and_forgotten_for_the_rest():
    waiting = Buffer()
    for seed in range(2):
        rows = Rows.of(collate(make_rows(4, seed=seed)), ROWS)
        losses = torch.ones(4, requires_grad=True) * (seed + 1)
        waiting.add(Rows(rows.columns, losses=losses))
    assert (waiting.held, waiting.held_examples) == (2, 8)
    first, second = waiting.take(6)
    assert first.losses.tolist() == [1] * 4
    assert second.losses.tolist() == [2] * 2
    assert (len(waiting), waiting.held) == (2, 0)


def test_is_restored(tmp_path):
    waiting, other = Buffer(), Buffer()
    for seed in range(3):
        waiting.add(Rows.of(collate(make_rows(seed + 1, seed=seed)), ROWS))
    torch.save(waiting.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(state, ROWS, torch.device("cpu"))
    taken = [contents(Rows.joined(each.take(6), left=False)) for each in (waiting, other)]
    assert taken[0] == taken[1]


def test_says_why_rows_do_not_fit():
    batch = collate(make_rows(3))
    for broken in ({"labels": batch["labels"]}, {**batch, "labels": torch.tensor(1)}):
        with pytest.raises(SecondaryLearnersError):
            Rows.of(broken, ROWS)
    parts = [Rows.of({"input_ids": torch.ones(1, width).long()}, ROWS) for width in (2, 3)]
    with pytest.raises(SecondaryLearnersError, match="attention_mask"):
        Rows.joined(parts, left=False)
