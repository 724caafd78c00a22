"""Scores as a column of a `datasets` data set: score once, filter as often as you like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.batches import rows
from secondary_learners.filtering.selection import Scorer, candidate, scores_of

__all__ = ["ScoreColumn"]


class ScoreColumn:
    """A function for `map` that gives every example its score, in the column `column`.

        scored = dataset.map(ScoreColumn(learner), batched=True)
        best = scored.filter(lambda row: row["score"] >= 1.0)

    Works with `Dataset` and `IterableDataset`, tokenized in the column `key`. For a threshold that
    changes on the way, use `filtered(dataset, learner, threshold)`.

    Args:
        learner: as `load_learner` gives it.
        column: the name of the new column.
        key: the column with the token ids; with the text, for a learner that reads text.
        tokenizer: the one that made the ids, checked against the learner's.

    Raises:
        IncompatibleError: for a tokenizer that the learner was not made for.
    """

    def __init__(
        self,
        learner: Scorer,
        *,
        column: str = "score",
        key: str = "input_ids",
        tokenizer: Any = None,
    ) -> None:
        if tokenizer is not None:
            learner.check_tokenizer(tokenizer)
        self._learner, self._column, self._key = learner, column, key

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[float]]:
        if self._key not in batch:
            raise SecondaryLearnersError(
                f"the data set has no column {self._key!r}; it has {', '.join(batch) or 'none'}. "
                "Try ScoreColumn(..., key=NAME), or tokenize it with .map() first."
            )
        names = [name for name in (self._key, "attention_mask") if name in batch]
        examples = rows({name: batch[name] for name in names}, self._key)
        candidates = [candidate(self._learner, example, self._key) for example in examples]
        return {self._column: scores_of(self._learner, candidates)}
