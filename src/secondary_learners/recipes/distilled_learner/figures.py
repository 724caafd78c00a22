"""How good a distilled learner is: beside the baseline, with intervals, and how fast it scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.learners.nets import Net
from secondary_learners.learners.statistics import bootstrap_intervals, r2, spearman

__all__ = ["RESAMPLES", "cross_validated_figures", "reported_figures", "scoring_speed"]

RESAMPLES = 10_000
_SPEED_BATCH, _ROUNDS, _REPEATS = 256, 9, 10
_MEASURES = {"spearman": spearman, "r2": r2}

Floats = npt.NDArray[np.float64]


def reported_figures(
    truth: Floats, predicted: Mapping[str, Floats], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Spearman and R2 of each prediction of `truth` [n], and of "conv" less "ridge", paired.

    Each with the central 95 % over resampled rows, for evaluation.json.
    """

    def one(name: str, measure: str) -> Callable[[Any], float]:
        return lambda rows: _MEASURES[measure](truth[rows], predicted[name][rows])

    def apart(measure: str) -> Callable[[Any], float]:
        return lambda rows: one("conv", measure)(rows) - one("ridge", measure)(rows)

    statistics = {
        (name, measure): one(name, measure) for name in predicted for measure in _MEASURES
    }
    for measure in _MEASURES:
        statistics["difference", measure] = apart(measure)
    intervals = bootstrap_intervals(len(truth), statistics, resamples=resamples, seed=seed)
    everything = np.arange(len(truth))

    def figures(name: str) -> dict[str, Any]:
        row: dict[str, Any] = {"contexts": len(truth)}
        for measure in _MEASURES:
            row[measure] = statistics[name, measure](everything)
            row[f"{measure}_interval"] = intervals[name, measure]
        return row

    return {
        "held_out": {name: figures(name) for name in predicted},
        "difference": figures("difference"),
        "bootstrap": {"resamples": resamples, "seed": seed, "share": 0.95},
    }


def cross_validated_figures(
    truth: Floats, fold: npt.NDArray[np.int64], predicted: Mapping[str, Floats]
) -> dict[str, Any]:
    """Means over the folds 0, 1, ... of predictions [n] by what never saw the fold's labels.

    And the mean of "conv" less "ridge", with its standard error over the folds.
    """
    folds = int(fold.max()) + 1
    rows = [fold == number for number in range(folds)]

    def figures(values: Floats) -> dict[str, Any]:
        ranks = [spearman(truth[part], values[part]) for part in rows]
        shares = [r2(truth[part], values[part]) for part in rows]
        return {"folds": ranks, "spearman": float(np.mean(ranks)), "r2": float(np.mean(shares))}

    models = {name: figures(values) for name, values in predicted.items()}
    apart = np.subtract(models["conv"]["folds"], models["ridge"]["folds"])
    return {
        "contexts": len(truth),
        "folds": folds,
        "models": models,
        "difference": {
            "spearman": float(apart.mean()),
            "standard_error": float(apart.std(ddof=1) / np.sqrt(folds)),
        },
    }


def scoring_speed(net: Net, input_ids: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Tokens scored in a second of one core: the median of nine rounds, in CPU time."""
    ids = torch.from_numpy(np.resize(input_ids, (_SPEED_BATCH, input_ids.shape[1])))
    mask = torch.ones_like(ids, dtype=torch.bool)
    threads, rounds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            net(ids, mask)
            for _ in range(_ROUNDS):
                begun = time.process_time()
                for _ in range(_REPEATS):
                    net(ids, mask)
                rounds.append(time.process_time() - begun)
    finally:
        torch.set_num_threads(threads)
    return {
        "tokens_per_second": round(_REPEATS * ids.numel() / float(np.median(rounds)), -3),
        "batch": _SPEED_BATCH,
        "length": ids.shape[1],
        "clock": "CPU seconds of one thread",
    }
