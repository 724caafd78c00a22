"""The multistage filter against a plain, slow implementation of the same rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.predictors import LearnerPredictor, NaiveBayes

WIDTH = 64


class PlainNaiveBayes:
    """Bernoulli naive Bayes as in the textbooks: one example and one token at a time."""

    def __init__(self, smoothing):
        self.smoothing = smoothing
        self.examples = [0, 0]
        self.with_token = [[0] * WIDTH, [0] * WIDTH]

    def logs(self, tokens):
        joint = []
        for label in (0, 1):
            seen = self.examples[label]
            value = math.log(seen / sum(self.examples)) if seen else -math.inf
            for token in range(WIDTH):
                share = self.with_token[label][token] + self.smoothing
                share /= seen + 2 * self.smoothing
                value += math.log(share if token in tokens else 1 - share)
            joint.append(value)
        top = max(joint)
        norm = top + math.log(sum(math.exp(value - top) for value in joint))
        return [value - norm for value in joint]

    def learn(self, tokens, label):
        self.examples[label] += 1
        for token in set(tokens):
            self.with_token[label][token] += 1


def plain(stream, *, warmup, window, bound, patience, latest, reestimate, least):
    """The decisions on a stream of batches of (tokens, loss): "kept", "back" or "forward"."""
    stage, losses, doubts, bayes = 0, [], [], PlainNaiveBayes(0.05)
    frozen, learnt, decisions, stages = None, False, [], []
    for step, batch in enumerate(stream):
        done = step / len(stream)
        if stage == 0 and done >= warmup and losses:
            stage, frozen = 1, sum(losses[-window:]) / len(losses[-window:])
        if stage == 1:
            recent = doubts[-patience:]
            sure = len(recent) == patience and sum(recent) / patience < bound
            if sure or (done >= latest and learnt):
                stage = 2
        stages.append(stage)
        threshold = frozen
        if stage and reestimate:
            threshold = sum(losses[-window:]) / len(losses[-window:])
        if stage and least:
            threshold = min(threshold, float(np.quantile(losses[-window:], 1 - least)))
        outcome = []
        judged = []
        for tokens, loss in batch:
            if stage == 2 and bayes.logs(tokens)[1] < math.log(0.5):
                outcome.append("forward")
                continue
            losses.append(loss)
            if stage == 0:
                outcome.append("kept")
                continue
            informative = loss > threshold
            judged.append((tokens, int(informative)))
            outcome.append("kept" if informative else "back")
        if judged:
            if learnt:
                doubts.append(-sum(bayes.logs(t)[y] for t, y in judged) / len(judged))
            for tokens, label in judged:
                bayes.learn(tokens, label)
            learnt = True
        decisions.append(outcome)
    return decisions, stages


def padded(sequences):
    width = max(map(len, sequences))
    ids = np.array([[*row, *[7] * (width - len(row))] for row in sequences], np.int64)
    mask = np.array([[True] * len(row) + [False] * (width - len(row)) for row in sequences])
    return ids, mask


def run(filter_, stream, begin=0, end=None):
    """The decisions of the real filter in steps `begin` to `end`, and its stages."""
    decisions, stages = [], []
    for step, batch in list(enumerate(stream))[begin:end]:
        ids, mask = padded([tokens for tokens, _ in batch])
        admitted = filter_.admit(ids, mask, step=step, total=len(stream))
        stages.append(filter_.stage)
        losses = np.array([loss for _, loss in batch])[admitted]
        outcome = np.full(len(batch), "forward", dtype=object)
        if filter_.needs_losses and admitted.any():
            kept = filter_.keep(losses, ids[admitted], mask[admitted])
            outcome[admitted] = np.where(kept, "kept", "back")
        elif admitted.any():
            filter_.observe(losses)
            outcome[admitted] = "kept"
        decisions.append(outcome.tolist())
    return decisions, stages


def make_stream(seed, batches=120, size=8):
    """Losses fall with time, and low tokens make them high."""
    random = np.random.default_rng(seed)
    stream = []
    for step in range(batches):
        rows = [random.integers(0, WIDTH, random.integers(1, 9)).tolist() for _ in range(size)]
        stream.append(
            [
                (row, float((1.5 - step / batches) * (row[0] < 20) + random.exponential(0.5)))
                for row in rows
            ]
        )
    return stream


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("reestimate", "least", "bound", "latest"),
    [
        (False, 0.0, 0.6, 1.0),
        (False, 0.0, 0.0, 0.5),
        (True, 0.0, 0.6, 0.6),
        (False, 0.3, 0.65, 0.8),
        (True, 0.5, 0.65, 0.8),
    ],
)
def test_decides_as_the_plain_rules(seed, reestimate, least, bound, latest):
    stream = make_stream(seed)
    options = dict(warmup=0.15, window=50, bound=bound, patience=10, latest=latest)
    real = MultistageFilter(
        NaiveBayes(vocabulary=WIDTH, together=1),
        reestimate=reestimate,
        keep_at_least=least,
        **options,
    )
    expected = plain(stream, reestimate=reestimate, least=least, **options)
    assert run(real, stream) == expected
    flat = [word for batch in expected[0] for word in batch]
    counts = real.counts
    assert counts.seen == len(flat) == 960
    assert counts.kept == flat.count("kept")
    assert counts.skipped_backward == flat.count("back") > 0
    assert counts.skipped_forward == flat.count("forward")
    assert counts.forwarded == counts.seen - counts.skipped_forward
    assert set(expected[1]) >= {0, 1}


def test_a_restored_filter_goes_on_as_the_first(tmp_path):
    stream = make_stream(1)

    def new():
        return MultistageFilter(bound=0.0, latest=0.5, keep_at_least=0.2)

    whole = new()
    expected = run(whole, stream)
    for stop, stage in ((5, 0), (30, 1), (90, 2)):
        first, second = new(), new()
        before = run(first, stream, end=stop)
        torch.save(first.state_dict(), tmp_path / "state.pt")
        second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        after = run(second, stream, stop)
        assert (before[0] + after[0], before[1] + after[1]) == expected
        assert expected[1][stop] == stage
        assert second.counts == whole.counts
        assert second.status() == whole.status()


def test_a_learner_skips_forward_passes_from_the_first_step(learner):
    stream = make_stream(2)
    filter_ = MultistageFilter(LearnerPredictor(learner, 0.0), warmup=0.2)
    decisions, stages = run(filter_, stream)
    assert set(stages) == {0, 2}
    flat = [word for batch in decisions for word in batch]
    scores = [float(learner.score([tokens])[0]) for batch in stream for tokens, _ in batch]
    assert [word == "forward" for word in flat] == [score < 0 for score in scores]
    assert "back" not in [word for batch in decisions[:24] for word in batch]
    assert "back" in flat
    status = filter_.status()
    assert status["stage"] == 2
    assert 0 < status["informative_share"] < 1


def test_losses_that_are_not_finite_are_kept_and_forgotten():
    filter_ = MultistageFilter(warmup=0.5)
    ids, mask = padded([[1, 2], [3], [4]])
    filter_.admit(ids, mask, step=0, total=10)
    filter_.observe(np.array([1.0, math.nan, 3.0]))
    filter_.admit(ids, mask, step=5, total=10)
    assert filter_.threshold == 2.0
    kept = filter_.keep(np.array([math.nan, math.inf, 1.0]), ids, mask)
    assert kept.tolist() == [True, True, False]
    assert filter_.learnt == 1
    assert filter_.threshold == 2.0
    assert filter_.keep(np.array([math.nan] * 3), ids, mask).all()


def test_a_starving_run_keeps_at_least_its_share():
    stream = [
        [(row, loss / (step + 1)) for row, loss in batch]
        for step, batch in enumerate(make_stream(3))
    ]
    starved, fed = (
        MultistageFilter(bound=0.0, latest=1.0, keep_at_least=least) for least in (0.0, 0.25)
    )
    late = {}
    for name, filter_ in (("starved", starved), ("fed", fed)):
        decisions, _ = run(filter_, stream)
        late[name] = sum(batch.count("kept") for batch in decisions[60:]) / 480
    assert late["starved"] < 0.01
    assert 0.15 < late["fed"] < 0.35


def test_stage_0_lasts_until_a_loss_was_seen(learner):
    """A learner that admits nothing shows no loss, so there is no threshold yet."""
    filter_ = MultistageFilter(LearnerPredictor(learner, 50.0, max_skips=10_000), warmup=0.1)
    _, stages = run(filter_, make_stream(0))
    assert set(stages) == {0}
    assert filter_.counts.skipped_forward == 960


@pytest.mark.parametrize(
    "options", [{"warmup": 1.5}, {"latest": -0.1}, {"window": 0}, {"patience": 0}], ids=str
)
def test_refuses_values_out_of_range(options):
    with pytest.raises(SecondaryLearnersError, match=f"{next(iter(options))} is"):
        MultistageFilter(**options)
