"""Filtered loaders, streams and data sets: one line in any training loop."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

from torch.utils.data import DataLoader

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.batches import dimensions, join, rows
from secondary_learners.filtering.data_sets import filtered_dataset, filtered_iterable_dataset
from secondary_learners.filtering.loader import FilteredLoader
from secondary_learners.filtering.selection import FilterReport, Scorer, Selector, size
from secondary_learners.filtering.thresholds import Threshold, parse_threshold

__all__ = ["FilterReport", "FilteredLoader", "FilteredStream", "Selector", "filtered"]

_SCORED_TOGETHER = 64


def filtered(
    source: Iterable[Any],
    learner: Scorer,
    threshold: Threshold | float | str,
    *,
    batch_size: int | None = None,
    key: str = "input_ids",
    tokenizer: Any = None,
    max_skips: int = 1000,
    joint: bool = False,
) -> Any:
    """`source` without the candidates whose score is under `threshold`.

    The order stays, nothing is repeated, and every iteration starts the filter afresh. A candidate
    is scored from its token ids alone, so a skipped one costs no pass of the language model.

    Args:
        source: a DataLoader, a `datasets.Dataset` or `IterableDataset`, an iterable of batches (2-D
            ids, or mappings with 2-D ids), or an iterable of examples (1-D ids, or mappings with
            1-D ids).
        learner: as `load_learner` gives it.
        threshold: a threshold, or what `parse_threshold` reads, such as 1.0 or "shifting:1,-1,10".
        batch_size: kept examples a batch; by default that of `source`.
        key: where mappings have their token ids; the text, for a learner that reads text.
        tokenizer: the one that made the ids, checked against the learner's; a DataLoader's collator
            that has a tokenizer is checked without asking.
        max_skips: after that many skips in a row the next candidate is taken.
        joint: with several processes of torch.distributed, each with a DataLoader of its own shard:
            all of them yield equally many batches, as DistributedDataParallel and FSDP need it.
            Those with survivors to spare give to those that lack some.

    Returns:
        What `source` is, made of survivors only, with a `report`, a FilterReport: batches of the
        same type, size and collation, or a data set of the same kind and columns, or examples, in
        lists of `batch_size` when that is given. Of a DataLoader it has `state_dict` and
        `load_state_dict`, to go on in the middle of an epoch.

    Raises:
        IncompatibleError: for a foreign tokenizer.
        UnknownNameError: for an unknown threshold.
        SecondaryLearnersError: for examples without token ids.
    """
    if isinstance(threshold, (int, float, str)):
        threshold = parse_threshold(str(threshold))
    if isinstance(source, (str, Mapping)):
        raise SecondaryLearnersError(
            f"filtered() takes many examples, not one {type(source).__name__}. "
            "Try a DataLoader, a datasets.Dataset (one split of it), or a list of examples."
        )
    collator = getattr(source, "collate_fn", None)
    tokenizer = tokenizer if tokenizer is not None else getattr(collator, "tokenizer", None)
    if tokenizer is not None:
        learner.check_tokenizer(tokenizer)

    selector = partial(Selector, learner, threshold, max_skips=max_skips)
    if isinstance(source, DataLoader) and source.batch_sampler is not None:
        return FilteredLoader(source, selector, batch_size=batch_size, key=key, joint=joint)
    if joint:
        raise SecondaryLearnersError(
            f"joint is for a DataLoader that makes batches, not for {type(source).__name__}. Try "
            "filtered(DataLoader(..., batch_size=16), ..., joint=True)."
        )
    library = sys.modules.get("datasets")
    if library is not None and isinstance(source, library.Dataset):
        return filtered_dataset(source, selector(batch_size=batch_size), batch_size, key)
    if library is not None and isinstance(source, library.IterableDataset):
        return filtered_iterable_dataset(source, selector, batch_size, key)
    return FilteredStream(source, selector, batch_size=batch_size, key=key)


class _Opened(NamedTuple):
    """One pass over a source."""

    candidates: Iterator[Any]
    ahead: deque[Any]  # candidates read and scored, but not decided on
    batch_size: int | None
    collate: Callable[[list[Any]], Any]


class FilteredStream:
    """What `filtered` makes of an iterable: iterate it for survivors.

    At most 64 candidates are read ahead of the one decided on. From a source that can be iterated
    only once, those are kept for the next iteration, so leaving a loop loses none.
    """

    def __init__(
        self,
        source: Iterable[Any],
        selector: Callable[..., Selector],
        *,
        batch_size: int | None,
        key: str,
    ) -> None:
        self._source, self._new_selector = source, selector
        self._batch_size, self._key = batch_size, key
        self._selector = selector(
            batch_size=batch_size or 1
        )  # refuses wrong options now, not in the loop
        self._batches = 0
        self._opened: _Opened | None = None

    @property
    def report(self) -> FilterReport:
        """What the newest iteration did so far."""
        return self._selector.report(self._batches)

    def __iter__(self) -> Iterator[Any]:
        opened = self._open()
        selector = self._selector = self._new_selector(batch_size=opened.batch_size)
        self._batches = 0
        batch = []
        for example in self._survivors(opened, selector):
            if opened.batch_size is None:
                yield example
                continue
            batch.append(example)
            if len(batch) == opened.batch_size:
                self._batches += 1
                yield opened.collate(batch)
                batch = []
        if batch:
            self._batches += 1
            yield opened.collate(batch)

    def _survivors(self, opened: _Opened, selector: Selector) -> Iterator[Any]:
        ahead = opened.ahead
        while True:
            ahead.extend(islice(opened.candidates, _SCORED_TOGETHER - len(ahead)))
            if not ahead:
                return
            candidates = [selector.read(example, self._key) for example in ahead]
            for score, each in zip(selector.scores(candidates), candidates, strict=True):
                example = ahead.popleft()
                # Decided one by one, so that a report never counts what was only read ahead.
                if selector.decide(score, size(each)):
                    yield example

    def _open(self) -> _Opened:
        if self._opened is not None:
            return self._opened
        opened = self._start()
        if isinstance(self._source, Iterator):
            self._opened = opened
        return opened

    def _start(self) -> _Opened:
        items = iter(self._source)
        for first in items:
            items = chain([first], items)
            ids = first.get(self._key) if isinstance(first, Mapping) else first
            if ids is not None and dimensions(ids) == 2 and not isinstance(ids, tuple):
                candidates = chain.from_iterable(rows(batch, self._key) for batch in items)
                collate = partial(join, key=self._key, like=type(first))
                return _Opened(candidates, deque(), self._batch_size or len(ids), collate)
            break
        return _Opened(items, deque(), self._batch_size, list)
