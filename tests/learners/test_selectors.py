"""Selectors: on two made-up languages, and against scikit-learn and plain counts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.learners.selectors import SELECTORS, fit_selector, net_scores
from secondary_learners.text.sequences import Examples

VOCABULARY = 60


def text(count: int, *, low: int, high: int, seed: int) -> Examples:
    """Contexts of 12 tokens from low..high, four a document."""
    ids = np.random.default_rng(seed).integers(low, high, (count, 12))
    return Examples.contexts(ids, np.arange(count) // 4)


OBJECTIVE = text(40, low=0, high=40, seed=0)
POOL = text(120, low=15, high=60, seed=1)


@pytest.mark.parametrize("name", SELECTORS)
def test_what_is_like_the_objective_scores_higher(name: str) -> None:
    fitted = fit_selector(name, OBJECTIVE, POOL, vocabulary=VOCABULARY, bigrams=64)
    inside, outside = (
        net_scores(fitted.net, text(50, low=low, high=high, seed=2).input_ids)
        for low, high in ((0, 40), (15, 60))
    )
    assert (inside[:, None] > outside).mean() > 0.9
    assert fitted.auc is not None and fitted.auc > 0.9
    again = fit_selector(name, OBJECTIVE, POOL, vocabulary=VOCABULARY, bigrams=64)
    assert (again.net.weight == fitted.net.weight).all()


def test_importance_weights_are_log_ratios_of_frequencies() -> None:
    fitted = fit_selector("dsir", OBJECTIVE, POOL, vocabulary=VOCABULARY, bigrams=0)
    own, other = (Counter(part.input_ids.ravel().tolist()) for part in (OBJECTIVE, POOL))
    both = {token: (own[token] + other[token]) / (160 * 12) for token in range(VOCABULARY)}
    prior = fitted.setting
    for token in range(VOCABULARY):
        smoothed = (own[token] / 12 + prior * both[token]) / (40 + prior)
        expected = np.log(smoothed) - np.log(both[token]) if both[token] else 0.0
        assert fitted.net.weight[token].item() == pytest.approx(expected, abs=1e-5)


def test_the_classifier_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    fitted = fit_selector("classifier", OBJECTIVE, POOL, vocabulary=VOCABULARY, bigrams=0)
    rows = np.concatenate([OBJECTIVE.input_ids, POOL.input_ids])
    counts = np.array([np.bincount(row, minlength=VOCABULARY) for row in rows]) / 12
    model = LogisticRegression(
        C=fitted.setting, class_weight="balanced", solver="liblinear", max_iter=5000
    )
    model.fit(np.sqrt(counts), [True] * 40 + [False] * 120)
    expected = model.decision_function(np.sqrt(counts))
    np.testing.assert_allclose(net_scores(fitted.net, rows), expected, atol=0.02)


def test_tokens_that_neither_has_seen_say_nothing() -> None:
    fitted = fit_selector("dsir", OBJECTIVE, POOL, vocabulary=VOCABULARY + 10, bigrams=64)
    unseen = np.full((1, 12), VOCABULARY + 3)
    assert fitted.net.weight[VOCABULARY + 3].item() == 0
    assert abs(float(net_scores(fitted.net, unseen)[0])) < 5


@given(st.integers(1, 3), st.sampled_from(sorted(SELECTORS)))
@settings(deadline=None, max_examples=6)
def test_a_handful_of_documents_is_enough(documents: int, name: str) -> None:
    few = text(4 * documents, low=0, high=40, seed=3)
    fitted = fit_selector(name, few, POOL, vocabulary=VOCABULARY, bigrams=0)
    assert (fitted.auc is None) == (documents == 1)
    assert np.isfinite(net_scores(fitted.net, few.input_ids)).all()


def test_padding_changes_nothing() -> None:
    fitted = fit_selector("classifier", OBJECTIVE, POOL, vocabulary=VOCABULARY, bigrams=64)
    ids = OBJECTIVE.input_ids[:3]
    padded, mask = np.pad(ids, ((0, 0), (0, 4))), np.pad(np.ones_like(ids, bool), ((0, 0), (0, 4)))
    np.testing.assert_allclose(
        net_scores(fitted.net, padded, mask), net_scores(fitted.net, ids), rtol=1e-5
    )


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UnknownNameError, match="clasifier"):
        fit_selector("clasifier", OBJECTIVE, POOL, vocabulary=VOCABULARY)
    nothing = OBJECTIVE.select(np.array([], np.int64))
    with pytest.raises(SecondaryLearnersError, match="0 and 120"):
        fit_selector("dsir", nothing, POOL, vocabulary=VOCABULARY)
