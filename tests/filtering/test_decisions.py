"""Filters that need no losses: a learner's, and the blind one that everything is compared with."""

from __future__ import annotations

import numpy as np
import pytest

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.decisions import Counts, LearnerFilter, RandomFilter
from secondary_learners.filtering.selection import pad
from secondary_learners.filtering.stream import filtered
from secondary_learners.filtering.thresholds import Constant, Quantile, Soft


@pytest.fixture
def batches(make_ids):
    sequences = make_ids(400, seed=5)
    return [pad(sequences[begin : begin + 8]) for begin in range(0, 400, 8)]


def choose(filter_, batches):
    return [
        filter_.admit(*batch, step=step, total=50).tolist() for step, batch in enumerate(batches)
    ]


def test_a_learner_filter_keeps_what_reaches_the_threshold(learner, tokenizer, batches):
    filter_ = LearnerFilter(learner, 0.5)
    filter_.check_tokenizer(tokenizer)
    assert not filter_.needs_losses
    chosen = choose(filter_, batches)
    assert chosen == [(learner.score(*batch) >= 0.5).tolist() for batch in batches]
    kept = sum(map(sum, chosen))
    assert filter_.counts == Counts(seen=400, skipped_forward=400 - kept, kept=kept)
    assert filter_.status() == {"threshold": 0.5}
    assert filter_.keep(np.zeros(3), *batches[0]).all()


def test_a_random_filter_keeps_its_share_and_is_the_same_for_a_seed(batches):
    first, again, other = RandomFilter(0.3), RandomFilter(0.3), RandomFilter(0.3, seed=1)
    chosen = choose(first, batches)
    assert chosen == choose(again, batches) != choose(other, batches)
    assert 0.2 < first.counts.kept / 400 < 0.4
    assert sum(map(sum, choose(RandomFilter(1.0), batches))) == 400


@pytest.mark.parametrize("kind", ["learner", "random"])
def test_a_restored_filter_goes_on_as_the_first(kind, learner, batches):
    def new():
        return LearnerFilter(learner, "quantile:0.3") if kind == "learner" else RandomFilter(0.3)

    whole, first, second = new(), new(), new()
    expected = choose(whole, batches)
    before = choose(first, batches[:20])
    second.load_state_dict(first.state_dict())
    assert before + choose(second, batches[20:]) == expected
    assert second.counts == whole.counts


def test_refuses_a_share_that_is_none():
    with pytest.raises(SecondaryLearnersError, match="the share to keep is 0"):
        RandomFilter(0)


def test_soft_choices_are_the_same_in_any_process_batch_and_order(learner, make_ids, batches):
    sequences = make_ids(400, seed=5)
    soft = Soft(Constant(0.3), 0.7, seed=1)
    kept = list(filtered(sequences, learner, soft))
    assert kept != list(filtered(sequences, learner, 0.3)) != []
    flags = np.concatenate(choose(LearnerFilter(learner, soft), batches))
    assert [ids for ids, flag in zip(sequences, flags, strict=True) if flag] == kept
    shards = [list(filtered(sequences[place::2], learner, soft)) for place in (0, 1)]
    assert sorted(shards[0] + shards[1]) == sorted(kept)
    assert list(filtered(sequences[::-1], learner, "soft:0.7,1:0.3")) == kept[::-1]


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_a_soft_quantile_keeps_its_share(learner, make_ids, temperature):
    stream = filtered(make_ids(6000), learner, Soft(Quantile(0.3), temperature))
    assert sum(1 for _ in stream) / 6000 == pytest.approx(0.3, abs=0.05)
