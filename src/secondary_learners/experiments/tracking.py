"""Curves and figures sent to a tracker as they come: TensorBoard, trackio, Weights & Biases.

Whoever has a figure calls `track`; where no tracker is open that does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

from secondary_learners.errors import MissingExtraError, UnknownNameError

__all__ = ["TRACKERS", "check_tracker", "figures_of", "track", "tracked"]

_PROJECT = "secondary-learners"


class Tracker(Protocol):
    """Where figures go."""

    def write(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    """Event files in the run's own folder, which is made by the first figure."""

    def __init__(self, folder: Path, run: str) -> None:
        self._folder, self._writer = folder / "tensorboard", cast(Any, None)

    def write(self, values: Mapping[str, float], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder))
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Trackio:
    def __init__(self, folder: Path, run: str) -> None:
        import trackio

        self._trackio: Any = trackio
        self._trackio.init(project=os.environ.get("TRACKIO_PROJECT", _PROJECT), name=run)

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()


class _Wandb:
    def __init__(self, folder: Path, run: str) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        self._run: Any = wandb.init(project=project, name=run)
        # Its own steps only grow, and each curve begins at 0.
        self._run.define_metric("*", step_metric="step")

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[str, Callable[[Path, str], Tracker] | None] = {
    "none": None,
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _Wandb,
}
"""By name, which is that of the package and of its extra too."""

_open: ContextVar[Tracker | None] = ContextVar("tracker", default=None)


def check_tracker(name: str) -> None:
    """Raise UnknownNameError for a name that is not in `TRACKERS`, MissingExtraError without it."""
    if name not in TRACKERS:
        raise UnknownNameError("tracker", name, TRACKERS, "--report-to none")
    if TRACKERS[name] is not None and find_spec(name) is None:
        raise MissingExtraError(name, name)


@contextmanager
def tracked(name: str, folder: Path, run: str) -> Iterator[None]:
    """What is tracked meanwhile goes to the tracker `name`, as the run `run`.

    folder: where trackers that write files write them. Raises what `check_tracker` does.
    """
    check_tracker(name)
    opener = TRACKERS[name]
    if opener is None:
        yield
        return
    tracker = opener(folder, run)
    token = _open.set(tracker)
    try:
        yield
    finally:
        _open.reset(token)
        tracker.close()


def track(values: Mapping[str, float], step: int) -> None:
    """Send figures by name, of a step of what they are figures of."""
    tracker = _open.get()
    if tracker is not None:
        tracker.write(values, step)


def figures_of(value: Any, name: str = "") -> dict[str, float]:
    """The numbers in a nest of mappings, by the keys on the way: "held_out/linear/spearman"."""
    if isinstance(value, Mapping):
        parts = (figures_of(each, f"{name}/{key}" if name else key) for key, each in value.items())
        return {key: figure for part in parts for key, figure in part.items()}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {name: float(value)}
    return {}
