"""Meta predictors: which examples are worth a forward pass, judged from their tokens alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.selection import Scorer, Selector
from secondary_learners.filtering.thresholds import RecentScores, Threshold, parse_threshold

__all__ = ["LearnerPredictor", "NaiveBayes", "Predictor", "token_presence"]

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Predictor(Protocol):
    """What `MultistageFilter` asks before a forward pass.

    `input_ids` are [batch, length]; `attention_mask` [batch, length] is False at padding.
    """

    @property
    def ready(self) -> bool:
        """Whether it can be asked from the first step, without having learnt anything."""

    def admit(self, input_ids: Ids, attention_mask: Flags, step: int) -> Flags:
        """Whether each row [batch] is worth a forward pass; `step` is what schedules follow."""

    def learn(self, input_ids: Ids, attention_mask: Flags, informative: Flags) -> float | None:
        """Learn which rows were informative [batch].

        Returns the mean negative log-likelihood, in nats, that the rows now learnt had *before*;
        None from a predictor that knows no probabilities, or has learnt nothing now.
        """

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raises IncompatibleError for a tokenizer that it was not made for."""

    def check_vocabulary(self, size: int) -> None:
        """Raises IncompatibleError for a model whose number of token embeddings is another."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def token_presence(
    input_ids: Ids, attention_mask: Flags, width: int
) -> tuple[Ids, npt.NDArray[np.int32]]:
    """Which tokens each row has, as the `(indices, indptr)` of a sparse matrix [batch, width].

    Each token counts once a row, in ascending order; `width` exceeds every token id.
    """
    row, column = attention_mask.nonzero()
    keys = np.unique(row * width + input_ids[row, column])
    rows, tokens = np.divmod(keys, width)
    counts = np.bincount(rows, minlength=len(input_ids))
    return tokens, np.concatenate([[0], counts.cumsum()]).astype(np.int32)


class NaiveBayes:
    """Bernoulli naive Bayes over token presence, learning as it goes.

    The model is scikit-learn's BernoulliNB with `partial_fit`, and so are its probabilities. It is
    not used itself because it costs several percent of a small language model's training step, most
    of it in checks of its arguments.

    Args:
        admit_above: a row is worth a forward pass when its probability of being informative is at
            least this.
        admit_share: instead, the share of rows that are worth one: those likeliest to be
            informative, compared with the last 512. Losses of a model that learns keep moving the
            probabilities, and with a fixed bar the share goes where they go. All of the first 64
            are worth one, and all while only one class is known.
        smoothing: what is added to every count. Every token of the vocabulary that neither class
            has shown yet speaks for the larger class, so that with the usual 1 and a large
            vocabulary the vocabulary's size outweighs the evidence.
        together: how many examples it waits for before it learns from them, which is faster than
            learning from each batch.
        vocabulary: the number of token ids; by default grows with the ids that come.

    Raises:
        SecondaryLearnersError: for values out of range.
    """

    ready = False

    def __init__(
        self,
        *,
        admit_above: float = 0.5,
        admit_share: float | None = None,
        smoothing: float = 0.05,
        together: int = 32,
        vocabulary: int | None = None,
    ) -> None:
        if not 0 < admit_above < 1 or not smoothing > 0 or together < 1:
            raise SecondaryLearnersError(
                f"admit_above is {admit_above}, smoothing {smoothing} and together {together}. "
                "Try NaiveBayes(admit_above=0.5, smoothing=0.05, together=32)."
            )
        if admit_share is not None and not 0 < admit_share < 1:
            raise SecondaryLearnersError(
                f"admit_share is {admit_share}, and must be between 0 and 1. "
                "Try NaiveBayes(admit_share=0.3)."
            )
        self._admit_above, self._smoothing, self._together = admit_above, smoothing, together
        self._admit_share, self._recent = admit_share, _recent_odds()
        self._waiting: list[tuple[Ids, Flags, Flags]] = []
        self._class_count = np.zeros(2)
        self._feature_count = np.zeros((2, vocabulary or 1))  # rows with the token, in each class
        self._tables: tuple[float, npt.NDArray[np.float64]] | None = None

    @property
    def _fitted(self) -> bool:
        return bool(self._class_count.any())

    def admit(self, input_ids: Ids, attention_mask: Flags, step: int) -> Flags:
        if not self._fitted:
            return np.ones(len(input_ids), np.bool_)
        odds = self._log_odds(*self._presence([(input_ids, attention_mask)]), len(input_ids))
        if self._admit_share is None:
            flags: Flags = -np.logaddexp(0, -odds) >= np.log(self._admit_above)
            return flags
        if not self._class_count.all():  # all odds are infinite alike
            return np.ones(len(input_ids), np.bool_)
        flags = odds >= self._recent.quantile(1 - self._admit_share)
        for value in odds.tolist():
            self._recent.add(value)
        return flags

    def learn(self, input_ids: Ids, attention_mask: Flags, informative: Flags) -> float | None:
        self._waiting.append((input_ids, attention_mask, informative))
        if sum(len(flags) for _, _, flags in self._waiting) < self._together:
            return None
        tokens, rows = self._presence([(ids, mask) for ids, mask, _ in self._waiting])
        classes = np.concatenate([flags for _, _, flags in self._waiting]).astype(np.int64)
        self._waiting.clear()
        before = None
        if self._fitted:
            odds = self._log_odds(tokens, rows, len(classes))
            before = float(np.logaddexp(0, np.where(classes == 1, -odds, odds)).mean())
        self._class_count += np.bincount(classes, minlength=2)
        np.add.at(self._feature_count, (classes[rows], tokens), 1)
        self._tables = None
        return before

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Any tokenizer will do: the counts are made in the run that uses them."""

    def check_vocabulary(self, size: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {
            "class_count": torch.from_numpy(self._class_count.copy()),
            "feature_count": torch.from_numpy(self._feature_count.copy()),
            "waiting": [
                [torch.from_numpy(array.copy()) for array in batch] for batch in self._waiting
            ],
            "recent": self._recent.arrived,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._class_count = state["class_count"].numpy().copy()
        self._feature_count = state["feature_count"].numpy().copy()
        self._waiting = [
            (ids.numpy(), mask.numpy(), flags.numpy()) for ids, mask, flags in state["waiting"]
        ]
        self._recent = _recent_odds()
        for value in state["recent"]:
            self._recent.add(value)
        self._tables = None

    def _presence(self, batches: Sequence[tuple[Ids, Flags]]) -> tuple[Ids, Ids]:
        """Each token that a row has, once, and the number of that row among all of the batches."""
        highest = max(int(ids.max(initial=0, where=mask)) for ids, mask in batches)
        width = self._feature_count.shape[1]
        if highest >= width:  # the same as having had the columns from the start
            width, before = 1 << highest.bit_length(), width
            self._feature_count = np.pad(self._feature_count, ((0, 0), (0, width - before)))
            self._tables = None
        parts = [token_presence(ids, mask, width) for ids, mask in batches]
        counts = np.concatenate([np.diff(starts) for _, starts in parts])
        return np.concatenate([tokens for tokens, _ in parts]), np.repeat(
            np.arange(len(counts)), counts
        )

    def _log_odds(self, tokens: Ids, rows: Ids, count: int) -> npt.NDArray[np.float64]:
        """log P(informative) - log P(uninformative) of each of the `count` rows [count]."""
        if self._tables is None:
            self._tables = self._make_tables()
        prior, evidence = self._tables
        odds: npt.NDArray[np.float64] = np.full(count, prior)
        np.add.at(odds, rows, evidence[tokens])
        return odds

    def _make_tables(self) -> tuple[float, npt.NDArray[np.float64]]:
        """The log odds of a row without tokens, and what each token adds [width]."""
        alpha, width = self._smoothing, self._feature_count.shape[1]
        shown = np.flatnonzero(self._feature_count.any(axis=0))  # all others are alike
        examples, having = self._class_count[:, None], self._feature_count[:, shown]
        absent, never = np.log(examples - having + alpha), np.log(examples[:, 0] + alpha)
        odds = np.log(having + alpha) - absent
        evidence = np.full(width, never[0] - never[1])
        evidence[shown] = odds[1] - odds[0]
        with np.errstate(divide="ignore"):  # of a class without examples yet
            prior = np.log(self._class_count)
        prior += absent.sum(axis=1) + (width - len(shown)) * never
        prior -= width * np.log(self._class_count + 2 * alpha)
        return float(prior[1] - prior[0]), evidence


def _recent_odds() -> RecentScores:
    return RecentScores(lambda q: -math.inf, size=512, enough=64)


class LearnerPredictor:
    """A secondary learner as a meta predictor: forward passes are skipped from the first step.

    Args:
        learner: as `load_learner` gives it.
        threshold: the score that a row must reach, as in `filtered`; a schedule follows `step`.
        max_skips: after that many skips in a row the next row is admitted.

    Raises:
        UnknownNameError: for an unknown threshold.
        SecondaryLearnersError: for values out of range.
    """

    ready = True

    def __init__(
        self, learner: Scorer, threshold: Threshold | float | str = 0.0, *, max_skips: int = 1000
    ) -> None:
        if isinstance(threshold, (int, float, str)):
            threshold = parse_threshold(str(threshold))
        self._learner = learner
        # One candidate a batch, so that nothing is counted in batches of its own: `step` is given.
        self._selector = Selector(learner, threshold, batch_size=1, max_skips=max_skips)

    @property
    def threshold(self) -> float:
        """The score that the newest row had to reach."""
        return self._selector.limit

    def admit(self, input_ids: Ids, attention_mask: Flags, step: int) -> Flags:
        scores = self._selector.scores_of_padded(input_ids, attention_mask)
        lengths = attention_mask.sum(axis=1).tolist()
        decide = self._selector.decide
        return np.array(
            [
                decide(score, tokens, step=step)
                for score, tokens in zip(scores, lengths, strict=True)
            ],
            np.bool_,
        )

    def learn(self, input_ids: Ids, attention_mask: Flags, informative: Flags) -> None:
        """A published learner stays as it is."""

    def check_tokenizer(self, tokenizer: Any) -> None:
        self._learner.check_tokenizer(tokenizer)

    def check_vocabulary(self, size: int) -> None:
        self._learner.check_vocabulary(size)

    def state_dict(self) -> dict[str, Any]:
        return self._selector.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._selector.load_state_dict(state)
