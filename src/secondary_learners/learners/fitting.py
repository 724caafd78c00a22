"""Fitting a learner on contexts and their labels, and measuring it on documents it never saw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from secondary_learners.errors import IncompatibleError, SecondaryLearnersError
from secondary_learners.learners.architectures import architecture_named
from secondary_learners.learners.config import Calibration, Score
from secondary_learners.learners.nets import ConvNet, LinearNet, Net, linear_features
from secondary_learners.learners.sparse import no_csr_warning
from secondary_learners.learners.statistics import r2, spearman
from secondary_learners.text.splitting import deal

__all__ = ["Baseline", "Fit", "fit", "fit_baseline", "fit_conv", "fit_linear"]

_HELD_OUT = 0.15
_FOLDS = 5
# Relative to the mean squared norm of a centered context; the best is usually between 1 and 10.
_STRENGTHS = np.geomspace(0.1, 100, 10)
_FINE_STRENGTHS = np.geomspace(0.5, 20, 9)

Integers = npt.NDArray[np.integer]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted net, what `LearnerConfig` needs to know of it, and how good it is.

    held_out: the contexts [m] of the documents set aside, as indices; `predictions` [m] are raw
        predictions for them, in standard deviations of the labels, by a net that saw none of them.
        Calibration and both figures come from these.
    settings: what was chosen on the other documents: regularization, or epochs.
    """

    architecture: str
    sizes: dict[str, int | str]
    net: Net
    score: Score
    calibration: Calibration
    held_out: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.float64]
    held_out_spearman: float
    held_out_r2: float
    settings: dict[str, float]


def fit(
    architecture: str,
    input_ids: Integers,
    labels: npt.NDArray[np.floating],
    documents: Integers,
    domains: Integers | None = None,
    *,
    vocabulary: int,
    unit: str = "nats per token",
    seed: int = 0,
    attention_mask: Flags | None = None,
    sizes: dict[str, int | str] | None = None,
) -> Fit:
    """A learner of that architecture; `sizes` are the other keywords of its own fit.

    Arguments as for `fit_linear`. Raises UnknownNameError for an architecture there is not.
    """
    common = {
        "vocabulary": vocabulary,
        "unit": unit,
        "seed": seed,
        "attention_mask": attention_mask,
    }
    fitting = architecture_named(architecture).fit
    return fitting(input_ids, labels, documents, domains, **common, **(sizes or {}))


@dataclass(frozen=True, eq=False)
class _Problem:
    """Checked data, labels standardised, documents divided; tensors on the CPU."""

    ids: Tensor  # int64 [n, length], 0 at padding
    mask: Tensor  # bool [n, length], False at padding
    labels: Tensor  # float64 [n], mean 0 and sd 1
    score: Score
    held_out: npt.NDArray[np.bool_]  # [n]
    fold: npt.NDArray[np.int64]  # [n], of the documents that are not held out


def _problem(
    input_ids: Integers,
    attention_mask: Flags | None,
    labels: npt.NDArray[np.floating],
    documents: Integers,
    domains: Integers | None,
    vocabulary: int,
    unit: str,
    seed: int,
) -> _Problem:
    ids = np.array(input_ids, np.int64)
    y = np.array(labels, np.float64)
    mask = np.ones(ids.shape, np.bool_)
    if attention_mask is not None:
        if np.shape(attention_mask) != ids.shape:
            raise SecondaryLearnersError(
                f"input_ids is {ids.shape} and attention_mask {np.shape(attention_mask)}: "
                "they need the same shape [n, length]."
            )
        mask = np.array(attention_mask, np.bool_)
        ids[~mask] = 0  # padding may hold any number, such as -100
    if ids.ndim != 2 or y.shape != ids.shape[:1] or np.shape(documents) != y.shape:
        raise SecondaryLearnersError(
            f"input_ids {ids.shape}, labels {y.shape} and documents {np.shape(documents)} must be "
            "[n, length], [n] and [n]."
        )
    if not np.isfinite(y).all():
        raise SecondaryLearnersError(
            f"{int((~np.isfinite(y)).sum())} of {len(y)} labels are not finite. Label again with "
            "`learners run RECIPE`."
        )
    if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary:
        raise IncompatibleError(
            f"token ids go from {ids.min()} to {ids.max()}, and the vocabulary is {vocabulary}. "
            "Use the tokenizer of the base model."
        )
    names, document = np.unique(documents, return_inverse=True)
    if len(names) < 3:
        raise SecondaryLearnersError(
            f"a learner is measured on unseen documents, and {len(names)} documents cannot be "
            "divided. Give at least 3, better 50."
        )
    part = _parts(document.reshape(-1), domains, seed)
    held_out = part == 0
    mean, sd = float(y.mean()), float(y.std())
    if not sd > 0 or held_out.sum() < 2:
        raise SecondaryLearnersError(
            f"nothing can be learnt from {len(y)} labels with standard deviation {sd} and "
            f"{int(held_out.sum())} of them held out. Label more contexts."
        )
    return _Problem(
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        labels=torch.from_numpy((y - mean) / sd),
        score=Score(mean, sd, unit),
        held_out=held_out,
        fold=part - 1,
    )


def _parts(
    document: npt.NDArray[np.int64], domains: Integers | None, seed: int
) -> npt.NDArray[np.int64]:
    """0 for what is held out, 1 to `_FOLDS` for the folds [n]; whole documents, domain by domain.

    Held-out contexts then mix the domains as all of them do, which calibration relies on. Domains
    of fewer than 6 documents are dealt together.
    """
    counts = np.bincount(document)
    first = np.unique(document, return_index=True)[1]
    domain = np.zeros(len(counts), np.int64) if domains is None else np.asarray(domains)[first]
    stratum = np.where(np.bincount(domain)[domain] < 6, -1, domain)
    shares = [_HELD_OUT, *[(1 - _HELD_OUT) / _FOLDS] * _FOLDS]
    part = np.empty(len(counts), np.int64)
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        part[members] = deal(counts[members].tolist(), shares, seed=seed)
    return part[document]


def _report(
    problem: _Problem,
    net: Net,
    architecture: str,
    sizes: dict[str, int | str],
    predictions: npt.NDArray[np.float64],
    settings: dict[str, float],
) -> Fit:
    spread = float(predictions.std())
    if not spread > 1e-6:  # below are rounding errors
        raise SecondaryLearnersError(
            f"the {architecture} learner predicts {predictions[0]:.4g} for every held-out context. "
            "Label more contexts, or use other objectives."
        )
    truth = problem.labels.numpy()[problem.held_out]
    quantiles = np.quantile(predictions, np.linspace(0, 1, 101))
    return Fit(
        architecture=architecture,
        sizes=sizes,
        net=net.eval(),
        score=problem.score,
        calibration=Calibration(
            mean=float(predictions.mean()),
            sd=spread,
            # Interpolation may fall by a rounding error between equal values.
            quantiles=tuple(np.maximum.accumulate(quantiles).tolist()),
        ),
        held_out=np.flatnonzero(problem.held_out),
        predictions=predictions,
        held_out_spearman=spearman(truth, predictions),
        held_out_r2=r2(truth, predictions),
        settings=settings,
    )


def fit_linear(
    input_ids: Integers,
    labels: npt.NDArray[np.floating],
    documents: Integers,
    domains: Integers | None = None,
    *,
    vocabulary: int,
    bigrams: int = 0,
    counts: str = "sqrt",
    unit: str = "nats per token",
    seed: int = 0,
    attention_mask: Flags | None = None,
) -> Fit:
    """Ridge regression on (c / n)**a, its strength chosen by cross-validation over documents.

    input_ids: [n, length]; `attention_mask` of that shape is False at padding, and left out for
    contexts of one length. labels: information gains [n], in `unit`. documents: a number for each
    context's document [n], and `domains` [n] for where it comes from: about 15 % of each domain, in
    whole documents, is held out for the report, and then the net is fitted on everything with the
    strength chosen without them.

    Raises SecondaryLearnersError for labels that nothing can be learnt from.
    """
    net = LinearNet(vocabulary, bigrams, counts)
    problem = _problem(
        input_ids, attention_mask, labels, documents, domains, vocabulary, unit, seed
    )
    with torch.no_grad():
        columns, values = linear_features(
            problem.ids,
            problem.mask,
            vocabulary=vocabulary,
            bigrams=bigrams,
            counts=counts,
            dtype=torch.float64,
        )
        present, compact = columns.unique(return_inverse=True)
        features = _Features.build(compact, values, len(present))
        train = torch.from_numpy(~problem.held_out)
        strengths = torch.from_numpy(_STRENGTHS) * features.spread(train)
        best = _choose(features, problem, train, strengths)
        # Both nets in one solution: for the report, and to keep.
        weights, bias = _ridge(
            features,
            problem.labels,
            torch.stack([train, torch.ones_like(train)], dim=1).double(),
            best.expand(2),
        )
        held_out = (features.matrix @ weights[:, :1] + bias[0])[~train, 0].numpy()
        net.weight[present] = weights[:, 1].float()
        net.bias.fill_(bias[1])
    sizes: dict[str, int | str] = {"vocabulary": vocabulary, "bigrams": bigrams, "counts": counts}
    return _report(problem, net, "linear", sizes, held_out, {"regularization": float(best)})


@dataclass(frozen=True, eq=False)
class _Features:
    """A sparse float64 matrix [n, d], its transpose, and the transpose of its squares."""

    matrix: Tensor
    transposed: Tensor
    squared: Tensor

    @classmethod
    def build(cls, columns: Tensor, values: Tensor, width: int) -> _Features:
        """From columns and values [n, positions]; equal columns of a row add up."""
        rows, places = values.nonzero(as_tuple=True)  # padding has no value
        where = torch.stack([rows, columns[rows, places]])
        matrix = torch.sparse_coo_tensor(
            where, values[rows, places], (len(columns), width), check_invariants=True
        ).coalesce()
        transposed = matrix.t().coalesce()
        squared = torch.sparse_coo_tensor(
            transposed.indices(), transposed.values() ** 2, transposed.shape, check_invariants=True
        )
        with no_csr_warning():
            return cls(*(part.to_sparse_csr() for part in (matrix, transposed, squared)))

    def spread(self, rows: Tensor) -> Tensor:
        """The mean squared distance of these rows (bool [n]) from their mean."""
        share = (rows / rows.sum()).double().unsqueeze(1)
        return (self.squared @ share - (self.transposed @ share) ** 2).sum()


def _choose(features: _Features, problem: _Problem, train: Tensor, strengths: Tensor) -> Tensor:
    """The strength with the least squared error over the folds of the training documents."""
    fold = torch.from_numpy(problem.fold)
    members = [train & (fold == number) for number in fold[train].unique()]
    tested = torch.stack(members, dim=1).repeat_interleave(len(strengths), dim=1)
    trained = (train.unsqueeze(1) & ~tested).double()
    weights, bias = _ridge(
        features, problem.labels, trained, strengths.repeat(len(members)), tolerance=1e-4
    )
    errors = (features.matrix @ weights + bias - problem.labels.unsqueeze(1)) ** 2 * tested
    return strengths[errors.sum(dim=0).view(len(members), -1).sum(dim=0).argmin()]


def _ridge(
    features: _Features,
    labels: Tensor,
    rows: Tensor,
    strengths: Tensor,
    tolerance: float = 1e-10,
) -> tuple[Tensor, Tensor]:
    """k ridge regressions at once: weights [d, k] and intercepts [k], in float64.

    rows: 1.0 for the contexts that each regression uses, else 0.0 [n, k]. strengths: [k].

    Minimises |y - Xw - b|^2 + strength |w|^2 over its rows. Conjugate gradients, preconditioned by
    the diagonal, take a few dozen products with a very sparse X: far less than any factorisation.
    """
    sizes = rows.sum(dim=0)

    def centered(values: Tensor) -> Tensor:
        used = values * rows
        return used - rows * (used.sum(dim=0) / sizes)

    def normal(weights: Tensor) -> Tensor:
        return features.transposed @ centered(features.matrix @ weights) + strengths * weights

    diagonal = features.squared @ rows - (features.transposed @ rows) ** 2 / sizes + strengths
    residual = features.transposed @ centered(labels.unsqueeze(1))
    limit = tolerance * residual.norm(dim=0)
    weights = torch.zeros_like(residual)
    direction = residual / diagonal
    product = (residual * direction).sum(dim=0)
    for _ in range(2000):
        if bool((residual.norm(dim=0) <= limit).all()):
            break
        image = normal(direction)
        # A finished regression has nothing left to divide by.
        step = (product / (direction * image).sum(dim=0)).nan_to_num(0.0, 0.0, 0.0)
        weights += step * direction
        residual -= step * image
        scaled = residual / diagonal
        before, product = product, (residual * scaled).sum(dim=0)
        direction = scaled + (product / before).nan_to_num(0.0, 0.0, 0.0) * direction
    else:
        raise SecondaryLearnersError(
            "the ridge regression did not converge in 2,000 steps. Check the labels for outliers."
        )
    prediction = features.matrix @ weights
    return weights, ((labels.unsqueeze(1) - prediction) * rows).sum(dim=0) / sizes


@dataclass(frozen=True, eq=False)
class Baseline:
    """A linear net to measure others by. out_of_fold [n]: of each context, by nets without it."""

    net: LinearNet
    strength: float
    out_of_fold: npt.NDArray[np.float64]


def fit_baseline(
    input_ids: Integers,
    labels: npt.NDArray[np.floating],
    fold: Integers,
    *,
    vocabulary: int,
    bigrams: int,
    counts: str = "sqrt",
) -> Baseline:
    """Ridge regression with an intercept on all contexts [n, length], its strength tuned.

    fold: 0, 1, ... [n]. Of nine strengths the one with the greatest Spearman correlation in
    cross-validation, averaged over the folds, is taken. labels: [n], standardised.
    """
    net = LinearNet(vocabulary, bigrams, counts)
    ids, targets = torch.from_numpy(np.array(input_ids, np.int64)), torch.from_numpy(labels)
    part, parts = torch.from_numpy(fold), int(fold.max()) + 1
    with torch.no_grad():
        columns, values = linear_features(
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            vocabulary=vocabulary,
            bigrams=bigrams,
            counts=counts,
            dtype=torch.float64,
        )
        present, compact = columns.unique(return_inverse=True)
        features = _Features.build(compact, values, len(present))
        everything = torch.ones_like(part, dtype=torch.bool)
        strengths = torch.from_numpy(_FINE_STRENGTHS) * features.spread(everything)
        found = torch.zeros(len(strengths), len(part), dtype=torch.float64)
        for number in range(parts):
            rows = (part != number).double().unsqueeze(1).expand(-1, len(strengths))
            weights, bias = _ridge(features, targets, rows, strengths, tolerance=1e-5)
            tested = part == number
            found[:, tested] = (features.matrix @ weights + bias)[tested].T
        agreement = [
            np.mean([spearman(labels[fold == k], row[fold == k]) for k in range(parts)])
            for row in found.numpy()
        ]
        best = int(np.argmax(agreement))
        weights, bias = _ridge(
            features, targets, everything.double().unsqueeze(1), strengths[best : best + 1]
        )
        net.weight[present] = weights[:, 0].float()
        net.bias.fill_(bias[0])
    return Baseline(net, float(strengths[best]), found[best].numpy())


def fit_conv(
    input_ids: Integers,
    labels: npt.NDArray[np.floating],
    documents: Integers,
    domains: Integers | None = None,
    *,
    vocabulary: int,
    embedding: int = 64,
    channels: int = 128,
    kernel: int = 3,
    hidden: int = 32,
    unit: str = "nats per token",
    seed: int = 0,
    attention_mask: Flags | None = None,
    epochs: int = 8,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.1,
    dropout: float = 0.2,
    batch_size: int = 64,
) -> Fit:
    """A small convolutional net by AdamW, stopped early on documents of their own.

    Arguments as for `fit_linear`. About 15 % of the documents are held out for the report; a fifth
    of the others decides after which epoch to stop. Tokens that never occur in the contexts get a
    zero embedding, which dropping whole tokens has taught the net to take for "something or other".
    The global random state is left alone.

    Raises SecondaryLearnersError for labels that nothing can be learnt from.
    """
    sizes: dict[str, int | str] = {
        "vocabulary": vocabulary,
        "embedding": embedding,
        "channels": channels,
        "kernel": kernel,
        "hidden": hidden,
    }
    problem = _problem(
        input_ids, attention_mask, labels, documents, domains, vocabulary, unit, seed
    )
    stopping = ~problem.held_out & (problem.fold == 0)
    used = torch.from_numpy(~problem.held_out & ~stopping)
    # Training only the embeddings that are met is faster, and leaves no noise in the others.
    present = problem.ids[used][problem.mask[used]].unique()
    known = torch.zeros(vocabulary, dtype=torch.int64)
    known[present] = torch.arange(1, len(present) + 1)
    ids, mask, targets = known[problem.ids], problem.mask, problem.labels.float()
    held_out, stop = torch.from_numpy(problem.held_out), torch.from_numpy(stopping)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        small = ConvNet(len(present) + 1, embedding, channels, kernel, hidden, dropout)
        with torch.no_grad():
            small.embedding.weight.mul_(0.1)
            small.embedding.weight[0] = 0.0
        epoch = _train(
            small,
            (ids[used], mask[used], targets[used]),
            (ids[stop], mask[stop], targets[stop]),
            epochs=epochs,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=batch_size,
        )
        net = ConvNet(vocabulary, embedding, channels, kernel, hidden)
    weights = small.state_dict()
    table = torch.zeros(vocabulary, embedding)
    table[present] = weights["embedding.weight"][1:]
    net.load_state_dict(weights | {"embedding.weight": table})
    predictions = _predict(small, ids[held_out], mask[held_out])
    return _report(
        problem, net, "conv", sizes, predictions.double().numpy(), {"epochs": float(epoch)}
    )


def _train(
    net: ConvNet,
    used: tuple[Tensor, Tensor, Tensor],
    stopping: tuple[Tensor, Tensor, Tensor],
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    batch_size: int,
) -> int:
    """Train in place, put the weights of the best epoch back, and return its number."""
    ids, mask, targets = used
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=weight_decay)
    steps = math.ceil(len(ids) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * steps, pct_start=0.1
    )
    best, least, weights = 0, math.inf, net.state_dict()
    for epoch in range(1, epochs + 1):
        net.train()
        for batch in torch.randperm(len(ids)).split(batch_size):
            prediction = net(*_trimmed(ids[batch], mask[batch]))
            loss = functional.mse_loss(prediction, targets[batch])
            optimizer.zero_grad()
            loss.backward()
            # The token 0, "unknown", stays the zero vector.
            assert net.embedding.weight.grad is not None
            net.embedding.weight.grad[0] = 0.0
            optimizer.step()
            schedule.step()
        error = float(functional.mse_loss(_predict(net, *stopping[:2]), stopping[2]))
        if error < least:
            best, least = epoch, error
            weights = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(weights)
    return best


def _predict(net: ConvNet, ids: Tensor, mask: Tensor) -> Tensor:
    net.eval()
    with torch.no_grad():
        pairs = zip(ids.split(1024), mask.split(1024), strict=True)
        return torch.cat([net(*_trimmed(part, shown)) for part, shown in pairs])


def _trimmed(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both [batch, length] without the columns that are padding in every row."""
    shown = mask.any(dim=0)
    return ids[:, shown], mask[:, shown]
