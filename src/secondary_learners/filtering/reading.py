"""The candidates of a DataLoader before collation, read on from where a run was stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["Candidates"]

_ENOUGH = 64  # candidates that are scored together


class Candidates:
    """The examples of a DataLoader in chunks, from its own sampler and workers.

    A chunk is as many of its batches as have 64 examples, or one that has more.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = _uncollated(loader)
        self._state: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Where the newest chunk begins.

        A loader that keeps its own state (torchdata's StatefulDataLoader) goes on from it; of any
        other, all that comes before is read again and left out.
        """
        return self._state

    def set_epoch(self, epoch: int) -> None:
        """Tell the loader, its sampler or its data set, whichever has a `set_epoch`."""
        for part in (self._loader, self._loader.sampler, self._loader.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
                return

    def chunks(self, state: Mapping[str, Any] | None = None) -> Iterator[list[Any]]:
        """The chunks of a new iteration, or those from `state` on."""
        batches = self._opened(state)
        start = dict(self._state)
        read = state["read"] if state else 0
        while True:
            self._state = {**start, "read": read, "loader": self._snapshot()}
            chunk: list[Any] = []
            for batch in batches:
                read += 1
                chunk.extend(batch)
                if len(chunk) >= _ENOUGH:
                    break
            if not chunk:
                return
            yield chunk

    def _opened(self, state: Mapping[str, Any] | None) -> Iterator[list[Any]]:
        """The batches to come; notes how their order was drawn."""
        loader = cast(Any, self._loader)
        if state is None:
            self._state = {
                "generators": [generator.get_state() for generator in self._generators()],
                "random": torch.get_rng_state(),
                "epoch": getattr(loader, "iteration", None),
            }
            return iter(loader)
        self._state = dict(state)
        for generator, drawn in zip(self._generators(), state["generators"], strict=True):
            generator.set_state(drawn)
        if state["epoch"] is not None:  # of a loader that accelerate has prepared
            loader.iteration = state["epoch"]
        if state["loader"] is not None:
            loader.load_state_dict(state["loader"])
            return iter(loader)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state["random"])  # which a sampler without a generator draws from
            batches = iter(loader)
            deque(islice(batches, state["read"]), maxlen=0)
            first = list(islice(batches, 1))
        return chain(first, batches)

    def _snapshot(self) -> Any:
        inner = getattr(self._loader, "base_dataloader", self._loader)
        return self._loader.state_dict() if hasattr(inner, "state_dict") else None  # type: ignore[attr-defined]

    def _generators(self) -> list[torch.Generator]:
        loader = self._loader
        owners = (
            loader.generator,
            getattr(loader.sampler, "generator", None),
            getattr(loader, "synchronized_generator", None),
        )
        return list({id(each): each for each in owners if each is not None}.values())


def _uncollated(loader: DataLoader[Any]) -> DataLoader[Any]:
    """The same loader, of its own kind, giving lists of examples instead of batches."""
    if hasattr(loader, "_fetch_batches"):  # accelerate's dispatcher
        raise SecondaryLearnersError(
            "one process reads this DataLoader and hands out its batches, so none has examples to "
            "filter. Try accelerate's DataLoaderConfiguration(dispatch_batches=False)."
        )
    clone = _twin(loader)
    if "base_dataloader" in vars(clone):  # accelerate's, which wraps another one
        clone.base_dataloader = inner = _twin(clone.base_dataloader)
        clone.device = None  # batches are moved when they are collated
    else:
        inner = clone
    inner.collate_fn, inner._iterator = list, None
    if inner.batch_size is not None and inner.drop_last:  # that is of batches of survivors
        sampler = inner.batch_sampler
        if sampler is not None:
            sampler = type(sampler)(sampler.sampler, sampler.batch_size, False)
        vars(inner).update(drop_last=False, batch_sampler=sampler)
    return cast("DataLoader[Any]", clone)


def _twin(loader: Any) -> Any:
    twin = object.__new__(type(loader))
    vars(twin).update(vars(loader))
    return twin
