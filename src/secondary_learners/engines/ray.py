"""A learner in data sets of Ray, and Ray's workers as an engine (extra `ray`)."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from secondary_learners.engines.rows import Row
from secondary_learners.engines.specification import load_scorer, one_thread, specify
from secondary_learners.engines.work import Report, Result, Work
from secondary_learners.errors import CorpusError, MissingExtraError

__all__ = ["LearnerScores", "run"]


class LearnerScores:
    """Adds the scores of a learner to batches: `dataset.map_batches(LearnerScores, ...)`.

    Each worker makes one and loads the learner once; a batch is scored by one thread.

        dataset.map_batches(LearnerScores, fn_constructor_args=("books-mini",), concurrency=2)

    Args:
        learner: a reference as `load_learner` takes it.
        column: of the text.
        score_column: what the new column is called.
        columns: of prompt and completion, for a learner that was made from instructions.
        tokenizer: the learner's, as a file.

    Raises:
        CorpusError: for a batch that has such a column, or a row without a text.
        UnknownNameError: for a learner that does not exist.
    """

    def __init__(
        self,
        learner: str,
        *,
        column: str = "text",
        score_column: str = "score",
        columns: tuple[str, str] | None = None,
        tokenizer: Path | None = None,
    ) -> None:
        self.score_column = score_column
        self.specification = specify(learner, column=column, columns=columns, tokenizer=tokenizer)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch [rows] with scores, float64 [rows]; columns are arrays of NumPy."""
        if self.score_column in batch:
            raise CorpusError(
                f"the data set already has a column {self.score_column!r}, which would be lost. "
                "Name the new one: score_column=."
            )
        count = len(next(iter(batch.values()), ()))
        rows = [
            Row(f"row {number} of a batch", {name: batch[name][number] for name in batch})
            for number in range(count)
        ]
        scorer = load_scorer(self.specification)
        with one_thread():
            scores = scorer.scores(rows).values if rows else np.zeros(0)
        return {**batch, self.score_column: scores}


def run(work: Work[Result], items: Sequence[Any], workers: int, report: Report) -> Iterator[Result]:
    """The results of `work` on each item, in the order in which they are ready.

    On the cluster of RAY_ADDRESS, whose machines share this one's files, or on this machine.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    own = not ray.is_initialized()
    if own:
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        task = ray.remote(num_cpus=1)(_one)
        shared, folder = ray.put(work), os.getcwd()
        rest = iter(items)

        def begun(count: int) -> list[Any]:
            return [task.remote(shared, item, folder) for item in itertools.islice(rest, count)]

        waiting = begun(2 * workers)
        while waiting:
            (ready,), waiting = ray.wait(waiting)
            waiting += begun(1)
            result, tokens = ray.get(ready)
            report(tokens)
            yield result
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # what the task raised, without Ray's own lines
    finally:
        if own:
            ray.shutdown()


def _one(work: Work[Result], item: Any, folder: str) -> tuple[Result, int]:
    """The result, and how many tokens were reported meanwhile."""
    os.chdir(folder)
    tokens: list[int] = []
    result = work(item, tokens.append)
    return result, sum(tokens)
