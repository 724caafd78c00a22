"""The one place where a candidate is kept or skipped, whatever it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.thresholds import RecentScores, Shifting, Threshold

__all__ = [
    "Candidate",
    "FilterReport",
    "Scorer",
    "Selector",
    "candidate",
    "pad",
    "scores_of",
    "size",
    "token_ids",
]

Candidate = npt.NDArray[np.int64] | str
"""What a learner scores: token ids [length], or the text of one that has no tokenizer."""


_STATE = (
    "limit",
    "_skips",
    "_seen",
    "_kept",
    "_forced",
    "_tokens_seen",
    "_tokens_kept",
)


class Scorer(Protocol):
    """What filtering asks of a learner; `learners.artifact.Learner` is one."""

    def score(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, /) -> torch.Tensor:
        """Scores [batch] of token ids [batch, length], under a boolean mask of that shape."""

    def quantile(self, q: float, /) -> float:
        """The score below which a share `q` of the learner's held-out contexts lies."""

    def check_tokenizer(self, tokenizer: Any, /) -> None:
        """Raises IncompatibleError unless `tokenizer` is the learner's own."""

    def check_vocabulary(self, size: int, /) -> None:
        """Raises IncompatibleError unless a model of `size` embeddings may be the learner's own."""


@dataclass(frozen=True)
class FilterReport:
    """What a filter did so far, up to the last candidate of the last batch it yielded.

    Attributes:
        seen: candidates looked at.
        kept: candidates yielded.
        forced: those of `kept` that were under the threshold and taken because of `max_skips`.
        batches: batches yielded, a last partial one included; 0 where examples come singly.
        tokens_seen: tokens in the candidates looked at, padding left out.
        tokens_kept: tokens in the candidates yielded, padding left out.
    """

    seen: int = 0
    kept: int = 0
    forced: int = 0
    batches: int = 0
    tokens_seen: int = 0
    tokens_kept: int = 0

    def __str__(self) -> str:
        share = 100 * self.kept / self.seen if self.seen else 0
        return (
            f"{self.kept:,} of {self.seen:,} candidates kept ({share:.0f} %, {self.forced:,} "
            f"forced), {self.tokens_kept:,} of {self.tokens_seen:,} tokens, "
            f"{self.batches:,} batches"
        )


class Selector:
    """Keeps each candidate whose score reaches the threshold, one after the other.

    batch_size: how many kept candidates make a batch, which is the step that a threshold sees.
    max_skips: after that many skips in a row the next candidate is taken whatever its score, so
        that a corpus unlike the learner's own cannot stall training.
    """

    def __init__(
        self,
        learner: Scorer,
        threshold: Threshold,
        *,
        batch_size: int | None = None,
        max_skips: int = 1000,
    ) -> None:
        if batch_size is None and isinstance(threshold, Shifting):
            raise SecondaryLearnersError(
                f"the threshold {threshold} counts batches, and this source has none. "
                "Try filtered(..., batch_size=16)."
            )
        for name, value in (("batch_size", batch_size), ("max_skips", max_skips)):
            if value is not None and value < 1:
                raise SecondaryLearnersError(f"{name} is {value!r}. Try 1 or more.")
        self._learner, self._threshold = learner, threshold
        self._batch_size, self._max_skips = batch_size, max_skips
        self._recent = RecentScores(learner.quantile)
        self._skips = 0
        self.limit = math.nan
        """The score that the newest candidate had to reach."""
        self._seen = self._kept = self._forced = self._tokens_seen = self._tokens_kept = 0

    def read(self, example: Any, key: str) -> Candidate:
        """What the learner scores of an example."""
        return candidate(self._learner, example, key)

    def scores(self, candidates: Sequence[Candidate]) -> list[float]:
        """The score of each candidate, all in one call of the learner.

        With what the threshold adds, as `decide` expects them.
        """
        return [
            score + self._threshold.noise(_identity(each))
            for score, each in zip(scores_of(self._learner, candidates), candidates, strict=True)
        ]

    def scores_of_padded(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]
    ) -> list[float]:
        """The same of token ids [batch, length] where `mask`, of that shape, is true."""
        scores: list[float] = self._learner.score(
            torch.from_numpy(ids), torch.from_numpy(mask)
        ).tolist()
        return [
            score + self._threshold.noise(row[shown])
            for score, row, shown in zip(scores, ids, mask, strict=True)
        ]

    def decide(self, score: float, tokens: int, *, step: int | None = None) -> bool:
        """Whether the next candidate, of that score and number of tokens, is kept.

        step: what the threshold sees instead of the number of batches filled.
        """
        if step is None:
            step = self._kept // self._batch_size if self._batch_size else 0
        self.limit = self._threshold.at(step, self._recent)
        passes = score >= self.limit
        forced = not passes and self._skips >= self._max_skips
        kept = passes or forced
        self._recent.add(score)
        self._skips = 0 if kept else self._skips + 1
        self._seen += 1
        self._kept += kept
        self._forced += forced
        self._tokens_seen += tokens
        self._tokens_kept += tokens * kept
        return kept

    def select(self, candidates: Sequence[Candidate]) -> list[bool]:
        """Whether each of the next candidates is kept, in order."""
        scores = self.scores(candidates)
        return [
            self.decide(score, size(each)) for score, each in zip(scores, candidates, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """What later decisions and the report depend on, in numbers and lists."""
        return {"recent": self._recent.arrived, **{name: getattr(self, name) for name in _STATE}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._recent = RecentScores(self._learner.quantile)
        for score in state["recent"]:
            self._recent.add(score)
        for name in _STATE:
            setattr(self, name, state[name])

    def report(self, batches: int) -> FilterReport:
        return FilterReport(
            seen=self._seen,
            kept=self._kept,
            forced=self._forced,
            batches=batches,
            tokens_seen=self._tokens_seen,
            tokens_kept=self._tokens_kept,
        )


def candidate(learner: Scorer, example: Any, key: str) -> Candidate:
    """What `learner` scores of an example, which has it as `key` or is it."""
    if not _reads_text(learner):
        return token_ids(example, key)
    text = example.get(key) if isinstance(example, Mapping) else example
    if isinstance(text, str):
        return text
    raise SecondaryLearnersError(
        f"this learner reads text, and {key!r} of an example is {type(text).__name__} "
        f"{str(text)[:60]!r}. Try key=NAME with the column of the text, before it is tokenized."
    )


def scores_of(learner: Scorer, candidates: Sequence[Any]) -> list[float]:
    """The scores of candidates of `learner`, in one call."""
    if not candidates:
        return []
    if _reads_text(learner):
        texts: list[float] = learner.score_texts(candidates).tolist()  # type: ignore[attr-defined]
        return texts
    ids, mask = pad(candidates)
    scores: list[float] = learner.score(torch.from_numpy(ids), torch.from_numpy(mask)).tolist()
    return scores


def size(candidate: Candidate) -> int:
    """Its tokens; of a text, its words."""
    return len(candidate.split()) if isinstance(candidate, str) else len(candidate)


def _identity(candidate: Candidate) -> npt.NDArray[np.int64]:
    """Numbers that are the same for the same candidate."""
    if isinstance(candidate, str):
        data = candidate.encode("utf-8", "surrogatepass")
        return np.frombuffer(data, np.uint8).astype(np.int64)
    return candidate


def _reads_text(learner: Scorer) -> bool:
    return getattr(getattr(learner, "config", None), "reads_text", False) is True


def pad(
    sequences: Sequence[Sequence[int] | npt.NDArray[np.int64]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Token ids and mask [batch, length], of at least one sequence, padded on the right with 0."""
    lengths = np.array([len(sequence) for sequence in sequences])
    mask = np.arange(max(1, int(lengths.max()))) < lengths[:, None]
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences])
    return ids, mask


def token_ids(example: Any, key: str) -> npt.NDArray[np.int64]:
    """The token ids [length] of one example, without what its attention mask leaves out.

    example: a mapping with `key` (and perhaps "attention_mask"), a tuple that starts with the ids,
    or the ids themselves: a list, array or tensor of one dimension.
    """
    mask = None
    ids = example
    if isinstance(example, Mapping):
        if key not in example:
            raise SecondaryLearnersError(
                f"an example has no {key!r}; it has {', '.join(map(repr, example)) or 'nothing'}. "
                "Try filtered(..., key=NAME), or tokenize the texts before filtering."
            )
        ids, mask = example[key], example.get("attention_mask")
    elif isinstance(example, tuple) and example and not isinstance(example[0], (int, np.integer)):
        ids = example[0]
    try:
        array = np.asarray(ids.cpu() if isinstance(ids, torch.Tensor) else ids)
    except ValueError:  # a ragged list of lists
        array = np.empty((0, 0))
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise SecondaryLearnersError(
            f"the token ids of an example are {type(ids).__name__} {str(ids)[:60]!r}, not one row "
            "of integers. Try filtered(..., key=NAME), or tokenize the texts before filtering."
        )
    array = array.astype(np.int64, copy=False)
    if mask is None:
        return array
    keep = np.asarray(mask.cpu() if isinstance(mask, torch.Tensor) else mask).astype(bool)
    return array[keep] if keep.shape == array.shape else array
