"""Meta predictors: naive Bayes against scikit-learn on dense counts, and learners."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from secondary_learners.errors import IncompatibleError, SecondaryLearnersError
from secondary_learners.filtering.predictors import LearnerPredictor, NaiveBayes, token_presence
from secondary_learners.filtering.thresholds import Quantile, Shifting

bayes = pytest.importorskip("sklearn.naive_bayes")


def batch(random, rows=8, width=64, longest=10):
    lengths = random.integers(1, longest + 1, rows)
    mask = np.arange(longest) < lengths[:, None]
    return random.integers(0, width, (rows, longest)) * mask, mask


def dense(ids, mask, width):
    result = np.zeros((len(ids), width))
    for row, (tokens, shown) in enumerate(zip(ids, mask, strict=True)):
        result[row, tokens[shown]] = 1
    return result


def test_token_presence_is_the_dense_one():
    random = np.random.default_rng(0)
    ids, mask = batch(random)
    mask[3] = False  # a row without tokens
    tokens, starts = token_presence(ids, mask, 64)
    rebuilt = np.zeros((8, 64))
    for row in range(8):
        rebuilt[row, tokens[starts[row] : starts[row + 1]]] += 1
    assert (rebuilt == dense(ids, mask, 64)).all()


def test_naive_bayes_is_that_of_scikit_learn_on_everything_so_far():
    random = np.random.default_rng(1)
    ours, seen, labels = NaiveBayes(vocabulary=64, smoothing=0.3, together=1), [], []
    for step in range(20):
        ids, mask = batch(random)
        truth = (ids[:, 0] < 30) & (random.random(8) < 0.9)
        if step:
            reference = bayes.BernoulliNB(alpha=0.3).fit(np.concatenate(seen), labels)
            logs = reference.predict_log_proba(dense(ids, mask, 64))
            admitted = ours.admit(ids, mask, step)
            assert (admitted == (logs[:, 1] >= np.log(0.5))).all()
        doubt = ours.learn(ids, mask, truth)
        if step:
            assert doubt == pytest.approx(-logs[range(8), truth.astype(int)].mean())
        else:
            assert doubt is None
        seen.append(dense(ids, mask, 64))
        labels.extend(truth.tolist())


def test_the_vocabulary_grows_as_if_it_had_been_there():
    random = np.random.default_rng(2)
    growing, fixed = NaiveBayes(together=1), NaiveBayes(vocabulary=256, together=1)
    for width in (3, 20, 60, 256):
        ids, mask = batch(random, width=width)
        ids[0, 0] = width - 1
        for predictor in (growing, fixed):
            predictor.learn(ids, mask, np.arange(8) % 3 == 0)
    ids, mask = batch(random, width=256)
    truth = np.arange(8) % 2 == 0
    assert growing.learn(ids, mask, truth) == pytest.approx(fixed.learn(ids, mask, truth))


def test_learning_together_is_learning_in_turn():
    random = np.random.default_rng(8)
    at_once, in_turn = NaiveBayes(together=24), NaiveBayes(together=1)
    for step in range(9):
        ids, mask = batch(random, width=10 * (step + 1))
        doubts = [each.learn(ids, mask, ids[:, 0] % 3 == 0) for each in (at_once, in_turn)]
        assert (doubts[0] is None) == (step % 3 < 2 or step == 2)
        if step % 3 == 2:
            assert (at_once.admit(ids, mask, 0) == in_turn.admit(ids, mask, 0)).all()


@pytest.mark.parametrize(("together", "share"), [(1, None), (20, None), (1, 0.3)])
def test_naive_bayes_is_restored(tmp_path, together, share):
    random = np.random.default_rng(3)
    options = {"together": together, "admit_share": share}
    first, second = NaiveBayes(**options), NaiveBayes(**options)
    second.load_state_dict(first.state_dict())  # before anything was learnt
    for _ in range(5 if share is None else 20):
        ids, mask = batch(random)
        first.admit(ids, mask, 0)
        first.learn(ids, mask, ids[:, 0] < 30)
    assert share is None or not first.admit(ids, mask, 0).all()  # with a bar of what came
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(5):
        ids, mask = batch(random, width=100)
        assert (first.admit(ids, mask, 0) == second.admit(ids, mask, 0)).all()
        assert first.learn(ids, mask, ids[:, 0] < 30) == second.learn(ids, mask, ids[:, 0] < 30)


def test_one_class_so_far_admits_nothing_else():
    ids, mask = batch(np.random.default_rng(4))
    predictor = NaiveBayes(together=1)
    assert predictor.admit(ids, mask, 0).all()  # knows nothing yet
    predictor.learn(ids, mask, np.ones(8, np.bool_))
    assert predictor.admit(ids, mask, 0).all()
    doubt = predictor.learn(ids, mask, np.zeros(8, np.bool_))
    assert doubt is not None


def test_a_large_vocabulary_takes_no_array_of_it_for_each_row():
    predictor = NaiveBayes(vocabulary=50_000)
    ids, mask = batch(np.random.default_rng(5), width=50_000, longest=128)
    predictor.learn(ids, mask, np.arange(8) % 2 == 0)
    tracemalloc.start()
    try:
        predictor.admit(ids, mask, 0)
        predictor.learn(ids, mask, np.arange(8) % 2 == 0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * 50_000 * 8 / 2  # half of a dense float64 batch x vocabulary


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_row_without_tokens_has_the_prior_odds(place):
    random = np.random.default_rng(9)
    ids, mask = batch(random)
    mask[0 if place == "first" else -1] = False
    truth = ids[:, 1] < 30
    ours = NaiveBayes(vocabulary=64, together=1, admit_above=0.4)
    for _ in range(3):
        ours.learn(*batch(random), truth)
    admitted, doubt = ours.admit(ids, mask, 0), ours.learn(ids, mask, truth)
    theirs = bayes.BernoulliNB(alpha=0.05)
    random = np.random.default_rng(9)
    batch(random)
    for _ in range(3):
        theirs.partial_fit(dense(*batch(random), 64), truth, classes=(False, True))
    logs = theirs.predict_log_proba(dense(ids, mask, 64))
    assert (admitted == (logs[:, 1] >= np.log(0.4))).all()
    assert doubt == pytest.approx(-logs[range(8), truth.astype(int)].mean())


def test_a_share_is_admitted_whatever_the_probabilities_are():
    """Nine in ten rows are informative, and with a bar of 0.5 nearly all would be admitted."""
    random = np.random.default_rng(11)
    predictor, bar = NaiveBayes(admit_share=0.25), NaiveBayes()
    counts = np.zeros(2)
    for step in range(300):
        ids, mask = batch(random)
        if step >= 100:
            counts += predictor.admit(ids, mask, step).sum(), bar.admit(ids, mask, step).sum()
        for each in (predictor, bar):
            each.learn(ids, mask, (ids[:, 0] < 8) | (random.random(8) < 0.9))
    share, most = counts / (200 * 8)
    assert 0.2 < share < 0.32 and most > 0.9


@pytest.mark.parametrize("only", [True, False])
def test_a_share_of_one_class_so_far_is_all_of_it(only):
    random = np.random.default_rng(13)
    predictor = NaiveBayes(admit_share=0.3, together=8)
    for step in range(100):
        ids, mask = batch(random)
        assert predictor.admit(ids, mask, step).all()
        predictor.learn(ids, mask, np.full(8, only))
    predictor.learn(ids, mask, np.arange(8) % 2 == 0)
    admitted = [predictor.admit(*batch(random), 0).mean() for _ in range(100)]
    assert 0.2 < np.mean(admitted) < 0.5


def test_admits_the_likeliest_to_be_informative():
    random = np.random.default_rng(12)
    predictor = NaiveBayes(admit_share=0.3, together=8)
    for _ in range(100):
        ids, mask = batch(random)
        predictor.learn(ids, mask, (ids == 7).any(axis=1))
    told, all_ = np.zeros(2), np.zeros(2)
    for step in range(100):
        ids, mask = batch(random)
        admitted, has = predictor.admit(ids, mask, step), (ids == 7).any(axis=1)
        if step >= 10:
            told += admitted[has].sum(), admitted[~has].sum()
            all_ += has.sum(), (~has).sum()
    assert told[0] / all_[0] > 0.9 > 0.4 > told[1] / all_[1]


def test_refuses_values_out_of_range():
    with pytest.raises(SecondaryLearnersError, match=r"admit_share is 1.5.*Try NaiveBayes"):
        NaiveBayes(admit_share=1.5)
    for options in ({"admit_above": 1.0}, {"smoothing": 0.0}, {"together": 0}):
        with pytest.raises(SecondaryLearnersError, match="Try NaiveBayes"):
            NaiveBayes(**options)


def test_a_learners_threshold_follows_the_step(learner):
    predictor = LearnerPredictor(learner, Shifting(start=1.0, end=-1.0, after=3))
    ids, mask = batch(np.random.default_rng(6), rows=50)
    scores = learner.score(ids, mask).numpy()
    for step, limit in ((0, 1.0), (2, 1.0), (3, -1.0)):
        assert (predictor.admit(ids, mask, step) == (scores >= limit)).all()
        assert predictor.threshold == limit


def test_a_learners_recent_scores_are_restored(learner, tmp_path):
    random = np.random.default_rng(7)
    first, second = (LearnerPredictor(learner, Quantile(0.3), max_skips=5) for _ in range(2))
    for _ in range(50):
        first.admit(*batch(random), 0)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(20):
        ids, mask = batch(random)
        assert (first.admit(ids, mask, 0) == second.admit(ids, mask, 0)).all()
        assert first.threshold == second.threshold


def test_a_learner_refuses_a_foreign_tokenizer(learner, tokenizer):
    predictor = LearnerPredictor(learner)
    predictor.check_tokenizer(tokenizer)
    with pytest.raises(IncompatibleError):
        predictor.check_tokenizer(type(tokenizer)(5))
    NaiveBayes().check_tokenizer(type(tokenizer)(5))
