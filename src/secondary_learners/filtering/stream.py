"""Filtered loaders, streams and data sets: one line in any training loop."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.batches import dimensions, join, rows
from secondary_learners.filtering.selection import FilterReport, Scorer, Selector, token_ids
from secondary_learners.filtering.thresholds import Threshold, parse_threshold

if TYPE_CHECKING:
    import datasets

__all__ = ["FilterReport", "FilteredLoader", "FilteredStream", "Selector", "filtered"]

_SCORED_TOGETHER = 64
_SCORED_TOGETHER_IN_DATASETS = 1024


def filtered(
    source: Iterable[Any],
    learner: Scorer,
    threshold: Threshold | float | str,
    *,
    batch_size: int | None = None,
    key: str = "input_ids",
    tokenizer: Any = None,
    max_skips: int = 1000,
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
        key: where mappings have their token ids.
        tokenizer: the one that made the ids, checked against the learner's; a DataLoader's collator
            that has a tokenizer is checked without asking.
        max_skips: after that many skips in a row the next candidate is taken.

    Returns:
        What `source` is, made of survivors only, with a `report`, a FilterReport: batches of the
        same type, size and collation, or a data set of the same kind and columns, or examples, in
        lists of `batch_size` when that is given.

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

    library = sys.modules.get("datasets")
    if library is not None and isinstance(source, library.Dataset):
        return _filtered_dataset(source, selector(batch_size=batch_size), batch_size, key)
    if library is not None and isinstance(source, library.IterableDataset):
        return _filtered_iterable_dataset(source, selector, batch_size, key)
    if isinstance(source, DataLoader) and source.batch_sampler is not None:
        return FilteredLoader(source, selector, batch_size=batch_size, key=key)
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
        collate: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
    ) -> None:
        self._source, self._new_selector = source, selector
        self._batch_size, self._key = batch_size, key
        self._collate, self._drop_last = collate, drop_last
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
        if batch and not self._drop_last:
            self._batches += 1
            yield opened.collate(batch)

    def _survivors(self, opened: _Opened, selector: Selector) -> Iterator[Any]:
        ahead = opened.ahead
        while True:
            ahead.extend(islice(opened.candidates, _SCORED_TOGETHER - len(ahead)))
            if not ahead:
                return
            sequences = [token_ids(example, self._key) for example in ahead]
            for score, ids in zip(selector.scores(sequences), sequences, strict=True):
                example = ahead.popleft()
                # Decided one by one, so that a report never counts what was only read ahead.
                if selector.decide(score, len(ids)):
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
        if self._collate is not None:
            return _Opened(items, deque(), self._batch_size, self._collate)
        for first in items:
            items = chain([first], items)
            ids = first.get(self._key) if isinstance(first, Mapping) else first
            if ids is not None and dimensions(ids) == 2 and not isinstance(ids, tuple):
                candidates = chain.from_iterable(rows(batch, self._key) for batch in items)
                collate = partial(join, key=self._key, like=type(first))
                return _Opened(candidates, deque(), self._batch_size or len(ids), collate)
            break
        return _Opened(items, deque(), self._batch_size, list)


class FilteredLoader(FilteredStream):
    """What `filtered` makes of a DataLoader: iterate it for batches of survivors.

    The examples come in the loader's own order, from its own sampler and workers, and its own
    `collate_fn` makes the batches. It has no length: how many batches survive shows at the end.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        selector: Callable[..., Selector],
        *,
        batch_size: int | None,
        key: str,
    ) -> None:
        self.dataset, self.sampler, self.collate_fn = (
            loader.dataset,
            loader.sampler,
            loader.collate_fn,
        )
        self.batch_size = batch_size or loader.batch_size or _size_of(loader.batch_sampler)
        super().__init__(
            _Examples(loader),
            selector,
            batch_size=self.batch_size,
            key=key,
            collate=loader.collate_fn,
            drop_last=loader.drop_last,
        )


class _Examples:
    """The examples of a DataLoader before collation, again at every iteration."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        options: dict[str, Any] = {}
        if loader.num_workers:
            options = {
                "num_workers": loader.num_workers,
                "prefetch_factor": loader.prefetch_factor,
                "persistent_workers": loader.persistent_workers,
                "timeout": loader.timeout,
                "worker_init_fn": loader.worker_init_fn,
                "multiprocessing_context": loader.multiprocessing_context,
                "in_order": loader.in_order,
            }
        if loader.batch_size is None:
            options["batch_sampler"] = loader.batch_sampler
        else:
            options["batch_size"] = loader.batch_size
            if not isinstance(loader.dataset, IterableDataset):
                options["sampler"] = loader.sampler
        # The same generator, so that a seed gives the order that the loader itself would have.
        self._loader: DataLoader[Any] = DataLoader(
            loader.dataset, collate_fn=list, generator=loader.generator, **options
        )

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._loader)


def _size_of(batch_sampler: Any) -> int:
    size = getattr(batch_sampler, "batch_size", None)
    if not isinstance(size, int):
        raise SecondaryLearnersError(
            f"the batch sampler {type(batch_sampler).__name__} does not tell its batch size. "
            "Try filtered(..., batch_size=16)."
        )
    return size


def _filtered_dataset(
    source: datasets.Dataset, selector: Selector, batch_size: int | None, key: str
) -> datasets.Dataset:
    columns = [name for name in (key, "attention_mask") if name in source.column_names]
    if key not in columns:
        raise _no_column(key, source.column_names)
    plain = source.select_columns(columns).with_format(None)
    kept: list[int] = []
    seen = 0
    for batch in plain.iter(batch_size=_SCORED_TOGETHER_IN_DATASETS):
        flags = selector.select([token_ids(row, key) for row in rows(batch, key)])
        kept.extend(seen + place for place, keep in enumerate(flags) if keep)
        seen += len(flags)
    result = source.select(kept)
    result.report = _examples_report(selector, batch_size)
    return result


def _examples_report(selector: Selector, batch_size: int | None) -> FilterReport:
    """The report of a filter that hands on examples: the batches they fill, a last one included."""
    report = selector.report(0)
    return replace(report, batches=-(-report.kept // batch_size)) if batch_size else report


def _filtered_iterable_dataset(
    source: datasets.IterableDataset,
    selector: Callable[..., Selector],
    batch_size: int | None,
    key: str,
) -> datasets.IterableDataset:
    if source.column_names is not None and key not in source.column_names:
        raise _no_column(key, source.column_names)
    function = _BatchFilter(selector, batch_size, key)
    result = source.filter(function, with_indices=True, batched=True, batch_size=_SCORED_TOGETHER)
    result.report = _LiveReport(function)
    return result


class _BatchFilter:
    """The function given to `IterableDataset.filter`: row 0 begins an iteration."""

    def __init__(self, selector: Callable[..., Selector], batch_size: int | None, key: str) -> None:
        self._new_selector, self._batch_size, self._key = selector, batch_size, key
        self.selector = selector(batch_size=batch_size)

    @property
    def report(self) -> FilterReport:
        return _examples_report(self.selector, self._batch_size)

    def __call__(self, batch: Mapping[str, Any], indices: list[int]) -> list[bool]:
        if indices[0] == 0:
            self.selector = self._new_selector(batch_size=self._batch_size)
        names = [name for name in (self._key, "attention_mask") if name in batch]
        examples = rows({name: batch[name] for name in names}, self._key)
        return self.selector.select([token_ids(example, self._key) for example in examples])


class _LiveReport:
    """A FilterReport that reads the filter at every look: data sets have no place for a property.

    Rows filtered inside the worker processes of a DataLoader are counted there and not here.
    """

    def __init__(self, function: _BatchFilter) -> None:
        self._function = function

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # unpickling and copying look for methods before __init__ ran
            raise AttributeError(name)
        return getattr(self._function.report, name)

    def __str__(self) -> str:
        return str(self._function.report)


def _no_column(key: str, columns: Iterable[str]) -> SecondaryLearnersError:
    return SecondaryLearnersError(
        f"the data set has no column {key!r}; it has {', '.join(columns) or 'none'}. "
        "Try filtered(..., key=NAME), or tokenize it with .map() before filtering."
    )
