"""Multistage filtering: train on everything, then on what is informative, then guess that first.

Ouyang, Ansari, Lin, Ji, "Efficient NLP Model Finetuning via Multistage Data Filtering", IJCAI 2023
(arXiv 2207.14386). The filter is pure: token ids and losses in, decisions out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.decisions import Counts, Losses
from secondary_learners.filtering.predictors import Flags, Ids, NaiveBayes, Predictor

__all__ = ["MultistageFilter"]


class MultistageFilter:
    """A filter in three stages.

    0. Everything that the predictor lets pass is trained on. At the end, the mean of the last
       `window` losses becomes the loss threshold. A predictor that learns as it goes lets all pass.
    1. Examples with a loss at or under the threshold are not trained on. Meanwhile the predictor
       learns which ones those are.
    2. The predictor is asked first, and what it takes for uninformative is not even run. Of the
       rest, what is over the threshold is trained on, and the predictor goes on learning.

    Stages move only between steps and never back; a run never ends for lack of examples. A loss
    that is not finite is kept, and leaves thresholds and predictor alone.

    Args:
        predictor: by default a new `NaiveBayes`. One that is `ready`, such as a
            `LearnerPredictor`, is asked from the first step, and stage 2 follows stage 0 at once.
        warmup: the share of all steps that stage 0 takes.
        window: examples in the moving average of losses.
        bound: stage 2 begins when the predictor's negative log-likelihood (nats), averaged over
            the last `patience` times that it learnt, is under `bound` ...
        patience: see `bound`.
        latest: ... and at the latest after this share of all steps: the second of two epochs.
        reestimate: follow the moving average after stage 0 too. A frozen threshold can starve late
            training, when nearly every loss has fallen under it.
        keep_at_least: the other way against starving: whatever the threshold, the highest losses
            are kept, so many that this share of the last `window` examples run would have been.

    Raises:
        SecondaryLearnersError: for shares outside of 0 to 1, and for counts below 1.
    """

    reads_tokens = True
    observes = True

    def __init__(
        self,
        predictor: Predictor | None = None,
        *,
        warmup: float = 0.1,
        window: int = 128,
        bound: float = 0.6,
        patience: int = 8,
        latest: float = 0.5,
        reestimate: bool = False,
        keep_at_least: float = 0.0,
    ) -> None:
        shares = {"warmup": warmup, "latest": latest, "keep_at_least": keep_at_least}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise SecondaryLearnersError(
                    f"{name} is {value}, which is not a share from 0 to 1. Try {name}=0.1."
                )
        for name, count in {"window": window, "patience": patience}.items():
            if count < 1:
                raise SecondaryLearnersError(f"{name} is {count}. Try 1 or more.")
        self.predictor: Predictor = NaiveBayes() if predictor is None else predictor
        self._warmup, self._bound, self._latest = warmup, bound, latest
        self._reestimate, self._keep_at_least = reestimate, keep_at_least
        self._losses: deque[float] = deque(maxlen=window)
        self._doubts: deque[float] = deque(maxlen=patience)
        self._threshold: float | None = None
        self._step = -1
        self.stage = 0
        self.counts = Counts()
        self.informative = 0  # of the examples that the predictor learnt from
        self.learnt = 0

    @property
    def threshold(self) -> float | None:
        """The loss that an example must exceed; None in stage 0."""
        if self._threshold is None or not self._losses:
            return self._threshold
        threshold = float(np.mean(self._losses)) if self._reestimate else self._threshold
        if self._keep_at_least:
            threshold = min(threshold, float(np.quantile(self._losses, 1 - self._keep_at_least)))
        return threshold

    @property
    def needs_losses(self) -> bool:
        return self.stage > 0

    def admit(self, input_ids: Ids, attention_mask: Flags, *, step: int, total: int) -> Flags:
        """Which rows [batch] are run, in step `step` of `total`."""
        if step != self._step:
            self._step = step
            self._move(step, total)
        if self.stage == 2 or self.predictor.ready:
            admitted = self.predictor.admit(input_ids, attention_mask, step)
        else:
            admitted = np.ones(len(input_ids), np.bool_)
        run = int(admitted.sum())
        self.counts.seen += len(admitted)
        self.counts.skipped_forward += len(admitted) - run
        if not self.needs_losses:
            self.counts.kept += run
        return admitted

    def keep(self, losses: Losses, input_ids: Ids, attention_mask: Flags) -> Flags:
        """Which of the rows that were admitted and run are trained on, by their losses [batch]."""
        threshold = self.threshold
        assert threshold is not None, "keep() is for stages 1 and 2: see needs_losses"
        kept: Flags = ~(losses <= threshold)  # what is not a number is kept
        finite = np.isfinite(losses)
        if finite.any():
            doubt = self.predictor.learn(input_ids[finite], attention_mask[finite], kept[finite])
            if doubt is not None:
                self._doubts.append(doubt)
            self.learnt += int(finite.sum())
            self.informative += int(kept[finite].sum())
        self._losses.extend(losses[finite].tolist())
        self.counts.kept += int(kept.sum())
        self.counts.skipped_backward += int((~kept).sum())
        return kept

    def observe(self, losses: Losses) -> None:
        """The losses [rows] of what was trained on in stage 0."""
        self._losses.extend(losses[np.isfinite(losses)].tolist())

    def _move(self, step: int, total: int) -> None:
        done = step / max(1, total)
        if self.stage == 0 and done >= self._warmup and self._losses:
            self._threshold = float(np.mean(self._losses))
            self.stage = 2 if self.predictor.ready else 1
        if self.stage == 1:
            sure = len(self._doubts) == self._doubts.maxlen and np.mean(self._doubts) < self._bound
            if sure or (done >= self._latest and self.learnt):
                self.stage = 2

    def status(self) -> dict[str, float]:
        """stage, threshold, and the share of informative examples that the predictor saw."""
        status: dict[str, float] = {"stage": self.stage}
        if self.threshold is not None:
            status["threshold"] = self.threshold
        if self.learnt:
            status["informative_share"] = self.informative / self.learnt
        return status

    def check_tokenizer(self, tokenizer: Any) -> None:
        self.predictor.check_tokenizer(tokenizer)

    def check_vocabulary(self, size: int) -> None:
        self.predictor.check_vocabulary(size)

    def state_dict(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "step": self._step,
            "threshold": self._threshold,
            "losses": list(self._losses),
            "doubts": list(self._doubts),
            "learnt": self.learnt,
            "informative": self.informative,
            "counts": asdict(self.counts),
            "predictor": self.predictor.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.stage, self._step = state["stage"], state["step"]
        self._threshold = state["threshold"]
        self._losses = deque(state["losses"], self._losses.maxlen)
        self._doubts = deque(state["doubts"], self._doubts.maxlen)
        self.learnt, self.informative = state["learnt"], state["informative"]
        self.counts = Counts(**state["counts"])
        self.predictor.load_state_dict(state["predictor"])
