"""What a user would take instead of gains: a classifier, and n-gram importance weights.

Both know objective text and unlabeled text of the pool, and ask no language model. They read what a
linear learner reads, so each is a `LinearNet`, and can be packaged and loaded like any learner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from secondary_learners.errors import MissingExtraError, SecondaryLearnersError, UnknownNameError
from secondary_learners.learners.nets import LinearNet, linear_features

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["SELECTORS", "Selector", "fit_selector", "net_scores"]

BIGRAMS = 2**15
_FOLDS = 5
_TOGETHER = 2048
_CLASSIFIER_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # C: the inverse of the penalty
_PRIORS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # contexts


class Tokens(Protocol):
    """Text as a selector reads it, such as `Examples`: [n, length], [n, length] and [n]."""

    @property
    def input_ids(self) -> NDArray[np.int64]: ...
    @property
    def attention_mask(self) -> NDArray[np.bool_]: ...
    @property
    def document(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True, eq=False)
class Selector:
    """A fitted selector: the higher the raw prediction of `net`, the more like the objective.

    setting: what cross-validation chose. auc: of the objective against the pool, the mean over
    folds of whole documents; None where there are too few documents to tell.
    """

    name: str
    net: LinearNet
    setting: float
    auc: float | None


def fit_selector(
    name: str,
    objective: Tokens,
    pool: Tokens,
    *,
    vocabulary: int,
    bigrams: int = BIGRAMS,
    seed: int = 0,
) -> Selector:
    """Fit one of `SELECTORS` on objective text against text of the pool.

    Its one setting is the best by the area under the ROC curve in five folds of whole documents.

    Args:
        name: "classifier", a logistic regression on square roots of token and hashed pair counts,
            both classes of equal weight; or "dsir", log ratios of the frequencies of tokens and
            hashed pairs (Xie et al., 2023, arXiv 2302.03169), those of the objective smoothed
            towards what is usual.
        objective: what the model should get better at.
        pool: what there is to choose from, of which some may be like the objective.
        vocabulary: token ids of the tokenizer.
        bigrams: hash buckets of pairs, 0 or a power of two.
        seed: of the folds.

    Returns:
        The selector, its net fitted on everything.

    Raises:
        UnknownNameError: for another name.
        MissingExtraError: without scikit-learn.
    """
    if name not in SELECTORS:
        raise UnknownNameError("selector", name, SELECTORS, "learners finetune --help")
    sizes = [len(part.document) for part in (objective, pool)]
    if not all(sizes):
        raise SecondaryLearnersError(
            f"a selector needs objective and pool, and has {sizes[0]} and {sizes[1]} contexts. "
            "Give more text."
        )
    kind = SELECTORS[name]
    parts = [_matrix(part, vocabulary, bigrams, kind.counts) for part in (objective, pool)]
    from scipy import sparse

    features = sparse.vstack(parts).tocsr()
    inside = np.repeat([True, False], sizes)
    # Of two corpora, so that equal numbers are not the same document.
    documents = np.concatenate([2 * objective.document, 2 * pool.document + 1])
    setting, auc = _choose(kind, features, inside, documents, seed)
    weights, bias = kind.fit(features, inside, setting)
    net = LinearNet(vocabulary, bigrams, kind.counts)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(weights))
        net.bias.fill_(bias)
    return Selector(name, net.eval(), setting, auc)


def net_scores(
    net: torch.nn.Module, ids: NDArray[np.integer], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Raw predictions [n] for token ids [n, length]; mask: False at padding, of that shape."""
    shown = np.ones(np.shape(ids), np.bool_) if mask is None else mask
    tensors = torch.from_numpy(np.asarray(ids, np.int64)), torch.from_numpy(shown)
    pairs = zip(*(tensor.split(_TOGETHER) for tensor in tensors), strict=True)
    with torch.inference_mode():
        return torch.cat([net(*pair) for pair in pairs]).double().numpy()


def _matrix(text: Tokens, vocabulary: int, bigrams: int, counts: str) -> csr_matrix:
    """Features [n, vocabulary + bigrams] in float64; equal columns of a row add up."""
    try:
        from scipy import sparse
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "selectors") from error

    columns, values = linear_features(
        torch.from_numpy(text.input_ids),
        torch.from_numpy(text.attention_mask),
        vocabulary=vocabulary,
        bigrams=bigrams,
        counts=counts,
        dtype=torch.float64,
    )
    rows, places = values.nonzero(as_tuple=True)
    return sparse.csr_matrix(
        (values[rows, places].numpy(), (rows.numpy(), columns[rows, places].numpy())),
        shape=(len(text.document), vocabulary + bigrams),
    )


def _choose(
    kind: _Kind, features: Any, inside: NDArray[np.bool_], documents: NDArray[np.int64], seed: int
) -> tuple[float, float | None]:
    """The setting with the highest mean AUC over folds of whole documents."""
    try:
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedGroupKFold
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "selectors") from error

    fewest = min(len(np.unique(documents[inside])), len(np.unique(documents[~inside])))
    if fewest < 2:  # nothing to hold out: the middle one
        return kind.settings[len(kind.settings) // 2], None
    deal = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    folds = [
        fold
        for fold in deal.split(features, inside, documents)
        if all(len(np.unique(inside[rows])) == 2 for rows in fold)
    ]
    if not folds:
        return kind.settings[len(kind.settings) // 2], None

    def auc(setting: float) -> float:
        values = []
        for train, test in folds:
            weights, _ = kind.fit(features[train], inside[train], setting)
            values.append(roc_auc_score(inside[test], features[test] @ weights))
        return float(np.mean(values))

    measured = {setting: auc(setting) for setting in kind.settings}
    best = max(measured, key=lambda setting: measured[setting])
    return best, measured[best]


def _fit_classifier(
    features: Any, inside: NDArray[np.bool_], strength: float
) -> tuple[NDArray[np.float64], float]:
    from sklearn.linear_model import LogisticRegression

    # Far fewer contexts than features: the dual is by far the quickest.
    model = LogisticRegression(
        C=strength,
        class_weight="balanced",
        solver="liblinear",
        dual=True,
        max_iter=5000,
        random_state=0,
    )
    model.fit(features, inside)
    return model.coef_[0], float(model.intercept_[0])


def _fit_ratios(
    features: Any, inside: NDArray[np.bool_], prior: float
) -> tuple[NDArray[np.float64], float]:
    """log p(gram | objective) − log p(gram | both): a score is its mean over a context's grams.

    To the objective's frequencies are added `prior` contexts of what is usual in both, so that a
    gram that is rare everywhere says little, and one that neither has says nothing.
    """
    own, others = (np.asarray(features[rows].sum(axis=0)).ravel() for rows in (inside, ~inside))
    usual = (own + others) / (own + others).sum()
    objective = (own + prior * usual) / (own.sum() + prior)
    seen = usual > 0
    weights = np.zeros(len(usual))
    weights[seen] = np.log(objective[seen]) - np.log(usual[seen])
    return weights, 0.0


@dataclass(frozen=True)
class _Kind:
    counts: str
    settings: tuple[float, ...]
    fit: Callable[[Any, NDArray[np.bool_], float], tuple[NDArray[np.float64], float]]


SELECTORS: Mapping[str, _Kind] = {
    "classifier": _Kind("sqrt", _CLASSIFIER_STRENGTHS, _fit_classifier),
    "dsir": _Kind("frequency", _PRIORS, _fit_ratios),
}
