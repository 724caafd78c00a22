"""Filters for training loops: which rows of a batch are run, and which are trained on.

A loop asks a `BatchFilter` in this order, for every batch of candidates:

    admitted = filter.admit(input_ids, attention_mask, step=step, total=total)
    if filter.needs_losses:      # one loss for each admitted row, then
        kept = filter.keep(losses, input_ids[admitted], attention_mask[admitted])
    else:                        # all admitted rows are trained on, and their losses then shown:
        filter.observe(losses)

A loop may gather what is admitted, in order, and ask `keep` once it fills a batch: then that is
asked less often than `admit`, about rows of several batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.predictors import Flags, Ids, LearnerPredictor
from secondary_learners.filtering.selection import Scorer
from secondary_learners.filtering.thresholds import Threshold

__all__ = ["BatchFilter", "Counts", "LearnerFilter", "Losses", "RandomFilter"]

Losses = npt.NDArray[np.float64]


@dataclass
class Counts:
    """Examples so far.

    seen: candidates, those included that were admitted and not yet run; skipped_forward: never run;
    skipped_backward: run, and found uninformative; kept: trained on, or waiting for their batch to
    be full.
    """

    seen: int = 0
    skipped_forward: int = 0
    skipped_backward: int = 0
    kept: int = 0

    @property
    def forwarded(self) -> int:
        """Examples with a forward pass, now or soon."""
        return self.seen - self.skipped_forward


class BatchFilter(Protocol):
    """What `FilteredTrainer` takes. Arrays: ids and mask [batch, length], the rest [batch]."""

    counts: Counts
    reads_tokens: bool  # whether `admit` and `keep` look at token ids
    observes: bool  # whether `observe` does something with the losses it is shown

    @property
    def needs_losses(self) -> bool:
        """Whether rows admitted from now on are trained on only if `keep` says so."""

    def admit(self, input_ids: Ids, attention_mask: Flags, *, step: int, total: int) -> Flags:
        """Which rows are run at all, in step `step` of `total`."""

    def keep(self, losses: Losses, input_ids: Ids, attention_mask: Flags) -> Flags:
        """Which of these admitted rows are trained on, by their loss in the forward pass."""

    def observe(self, losses: Losses) -> None:
        """The losses of rows that were trained on without having been asked about."""

    def status(self) -> dict[str, float]:
        """Numbers for the training log, such as the stage and the threshold."""

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raises IncompatibleError for a tokenizer that the filter was not made for."""

    def check_vocabulary(self, size: int) -> None:
        """Raises IncompatibleError for a model whose number of token embeddings is another."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that later decisions depend on, in numbers, lists and tensors."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class _Blind:
    """A filter that never looks at a loss."""

    needs_losses = False
    reads_tokens = False
    observes = False

    def __init__(self) -> None:
        self.counts = Counts()

    def keep(self, losses: Losses, input_ids: Ids, attention_mask: Flags) -> Flags:
        return np.ones(len(losses), np.bool_)

    def observe(self, losses: Losses) -> None:
        pass

    def _count(self, admitted: Flags) -> Flags:
        kept = int(admitted.sum())
        self.counts.seen += len(admitted)
        self.counts.kept += kept
        self.counts.skipped_forward += len(admitted) - kept
        return admitted


class LearnerFilter(_Blind):
    """Trains on what a secondary learner scores at or above a threshold; skips all else unrun.

    Args:
        learner: as `load_learner` gives it.
        threshold: a threshold, or what `parse_threshold` reads; its schedule follows the training
            loop's own step.
        max_skips: after that many skips in a row the next candidate is taken.

    Raises:
        UnknownNameError: for an unknown threshold.
        SecondaryLearnersError: for values out of range.
    """

    reads_tokens = True

    def __init__(
        self, learner: Scorer, threshold: Threshold | float | str, *, max_skips: int = 1000
    ) -> None:
        super().__init__()
        self._predictor = LearnerPredictor(learner, threshold, max_skips=max_skips)

    def admit(self, input_ids: Ids, attention_mask: Flags, *, step: int, total: int) -> Flags:
        return self._count(self._predictor.admit(input_ids, attention_mask, step))

    def status(self) -> dict[str, float]:
        return {"threshold": self._predictor.threshold}

    def check_tokenizer(self, tokenizer: Any) -> None:
        self._predictor.check_tokenizer(tokenizer)

    def check_vocabulary(self, size: int) -> None:
        self._predictor.check_vocabulary(size)

    def state_dict(self) -> dict[str, Any]:
        return {"counts": asdict(self.counts), "predictor": self._predictor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counts = Counts(**state["counts"])
        self._predictor.load_state_dict(state["predictor"])


class RandomFilter(_Blind):
    """Trains on a share of the candidates, chosen blindly: what every filter has to beat.

    Args:
        share: of the candidates, above 0 and up to 1.
        seed: of the choice.

    Raises:
        SecondaryLearnersError: for a share out of that range.
    """

    def __init__(self, share: float, *, seed: int = 0) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise SecondaryLearnersError(
                f"the share to keep is {share}. Try a number above 0 and up to 1, such as 0.3."
            )
        self._share, self._seed = share, seed

    def admit(self, input_ids: Ids, attention_mask: Flags, *, step: int, total: int) -> Flags:
        # A generator for each batch, so that there is no state but the count.
        random = np.random.default_rng([self._seed, self.counts.seen])
        return self._count(random.random(len(input_ids)) < self._share)

    def status(self) -> dict[str, float]:
        return {}

    def check_tokenizer(self, tokenizer: Any) -> None:
        pass

    def check_vocabulary(self, size: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"counts": asdict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counts = Counts(**state["counts"])
