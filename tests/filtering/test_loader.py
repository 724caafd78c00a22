"""The filtered loader goes on in the middle of an epoch; how survivors are dealt out."""

from __future__ import annotations

import io
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.dealing import Dealer, plan_moves
from secondary_learners.filtering.stream import filtered


class Examples(torch.utils.data.Dataset):
    def __init__(self, sequences):
        self.sequences = sequences

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, place):
        return {"input_ids": torch.tensor(self.sequences[place]), "place": place}


class Stream(Examples, IterableDataset):
    def __iter__(self):
        yield from (self[place] for place in range(len(self)))


def collate(examples):
    return [example["place"] for example in examples]


def load(data, size=8, kind=DataLoader, **options):
    return kind(data, size, collate_fn=collate, **options)


def through_a_file(state):
    """As a checkpoint keeps it: read without running any code that it may hold."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def stateful(data):
    module = pytest.importorskip(
        "torchdata.stateful_dataloader", reason="torchdata is not installed"
    )
    return load(data, kind=module.StatefulDataLoader, shuffle=True, drop_last=True)


LOADERS = {
    "plain": load,
    "large batches": partial(load, size=100, drop_last=True),
    "shuffled": partial(load, shuffle=True),
    "workers": partial(load, shuffle=True, num_workers=2, multiprocessing_context="fork"),
    "stateful": stateful,
}


@pytest.mark.filterwarnings("ignore:'set_vital':UserWarning")  # in torchdata
@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS.keys())
@pytest.mark.parametrize("threshold", ["quantile:0.4", "soft:0.5:shifting:1,-1,4"])
def test_goes_on_as_if_never_stopped(learner, make_ids, make, threshold):
    data = Examples(make_ids(700))

    def new():
        options = {"max_skips": 30, "batch_size": 8}
        return filtered(make(data), learner, threshold, **options)

    torch.manual_seed(1)
    whole = new()
    states, batches = [], []
    assert whole.state_dict() == {}
    for batch in whole:
        batches.append(batch)
        states.append(through_a_file(whole.state_dict()))
    assert whole.state_dict() == {}
    for number in (0, 3, len(batches) - 2):
        torch.manual_seed(100 + number)  # another order, if it were drawn
        again = new()
        again.load_state_dict(states[number])
        assert list(again) == batches[number + 1 :]
        assert again.report == whole.report
    last = new()
    last.load_state_dict(states[-1])
    assert list(last) == []
    fresh = new()
    fresh.load_state_dict(whole.state_dict())  # of an epoch that has ended: the next one begins
    assert len(list(fresh)) > 3


def seeded():
    return torch.Generator().manual_seed(3)


def test_the_epochs_after_a_resumed_one_are_the_same(learner, make_ids):
    data = Examples(make_ids(200))

    def new():
        return filtered(load(data, shuffle=True, generator=seeded()), learner, 0.2)

    whole, again = new(), new()
    first = iter(whole)
    next(first)
    state = whole.state_dict()
    rest = list(first)
    second = list(whole)
    again.load_state_dict(state)
    assert list(again) == rest
    assert list(again) == second != rest


def test_a_stream_goes_on(learner, make_ids):
    data = Stream(make_ids(300))
    whole = filtered(load(data), learner, 0.2)
    batches = iter(whole)
    next(batches)
    state = whole.state_dict()
    again = filtered(load(data), learner, 0.2)
    again.load_state_dict(state)
    rest = list(batches)
    assert list(again) == rest != []


def test_another_number_of_processes_cannot_go_on(learner, make_ids):
    loader = filtered(load(Examples(make_ids(90))), learner, 0.0)
    next(iter(loader))
    state = {**loader.state_dict(), "processes": 2}
    loader.load_state_dict(state)
    with pytest.raises(SecondaryLearnersError, match="of 2 processes, and these are 1"):
        next(iter(loader))


def test_epochs_reach_the_sampler(learner, make_ids):
    data = Examples(make_ids(90))
    sampler = torch.utils.data.DistributedSampler(data, num_replicas=1, rank=0)
    loader = filtered(load(data, sampler=sampler), learner, 0.0)
    first = list(loader)
    loader.set_epoch(1)
    assert list(loader) != first


def test_joint_is_for_loaders(learner, make_ids):
    with pytest.raises(SecondaryLearnersError, match="joint is for a DataLoader"):
        filtered(make_ids(9), learner, 0.0, joint=True)


def test_a_loader_that_one_process_reads_for_all_is_refused(learner, make_ids):
    accelerate = pytest.importorskip("accelerate")
    loader = accelerate.data_loader.prepare_data_loader(
        load(Stream(make_ids(9))),
        torch.device("cpu"),
        num_processes=1,
        process_index=0,
        put_on_device=True,
        dispatch_batches=True,
    )
    with pytest.raises(SecondaryLearnersError, match="dispatch_batches=False"):
        filtered(loader, learner, 0.0)


def test_joint_alone_is_as_without(learner, make_ids):
    data = Examples(make_ids(203))
    alone = list(filtered(load(data), learner, 0.3))
    joint = filtered(load(data), learner, 0.3, joint=True)
    assert list(joint) == alone


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_moves_give_each_its_count_and_take_only_what_is_spare(waiting, count):
    if sum(waiting) < count * len(waiting):
        count = sum(waiting) // len(waiting)
    moves = plan_moves(waiting, count)
    after = list(waiting)
    for giver, taker, moved in moves:
        assert moved > 0
        assert waiting[giver] > count > waiting[taker]
        after[giver] -= moved
        after[taker] += moved
    assert all(have >= count for have in after)
    dealer, pending = Dealer(joint=True), list(range(7))  # of one process
    left = [7]
    assert (dealer.deal(pending, left, 3), pending, left) == ([0, 1, 2], [3, 4, 5, 6], [4])
