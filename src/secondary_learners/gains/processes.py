"""Several processes that label into one store, as `accelerate launch` or `torchrun` starts them.

They only ever exchange small Python values over gloo, never weights or gains of many contexts, so
it does not matter whether they compute on GPUs. All must see the store's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["ALONE", "Team", "joined_team", "process_count"]

_T = TypeVar("_T")
# How long the others are waited for at the start, when nothing tells that one of them has stopped.
_MEETING = timedelta(minutes=10)
# How much longer than the others a process may take, once they have met. One that stops is noticed
# at once: its connections close.
_PATIENCE = timedelta(days=1)
_VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Team:
    """The processes that label together, and which of them this is: `rank` of `count`, from 0.

    group: through which `gather` waits; None when alone.
    """

    rank: int = 0
    count: int = 1
    group: torch.distributed.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this process does what is done once: begin a store, show progress, fit."""
        return self.rank == 0

    def share(self, items: Sequence[_T]) -> list[_T]:
        """This process's part of `items`, which are the same in all."""
        return list(items[self.rank :: self.count])

    def gather(self, value: _T) -> list[_T]:
        """Every process's `value`, by rank: all wait for all.

        Raises SecondaryLearnersError as soon as another process has stopped.
        """
        if self.count == 1:
            return [value]
        values: list[_T | None] = [None] * self.count
        try:
            torch.distributed.all_gather_object(values, value, group=self.group)
        except RuntimeError as error:
            raise SecondaryLearnersError(
                f"another of the {self.count} processes has stopped (its own message says why). "
                "What was finished is kept: the same command goes on from there."
            ) from error
        return values  # type: ignore[return-value]  # all are there now


ALONE = Team()


def process_count() -> int:
    """How many processes the environment says were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined_team() -> Iterator[Team]:
    """The team that the environment describes (WORLD_SIZE, RANK, MASTER_ADDR, MASTER_PORT).

    Without WORLD_SIZE, or with 1, `ALONE`. Raises SecondaryLearnersError when part of the
    description is missing, and when the processes do not find each other.
    """
    count = process_count()
    if count == 1:
        yield ALONE
        return
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    if missing:
        raise SecondaryLearnersError(
            f"WORLD_SIZE is {count}, and {missing[0]} is not set. "
            "Try `accelerate launch -m secondary_learners`, which sets both."
        )
    try:
        torch.distributed.init_process_group("gloo", timeout=_MEETING)
    except RuntimeError as error:
        address, port = (os.environ[name] for name in _VARIABLES[1:])
        raise SecondaryLearnersError(
            f"the {count} processes did not meet at {address}, port {port} "
            f"({str(error).splitlines()[0].rstrip('.')}). "
            "Start all of them at once, on a port that nothing else uses."
        ) from error
    try:
        group = torch.distributed.new_group(timeout=_PATIENCE)
        yield Team(torch.distributed.get_rank(), count, group)
    finally:
        torch.distributed.destroy_process_group()
