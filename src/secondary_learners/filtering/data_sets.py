"""Data sets of the library `datasets`, filtered: a data set of the same kind and columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.batches import rows
from secondary_learners.filtering.selection import FilterReport, Selector

if TYPE_CHECKING:
    import datasets

__all__ = ["filtered_dataset", "filtered_iterable_dataset"]

_SCORED_TOGETHER = 64  # of a stream
_SCORED_TOGETHER_IN_TABLES = 1024


def filtered_dataset(
    source: datasets.Dataset, selector: Selector, batch_size: int | None, key: str
) -> datasets.Dataset:
    columns = [name for name in (key, "attention_mask") if name in source.column_names]
    if key not in columns:
        raise _no_column(key, source.column_names)
    plain = source.select_columns(columns).with_format(None)
    kept: list[int] = []
    seen = 0
    for batch in plain.iter(batch_size=_SCORED_TOGETHER_IN_TABLES):
        flags = selector.select([selector.read(row, key) for row in rows(batch, key)])
        kept.extend(seen + place for place, keep in enumerate(flags) if keep)
        seen += len(flags)
    result = source.select(kept)
    result.report = _examples_report(selector, batch_size)
    return result


def _examples_report(selector: Selector, batch_size: int | None) -> FilterReport:
    """The report of a filter that hands on examples: the batches they fill, a last one included."""
    report = selector.report(0)
    return replace(report, batches=-(-report.kept // batch_size)) if batch_size else report


def filtered_iterable_dataset(
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
        return self.selector.select([self.selector.read(each, self._key) for each in examples])


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
