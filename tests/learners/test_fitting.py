"""Fitting: against the closed form, on data whose truth is known, and twice the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secondary_learners.errors import IncompatibleError, SecondaryLearnersError, UnknownNameError
from secondary_learners.learners.artifact import Learner, save_learner
from secondary_learners.learners.fitting import Fit, fit, fit_baseline, fit_conv, fit_linear
from secondary_learners.learners.nets import LinearNet, linear_features
from secondary_learners.learners.statistics import r2, spearman
from secondary_learners.text.splitting import deal
from tiny_models import tiny_config

VOCABULARY = 40


def data(n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contexts whose labels are a linear function of token frequencies, and a little noise."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY - 5, (n, 12)).astype(np.uint16)
    worth = rng.normal(size=VOCABULARY)
    labels = worth[ids].mean(axis=1) + 0.03 * rng.normal(size=n) + 5.0
    return ids, labels.astype(np.float32), np.arange(n) // 6


def dense(ids: np.ndarray, bigrams: int, counts: str) -> np.ndarray:
    tensor = torch.from_numpy(ids.astype(np.int64))
    columns, values = linear_features(
        tensor,
        torch.ones_like(tensor, dtype=torch.bool),
        vocabulary=VOCABULARY,
        bigrams=bigrams,
        counts=counts,
        dtype=torch.float64,
    )
    matrix = torch.zeros(len(ids), VOCABULARY + bigrams, dtype=torch.float64)
    return matrix.scatter_add_(1, columns, values).numpy()


def ridge(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    centered = x - x.mean(axis=0)
    gram = centered.T @ centered + strength * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, centered.T @ (y - y.mean()))
    return weights, float(y.mean() - x.mean(axis=0) @ weights)


@pytest.mark.parametrize("bigrams", [0, 16])
@pytest.mark.parametrize("counts", ["frequency", "sqrt"])
def test_linear_is_the_closed_form_of_ridge_regression(bigrams: int, counts: str) -> None:
    ids, labels, documents = data()
    found = fit_linear(
        ids, labels, documents, vocabulary=VOCABULARY, bigrams=bigrams, counts=counts
    )
    x, y = dense(ids, bigrams, counts), labels.astype(np.float64)
    y = (y - y.mean()) / y.std()
    assert isinstance(found.net, LinearNet)
    strength = found.settings["regularization"]
    weights, bias = ridge(x, y, strength)
    np.testing.assert_allclose(found.net.weight.detach().numpy(), weights, atol=1e-6)
    assert found.net.bias.item() == pytest.approx(bias, abs=1e-6)
    assert not found.net.weight[VOCABULARY - 5 : VOCABULARY].any()  # tokens that never occur

    # The report comes from a net without the held-out documents.
    train = np.setdiff1d(np.arange(len(ids)), found.held_out)
    weights, bias = ridge(x[train], y[train], strength)
    np.testing.assert_allclose(found.predictions, x[found.held_out] @ weights + bias, atol=1e-7)


@pytest.mark.parametrize("bigrams", [0, 16])
def test_padding_is_no_part_of_a_context(bigrams: int) -> None:
    ids, labels, documents = data()
    options = {"vocabulary": VOCABULARY, "bigrams": bigrams}
    expected = fit_linear(ids, labels, documents, **options)
    padded = np.concatenate([ids, np.full((len(ids), 5), VOCABULARY - 1)], axis=1)
    mask = np.arange(padded.shape[1]) < np.full((len(ids), 1), ids.shape[1])
    found = fit_linear(padded, labels, documents, attention_mask=mask, **options)
    np.testing.assert_allclose(
        found.net.weight.detach().numpy(), expected.net.weight.detach().numpy(), atol=1e-6
    )
    np.testing.assert_allclose(found.predictions, expected.predictions, atol=1e-7)


def test_the_strength_has_the_least_error_over_folds_of_documents() -> None:
    ids, labels, documents = data(n=60)
    labels = labels + np.random.default_rng(1).normal(size=60).astype(np.float32) * 0.3
    found = fit_linear(ids, labels, documents, vocabulary=VOCABULARY, seed=3)
    x, y = dense(ids, 0, "sqrt"), labels.astype(np.float64)
    y = (y - y.mean()) / y.std()
    # The split, written out: 10 documents dealt to what is held out and to 5 folds.
    shares = [0.15, *[0.17] * 5]
    part = deal(np.bincount(documents).tolist(), shares, seed=3)[documents]
    assert set(found.held_out) == set(np.flatnonzero(part == 0))
    inner = x[part > 0]
    spread = ((inner - inner.mean(axis=0)) ** 2).sum(axis=1).mean()
    errors = {}
    for relative in np.geomspace(0.1, 100, 10):
        errors[relative * spread] = 0.0
        for fold in range(5):
            tested = part == fold + 1
            trained = (part > 0) & ~tested
            weights, bias = ridge(x[trained], y[trained], relative * spread)
            errors[relative * spread] += ((x[tested] @ weights + bias - y[tested]) ** 2).sum()
    assert found.settings["regularization"] == pytest.approx(min(errors, key=errors.__getitem__))


def test_the_baseline_is_the_best_of_ridge_regressions_with_an_intercept() -> None:
    ids, labels, documents = data()
    y = (labels.astype(np.float64) - labels.mean()) / labels.std() + 3  # no intercept, no fit
    fold = documents % 4
    found = fit_baseline(ids, y, fold, vocabulary=VOCABULARY, bigrams=16)
    x = dense(ids, 16, "sqrt")
    spread = float((x**2).sum() / len(x) - (x.mean(axis=0) ** 2).sum())
    results = {}
    for strength in np.geomspace(0.5, 20, 9) * spread:
        predicted = np.empty(len(y))
        for number in range(4):
            weights, bias = ridge(x[fold != number], y[fold != number], strength)
            predicted[fold == number] = x[fold == number] @ weights + bias
        rank = np.mean([spearman(y[fold == k], predicted[fold == k]) for k in range(4)])
        results[strength] = rank, predicted
    best = max(results, key=lambda strength: results[strength][0])
    assert found.strength == pytest.approx(best)
    np.testing.assert_allclose(found.out_of_fold, results[best][1], atol=1e-3)
    weights, bias = ridge(x, y, best)
    with torch.no_grad():
        mask = torch.ones(ids.shape, dtype=torch.bool)
        predicted = found.net(torch.from_numpy(ids.astype(np.int64)), mask).numpy()
    np.testing.assert_allclose(predicted, x @ weights + bias, atol=1e-4)


def check_report(found: Fit, labels: np.ndarray, documents: np.ndarray) -> None:
    held_out = set(documents[found.held_out])
    assert 0.1 <= len(held_out) / len(set(documents)) <= 0.2
    assert held_out.isdisjoint(np.delete(documents, found.held_out))
    truth = (labels[found.held_out] - found.score.mean) / found.score.sd
    assert found.held_out_spearman == pytest.approx(spearman(truth, found.predictions))
    assert found.held_out_r2 == pytest.approx(r2(truth, found.predictions), abs=1e-6)
    assert found.score.mean == pytest.approx(labels.mean(dtype=np.float64))
    assert found.score.sd == pytest.approx(labels.std(dtype=np.float64))
    assert found.calibration.mean == pytest.approx(found.predictions.mean())
    assert found.calibration.sd == pytest.approx(found.predictions.std())
    assert found.calibration.quantiles[50] == pytest.approx(np.median(found.predictions))


SMALL: dict[str, Any] = {"embedding": 8, "channels": 16, "hidden": 8, "epochs": 12}


@pytest.mark.parametrize("architecture", ["linear", "conv"])
def test_both_learn_what_there_is_to_learn_and_report_it_truly(architecture: str) -> None:
    ids, labels, documents = data(600)
    sizes = SMALL | {"learning_rate": 1e-2} if architecture == "conv" else None
    found = fit(architecture, ids, labels, documents, vocabulary=VOCABULARY, sizes=sizes)
    check_report(found, labels, documents)
    assert found.architecture == architecture
    assert found.held_out_spearman > (0.95 if architecture == "linear" else 0.8)
    assert not found.net.training


def test_the_conv_net_that_is_kept_is_the_one_that_was_measured() -> None:
    ids, labels, documents = data()
    found = fit_conv(ids, labels, documents, vocabulary=VOCABULARY, **SMALL)
    held_out = torch.from_numpy(ids[found.held_out].astype(np.int64))
    with torch.no_grad():
        raw = found.net(held_out, torch.ones_like(held_out, dtype=torch.bool))
    np.testing.assert_allclose(raw.numpy(), found.predictions, atol=1e-6)
    never = found.net.embedding.weight[VOCABULARY - 5 :]  # type: ignore[union-attr]
    assert not never.any()
    assert 1 <= found.settings["epochs"] <= 12


def test_noise_is_not_learnt() -> None:
    ids, _, documents = data(300)
    labels = np.random.default_rng(5).normal(size=300)
    found = fit_linear(ids, labels, documents, vocabulary=VOCABULARY)
    assert found.held_out_r2 < 0.1


def artifact(found: Fit, folder: Path) -> dict[str, str]:
    config = tiny_config(
        architecture=found.architecture,
        sizes=found.sizes,
        score=found.score,
        calibration=found.calibration,
        context_length=12,
    )
    return save_learner(
        Learner(config, found.net), folder, recipe_toml="", evaluation={}, readme=""
    )


@pytest.mark.parametrize("architecture", ["linear", "conv"])
def test_the_same_seed_gives_the_same_bytes_and_leaves_the_global_one(
    tmp_path: Path, architecture: str
) -> None:
    sizes = SMALL | {"epochs": 2} if architecture == "conv" else {"bigrams": 16}
    digests = []
    for number, seed in enumerate((4, 4, 5)):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        found = fit(architecture, *data(120), vocabulary=VOCABULARY, seed=seed, sizes=sizes)
        assert torch.equal(before, torch.get_rng_state())
        digests.append(artifact(found, tmp_path / str(number)))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_unknown_architecture() -> None:
    with pytest.raises(UnknownNameError, match="did you mean linear"):
        fit("linaer", *data(), vocabulary=VOCABULARY)


def test_data_that_cannot_be_fitted_is_refused() -> None:
    ids, labels, documents = data(60)
    with pytest.raises(SecondaryLearnersError, match="2 of 60 labels are not finite"):
        broken = np.where(np.arange(60) < 2, np.nan, labels)
        fit_linear(ids, broken, documents, vocabulary=VOCABULARY)
    with pytest.raises(SecondaryLearnersError, match=r"\[n, length\]"):
        fit_linear(ids, labels[:-1], documents, vocabulary=VOCABULARY)
    with pytest.raises(IncompatibleError, match="vocabulary is 20"):
        fit_linear(ids, labels, documents, vocabulary=20)
    with pytest.raises(SecondaryLearnersError, match="2 documents cannot be divided"):
        fit_linear(ids, labels, documents // 5, vocabulary=VOCABULARY)
    with pytest.raises(SecondaryLearnersError, match=r"standard deviation 0\.0"):
        fit_linear(ids, np.ones(60), documents, vocabulary=VOCABULARY)
    with pytest.raises(SecondaryLearnersError, match="for every held-out context"):
        fit_linear(np.zeros_like(ids), labels, documents, vocabulary=VOCABULARY)


def test_held_out_contexts_mix_the_domains_as_all_do() -> None:
    random = np.random.default_rng(0)
    documents = np.repeat(np.arange(200), random.integers(1, 30, 200))
    domains = (documents % 4 == 0).astype(np.int64)
    ids = random.integers(0, VOCABULARY, (len(documents), 6))
    found = fit_linear(ids, random.normal(size=len(ids)), documents, domains, vocabulary=VOCABULARY)
    assert domains[found.held_out].mean() == pytest.approx(domains.mean(), abs=0.05)


@pytest.mark.parametrize("architecture", ["linear", "conv"])
def test_padding_changes_no_learner(architecture: str) -> None:
    ids, labels, documents = data()
    lengths = np.random.default_rng(2).integers(2, 13, len(ids))
    lengths[0] = 12
    mask = np.arange(12) < lengths[:, None]
    options: dict[str, Any] = {"vocabulary": VOCABULARY}
    if architecture == "linear":
        options["sizes"] = {"bigrams": 16, "counts": "sqrt"}
    found = [
        fit(architecture, padded, labels, documents, attention_mask=shown, **options)
        for padded, shown in (
            (np.where(mask, ids, 0), mask),
            (
                np.pad(
                    np.where(mask, ids, -100).astype(np.int64), ((0, 0), (0, 9)), constant_values=3
                ),
                np.pad(mask, ((0, 0), (0, 9))),
            ),
        )
    ]
    first, second = (fitted.net.state_dict() for fitted in found)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[0].predictions, found[1].predictions, atol=1e-6)
    whole = fit(architecture, ids, labels, documents, **options)
    full = fit(architecture, ids, labels, documents, attention_mask=np.ones_like(mask), **options)
    np.testing.assert_array_equal(whole.predictions, full.predictions)
    with pytest.raises(SecondaryLearnersError, match="same shape"):
        fit(architecture, ids, labels, documents, attention_mask=mask[:, :5], **options)
