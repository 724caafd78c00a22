"""What is run and what is kept, decided without a model or a Trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secondary_learners.errors import UnknownNameError
from secondary_learners.filtering.decisions import RandomFilter
from secondary_learners.trainers.buffer import Buffer
from secondary_learners.trainers.deciding import Decider, Pass, Position
from secondary_learners.trainers.layout import Layout
from secondary_learners.trainers.rows import Rows
from trainer_helpers import collate, make_rows

SIZE = 4


class ByLoss(RandomFilter):
    """Lets every other example pass, and keeps those with a loss above `bar`."""

    needs_losses = True

    def __init__(self, bar):
        super().__init__(1.0)
        self.bar = bar

    def admit(self, input_ids, attention_mask, *, step, total):
        return self._count((self.counts.seen + np.arange(len(input_ids))) % 2 == 0)

    def keep(self, losses, input_ids, attention_mask):
        return losses > self.bar


class Passes:
    """A model whose loss is the first token of a row; notes how it was run."""

    def __init__(self, can_store=True):
        self.sizes, self.stored = [], []
        self.weight = torch.ones((), requires_grad=True)
        self.way = Pass(self.losses, lambda rows: 10.0 * len(rows), can_store)

    def losses(self, rows, with_graph):
        self.sizes.append(len(rows))
        self.stored.append(with_graph)
        losses = rows.main[:, 0].float() * self.weight
        return losses if with_graph else losses.detach()


def decided(decider, kept, passes, batches, last=True):
    for step, batch in enumerate(batches):
        at = Position(step, len(batches), last and step == len(batches) - 1)
        decider.decide(Rows.of(collate(batch), Layout()), kept, passes.way, at)


def batches(count):
    rows = make_rows(count)
    return [rows[begin : begin + SIZE] for begin in range(0, count, SIZE)]


def firsts(kept):
    parts = kept.take(len(kept))
    return [int(row[0]) for part in parts for row in part.columns["input_ids"]]


def test_what_is_admitted_runs_in_full_batches_and_the_rest_at_the_end():
    decider = Decider(ByLoss(31.5), size=SIZE, forwards="again", hold=2)
    kept, passes = Buffer(), Passes()
    decided(decider, kept, passes, batches(28))
    assert passes.sizes == [4, 4, 4, 2]
    expected = [row["input_ids"][0] for row in make_rows(28)[::2]]
    assert firsts(kept) == [first for first in expected if first > 31.5]


def test_what_is_not_asked_about_is_not_run():
    decider = Decider(RandomFilter(0.5), size=SIZE, forwards="same", hold=2)
    kept, passes = Buffer(), Passes()
    decided(decider, kept, passes, batches(24))
    assert passes.sizes == []
    assert len(kept) == decider.filter.counts.kept


@pytest.mark.parametrize(
    ("forwards", "hold", "can_store", "bar", "stored"),
    [
        ("again", 9, True, -1, [False] * 4),
        ("same", 9, True, 99, [True] * 4),
        ("same", 2, True, -1, [True, True, False, False]),  # no room for more
        ("same", 9, False, -1, [False] * 4),
        ("auto", 9, True, -1, [False, True, True, True]),  # the first shows that most are kept
        ("auto", 9, True, 99, [False] * 4),
    ],
)
def test_when_activations_are_stored(forwards, hold, can_store, bar, stored):
    decider = Decider(ByLoss(bar), size=SIZE, forwards=forwards, hold=hold)
    kept, passes = Buffer(), Passes(can_store)
    decided(decider, kept, passes, batches(32))
    assert passes.stored == stored
    assert kept.held == (sum(stored) if bar < 0 else 0)


def test_is_restored_in_the_midst(tmp_path):
    given = batches(40)
    whole, first, second = (
        Decider(ByLoss(31.5), size=SIZE, forwards="auto", hold=2) for _ in range(3)
    )
    kept, expected = Buffer(), Buffer()
    passes, reference = Passes(), Passes()
    decided(whole, expected, reference, given)
    decided(first, kept, passes, given[:5], last=False)
    kept.release()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(state, Layout(), torch.device("cpu"))
    decided(second, kept, passes, given[5:])
    assert passes.sizes == reference.sizes
    assert firsts(kept) == firsts(expected)


def test_a_way_of_passes_that_does_not_exist():
    with pytest.raises(UnknownNameError, match="did you mean same"):
        Decider(RandomFilter(0.5), size=1, forwards="sam", hold=1)
