"""The ways to select that a filter is held against: what a user would take in its place."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from secondary_learners.errors import UnknownNameError
from secondary_learners.experiments.candidates import Select
from secondary_learners.gains.objective import evaluation_mode, losses_of
from secondary_learners.gains.rows import Rows
from secondary_learners.learners.selectors import SELECTORS, fit_selector, net_scores
from secondary_learners.text.sequences import Examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["EVERYTHING", "SELECTOR_ARMS", "selector_arms"]

EVERYTHING = "everything"
SELECTOR_ARMS = (*SELECTORS, "perplexity", "middle-perplexity", "length")
_TOKENS = 4096


def selector_arms(
    names: Iterable[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    objective: Examples,
    pool: Examples,
    seed: int = 0,
) -> dict[str, Select]:
    """Functions from token ids [n, length] to scores [n] for `compare`, by their names.

    Args:
        names: of `SELECTOR_ARMS`. "classifier" and "dsir" are fitted here, on the objective against
            the pool, see `fit_selector`; "perplexity" puts first what the model finds easiest at
            its own weights, "middle-perplexity" what is nearest to the median of the candidates;
            "length" the contexts with the most characters.
        model: the base, at the weights that a run begins with.
        tokenizer: of the model.
        objective: what a learner's labels were measured on: the same knowledge.
        pool: unlabeled candidates, apart from those of the comparison.
        seed: of the folds.

    Raises:
        UnknownNameError: for another name.
    """
    arms: dict[str, Select] = {}
    for name in names:
        if name in SELECTORS:
            fitted = fit_selector(name, objective, pool, vocabulary=len(tokenizer), seed=seed)
            arms[name] = partial(net_scores, fitted.net)
        elif name == "perplexity":
            arms[name] = partial(_easiest, model)
        elif name == "middle-perplexity":
            arms[name] = partial(_middling, model)
        elif name == "length":
            arms[name] = partial(_longest, _characters(tokenizer))
        else:
            raise UnknownNameError(
                "selector", name, (*SELECTOR_ARMS, EVERYTHING), "learners finetune --help"
            )
    return arms


def _easiest(model: PreTrainedModel, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    module: torch.nn.Module = model
    rows = Rows(torch.from_numpy(ids).to(next(module.parameters()).device))
    with evaluation_mode(module):
        return -losses_of(module, rows, _TOKENS).double().cpu().numpy()


def _middling(model: PreTrainedModel, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    losses = _easiest(model, ids)
    return -np.abs(losses - np.median(losses))


def _characters(tokenizer: Any) -> NDArray[np.float64]:
    """How many characters each token stands for."""
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return np.array([len(text) for text in texts], np.float64)


def _longest(characters: NDArray[np.float64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = characters[ids].sum(axis=1)
    return total
