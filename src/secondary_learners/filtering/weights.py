"""Weights of examples in the loss, by their scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.selection import Scorer

__all__ = ["ScoreWeights"]

_FURTHEST = 10.0  # temperatures from the average; the weights of what lies beyond are alike


@dataclass(frozen=True)
class ScoreWeights:
    """Examples weighted in the loss by exp(score / temperature): `FilteredTrainer(weights=...)`.

    The loss of an update is the weighted mean over all that it trains on, Σ w·l / Σ w with l the
    loss of an example's token (or of the example, in classification). So weights count relative to
    each other alone, and the learning rate means what it did.

    Args:
        learner: as `load_learner` gives it.
        temperature: in standard deviations of predictions, above 0: with 1, an example one of them
            better counts 2.7 times as much; with a large one all count alike.

    Raises:
        SecondaryLearnersError: for a temperature out of range.
    """

    learner: Scorer
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise SecondaryLearnersError(
                f"temperature is {self.temperature}. Try a number above 0, such as 1.0."
            )

    def of(
        self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """The weight of each row [batch] of token ids and mask [batch, length]."""
        scores = self.learner.score(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))
        exponents = np.asarray(scores, np.float64) / self.temperature
        weights: npt.NDArray[np.float64] = np.exp(np.clip(exponents, -_FURTHEST, _FURTHEST))
        return weights

    # What is checked of a filter's learner is checked of this one.

    reads_tokens = True

    def check_tokenizer(self, tokenizer: Any) -> None:
        self.learner.check_tokenizer(tokenizer)

    def check_vocabulary(self, size: int) -> None:
        self.learner.check_vocabulary(size)
