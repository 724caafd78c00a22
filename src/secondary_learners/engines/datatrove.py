"""A learner in pipelines of datatrove, and datatrove's executor as an engine (extra `scale`)."""

from __future__ import annotations

import os
import tempfile
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from secondary_learners.engines.rows import Row
from secondary_learners.engines.specification import load_scorer, one_thread, specify
from secondary_learners.engines.work import Report, Result, Work
from secondary_learners.errors import CorpusError, MissingExtraError
from secondary_learners.files import write_bytes

try:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.filters.base_filter import BaseFilter
except ImportError as error:
    raise MissingExtraError("datatrove", "scale") from error

__all__ = ["LearnerFilter", "run"]


class LearnerFilter(BaseFilter):  # type: ignore[misc]
    """Writes the score of each document into its metadata, and drops those below a threshold.

    What is dropped goes to `exclusion_writer`, with the reason "score".

    Args:
        learner: a reference as `load_learner` takes it. Each task loads it once, and refuses
            another learner than the one that was found when the step was made.
        threshold: the lowest score that is kept; None keeps all.
        score_column: what the score is called in the metadata, which has nothing of that name.
        tokenizer: the learner's, as a file.
        exclusion_writer: a writer of datatrove for what is dropped.

    Raises:
        CorpusError: for a document that has such a column.
        UnknownNameError: for a learner that does not exist.
    """

    name = "secondary learner"

    def __init__(
        self,
        learner: str,
        *,
        threshold: float | None = None,
        score_column: str = "score",
        tokenizer: Path | None = None,
        exclusion_writer: Any = None,
    ) -> None:
        super().__init__(exclusion_writer, batch_size=1024)
        self.specification = specify(learner, tokenizer=tokenizer)
        self.threshold, self.score_column = threshold, score_column

    def filter(self, doc: Any) -> bool | tuple[bool, str]:
        """Whether the document is kept, or the reason why not."""
        (kept,) = self.filter_batch([doc])
        return kept

    def filter_batch(self, batch: Sequence[Any]) -> list[bool | tuple[bool, str]]:
        """The same for several."""
        for doc in batch:
            if self.score_column in doc.metadata:
                raise CorpusError(
                    f"document {doc.id} already has {self.score_column!r} in its metadata, which "
                    "would be lost. Name the new one: score_column=."
                )
        rows = [Row(f"document {doc.id}", {**doc.metadata, "text": doc.text}) for doc in batch]
        scorer = load_scorer(self.specification)
        with one_thread():
            scores = scorer.scores(rows).values.tolist()
        for doc, score in zip(batch, scores, strict=True):
            doc.metadata[self.score_column] = score
        lowest = float("-inf") if self.threshold is None else self.threshold
        return [True if score >= lowest else (False, "score") for score in scores]


class _Shards(PipelineStep):  # type: ignore[misc]
    """Does the work on a task's shards, and writes each result into a folder."""

    name, type = "shards", "secondary learners"

    def __init__(self, work: Work[Any], items: Sequence[Any], results: str) -> None:
        super().__init__()
        self.work, self.items, self.results = work, items, results

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        yield from data or ()
        for number in range(rank, len(self.items), world_size):
            result = self.work(self.items[number], self._count)
            write_bytes(Path(self.results, str(number)), msgspec.json.encode(result))

    def _count(self, tokens: int) -> None:
        self.stat_update("tokens", value=tokens, unit="batch")


def run(work: Work[Result], items: Sequence[Any], workers: int, report: Report) -> Iterator[Result]:
    """The results of `work` on each item, a task each, when all are done."""
    kind = typing.get_type_hints(type(work).__call__)["return"]
    with tempfile.TemporaryDirectory() as folder:
        results = os.path.join(folder, "results")
        step = _Shards(work, list(items), results)
        tasks = len(items)
        LocalPipelineExecutor(
            [step], tasks=tasks, workers=workers, logging_dir=os.path.join(folder, "logs")
        ).run()
        for number in range(tasks):
            yield msgspec.json.decode(Path(results, str(number)).read_bytes(), type=kind)
