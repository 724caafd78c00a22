"""The engines by name: what runs the work on each shard of a corpus."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from secondary_learners.errors import UnknownNameError

__all__ = ["ENGINES", "Engine", "Report", "Result", "Work", "engine_named"]

Report = Callable[[int], None]  # told of tokens as they are scored
Result = TypeVar("Result", covariant=True)


class Work(Protocol[Result]):
    """What is done to one item; plain data and a method, so that it travels to workers."""

    def __call__(self, item: Any, report: Report, /) -> Result: ...


class Engine(Protocol):
    """A module that does work on items, each once, by some workers, and gives the results."""

    def run(
        self, work: Work[Result], items: Sequence[Any], workers: int, report: Report
    ) -> Iterator[Result]: ...


ENGINES = {
    "datatrove": "secondary_learners.engines.datatrove",
    "local": "secondary_learners.engines.local",
    "ray": "secondary_learners.engines.ray",
}


def engine_named(name: str) -> Engine:
    """The engine of that name; raises UnknownNameError, or MissingExtraError for its package."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES, "learners score --help")
    module: Any = importlib.import_module(ENGINES[name])
    engine: Engine = module
    return engine
