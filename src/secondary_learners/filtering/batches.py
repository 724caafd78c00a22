"""Batches taken apart into rows and put together again, in the type they came in."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["dimensions", "join", "rows"]

_PADDING = {"attention_mask": 0, "labels": -100}


def dimensions(value: Any) -> int:
    """1 for one row of token ids, 2 for a batch of rows: of tensors, arrays and nested lists."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim
    if isinstance(value, (list, tuple)):
        return 1 + (dimensions(value[0]) if value else 0)
    return 0


def rows(batch: Any, key: str) -> Iterator[Any]:
    """The examples of a batch: a mapping whose every value has a row for each, or one value."""
    if not isinstance(batch, Mapping):
        yield from batch
        return
    count = len(batch[key])
    for name, value in batch.items():
        if dimensions(value) == 0 or len(value) != count:
            raise SecondaryLearnersError(
                f"{name!r} of a batch does not have one row for each of its {count} examples. "
                "Try filtering the examples before they are made into batches."
            )
    for place in range(count):
        yield {name: value[place] for name, value in batch.items()}


def join(examples: Sequence[Any], key: str, like: type) -> Any:
    """The batch of `examples`; `like` is the type of the batches they came from."""
    if not isinstance(examples[0], Mapping):
        return _stack(examples)
    widths = [len(example[key]) for example in examples]
    if min(widths) < max(widths) and not isinstance(examples[0][key], list):
        if "attention_mask" not in examples[0]:
            raise _widths(widths)
        examples = [_padded(example, key, max(widths)) for example in examples]
    columns = {name: _stack([example[name] for example in examples]) for name in examples[0]}
    # transformers' BatchEncoding is a UserDict, and its `.to(device)` may be called next.
    return like(columns) if issubclass(like, UserDict) else columns


def _padded(example: Mapping[str, Any], key: str, width: int) -> dict[str, Any]:
    length = len(example[key])
    return {
        name: _pad(value, width - length, _PADDING.get(name, 0))
        if dimensions(value) == 1 and len(value) == length
        else value
        for name, value in example.items()
    }


def _pad(value: Any, extra: int, fill: int) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.nn.functional.pad(value, (0, extra), value=fill)
    if isinstance(value, np.ndarray):
        return np.pad(value, (0, extra), constant_values=fill)
    return [*value, *[fill] * extra]


def _stack(values: Sequence[Any]) -> Any:
    if isinstance(values[0], (torch.Tensor, np.ndarray, np.generic)):
        if len({value.shape for value in values}) > 1:
            raise _widths([len(value) for value in values])
        if isinstance(values[0], torch.Tensor):
            return torch.stack(list(values))
        return np.stack(values)
    return list(values)


def _widths(widths: Sequence[int]) -> SecondaryLearnersError:
    return SecondaryLearnersError(
        f"rows of {min(widths)} to {max(widths)} tokens do not fit in one batch without an "
        "'attention_mask'. Try the same width for every batch, or batches with an attention mask."
    )
