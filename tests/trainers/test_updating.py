"""When a batch is full over all processes, and what its gradients are; without a Trainer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.trainers.layout import Layout, Role
from secondary_learners.trainers.losses import example_losses, loss_items
from secondary_learners.trainers.rows import Rows
from secondary_learners.trainers.updating import back_propagate, plan_update
from trainer_helpers import collate, make_model, make_rows

counts = st.lists(st.integers(0, 20), min_size=1, max_size=5)


@given(counts, st.integers(1, 30), st.booleans())
def test_a_batch_is_whole_or_the_last(waiting, whole, last):
    quotas = plan_update(waiting, [0] * len(waiting), whole, last=last)
    if quotas is None:
        assert sum(waiting) == 0 or (sum(waiting) < whole and not last)
        return
    assert all(0 <= quota <= count for quota, count in zip(quotas, waiting, strict=True))
    assert sum(quotas) == (sum(waiting) if last else whole)


@given(counts, st.integers(1, 30), st.booleans())
def test_two_thirds_with_their_graphs_are_enough_and_all_go(waiting, whole, last):
    quotas = plan_update(waiting, waiting, whole, last=last)
    enough = sum(waiting) > 0 and (last or 3 * sum(waiting) >= 2 * whole)
    assert quotas == (waiting if enough else None)


class OneProcess:
    """What an update asks of a Trainer, of a model that it alone trains."""

    def __init__(self, model, causal):
        self.model, self.causal, self.processes = model, causal, 1
        self.spent, self.runs, self.done = 0.0, [], False

    def gather(self, values):
        return torch.tensor([list(values)])

    def each(self, batch):
        labels = {"labels": batch.columns["labels"]}
        inputs = {name: value for name, value in batch.columns.items() if name != "labels"}
        return example_losses(self.model(**inputs), labels, shifted=self.causal)

    def loss(self, batch, total):
        self.runs.append(len(batch))
        return (self.each(batch) * self.counted(batch)).sum() / total

    def stand_in(self, total, *, last):
        raise AssertionError("there is no other process")

    def counted(self, rows):
        return loss_items(rows.columns["labels"], shifted=self.causal)

    terms = counted

    def backward(self, loss, *, last):
        assert not self.done
        self.done = last
        loss.backward()

    def spend(self, flops):
        self.spent += flops


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("stored", [(), (0,), (1,), (0, 1, 2)])
def test_the_gradient_is_that_of_the_mean_over_all_terms(causal, stored):
    layout = Layout(labels=Role.TOKENS if causal else Role.VALUE)
    data = [make_rows(count, causal=causal, seed=count) for count in (3, 4, 2)]

    def gradients(model):
        return {name: value.grad for name, value in model.named_parameters()}

    model = make_model(causal=causal, dropout=0.0).double()
    engine = OneProcess(model, causal)
    taken = [Rows.of(collate(rows), layout) for rows in data]
    for place in stored:
        taken[place] = taken[place].with_losses(engine.each(taken[place]), 9.0)
    value = back_propagate(taken, engine, size=4, left=False)

    reference = make_model(causal=causal, dropout=0.0).double()
    alone = OneProcess(reference, causal)
    batches = [Rows.of(collate([row]), layout) for rows in data for row in rows]
    total = sum(int(alone.counted(batch).sum()) for batch in batches)
    loss = sum((alone.each(batch) * alone.counted(batch)).sum() for batch in batches) / total
    loss.backward()
    assert value == pytest.approx(loss.item())
    assert engine.done
    expected = gradients(reference)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[name], atol=1e-7), name
    fresh = sum(len(rows) for place, rows in enumerate(data) if place not in stored)
    assert sum(engine.runs) == fresh
    assert all(count == 4 for count in engine.runs[:-1])
    assert engine.spent == len(stored) * 9.0 * 2 / 3
