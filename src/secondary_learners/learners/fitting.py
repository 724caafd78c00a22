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
from secondary_learners.learners.ridge import Features, fit_ridge, ridge
from secondary_learners.learners.statistics import r2, spearman
from secondary_learners.learners.targets import Targets, calibrate, targets_of

__all__ = ["Baseline", "Fit", "fit", "fit_baseline", "fit_conv", "fit_linear"]

_FINE_STRENGTHS = np.geomspace(0.5, 20, 9)  # of a baseline

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
    """Checked contexts and what is to be predicted of them; tensors on the CPU."""

    ids: Tensor  # int64 [n, length], 0 at padding
    mask: Tensor  # bool [n, length], False at padding
    targets: Targets


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
    mask = np.ones(ids.shape, np.bool_)
    if attention_mask is not None:
        if np.shape(attention_mask) != ids.shape:
            raise SecondaryLearnersError(
                f"input_ids is {ids.shape} and attention_mask {np.shape(attention_mask)}: "
                "they need the same shape [n, length]."
            )
        mask = np.array(attention_mask, np.bool_)
        ids[~mask] = 0  # padding may hold any number, such as -100
    if ids.ndim != 2 or np.shape(labels) != ids.shape[:1] or np.shape(documents) != ids.shape[:1]:
        raise SecondaryLearnersError(
            f"input_ids {ids.shape}, labels {np.shape(labels)} and documents {np.shape(documents)} "
            "must be [n, length], [n] and [n]."
        )
    if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary:
        raise IncompatibleError(
            f"token ids go from {ids.min()} to {ids.max()}, and the vocabulary is {vocabulary}. "
            "Use the tokenizer of the base model."
        )
    targets = targets_of(labels, documents, domains, unit=unit, seed=seed)
    return _Problem(torch.from_numpy(ids), torch.from_numpy(mask), targets)


def _report(
    problem: _Problem,
    net: Net,
    architecture: str,
    sizes: dict[str, int | str],
    predictions: npt.NDArray[np.float64],
    settings: dict[str, float],
) -> Fit:
    targets = problem.targets
    truth = targets.labels.numpy()[targets.held_out]
    return Fit(
        architecture=architecture,
        sizes=sizes,
        net=net.eval(),
        score=targets.score,
        calibration=calibrate(predictions, architecture),
        held_out=np.flatnonzero(targets.held_out),
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
        fitted = fit_ridge(Features.build(compact, values, len(present)), problem.targets)
        net.weight[present] = fitted.weights.float()
        net.bias.fill_(fitted.bias)
    sizes: dict[str, int | str] = {"vocabulary": vocabulary, "bigrams": bigrams, "counts": counts}
    settings = {"regularization": fitted.strength}
    return _report(problem, net, "linear", sizes, fitted.predictions, settings)


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
        features = Features.build(compact, values, len(present))
        everything = torch.ones_like(part, dtype=torch.bool)
        strengths = torch.from_numpy(_FINE_STRENGTHS) * features.spread(everything)
        out_of_fold = torch.zeros(len(strengths), len(part), dtype=torch.float64)
        for number in range(parts):
            rows = (part != number).double().unsqueeze(1).expand(-1, len(strengths))
            weights, bias = ridge(features, targets, rows, strengths, tolerance=1e-5)
            tested = part == number
            out_of_fold[:, tested] = (features.matrix @ weights + bias)[tested].T
        agreement = [
            np.mean([spearman(labels[fold == k], row[fold == k]) for k in range(parts)])
            for row in out_of_fold.numpy()
        ]
        best = int(np.argmax(agreement))
        weights, bias = ridge(
            features, targets, everything.double().unsqueeze(1), strengths[best : best + 1]
        )
        net.weight[present] = weights[:, 0].float()
        net.bias.fill_(bias[0])
    return Baseline(net, float(strengths[best]), out_of_fold[best].numpy())


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
    stopping = ~problem.targets.held_out & (problem.targets.fold == 0)
    used = torch.from_numpy(~problem.targets.held_out & ~stopping)
    # Training only the embeddings that are met is faster, and leaves no noise in the others.
    present = problem.ids[used][problem.mask[used]].unique()
    known = torch.zeros(vocabulary, dtype=torch.int64)
    known[present] = torch.arange(1, len(present) + 1)
    ids, mask, targets = known[problem.ids], problem.mask, problem.targets.labels.float()
    held_out, stop = torch.from_numpy(problem.targets.held_out), torch.from_numpy(stopping)
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
