"""One process at a time, where a file is read, changed and written again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.registry.home import locks_folder

__all__ = ["alone"]

_PATIENCE = 60  # seconds; nothing slow is done in such a block


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait until no other process is in a block of this name.

    Raises SecondaryLearnersError when another one stays in it, or its folder cannot be written.
    """
    from filelock import FileLock, Timeout

    path = locks_folder() / f"{name}.lock"
    guard = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        guard.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise SecondaryLearnersError(
            f"another process has held {path} for {_PATIENCE} seconds. End it, and try again."
        ) from error
    except OSError as error:
        raise SecondaryLearnersError(
            f"{path} cannot be written ({error.strerror}). Set SECONDARY_LEARNERS_HOME to a folder "
            "that can be."
        ) from error
    try:
        yield
    finally:
        guard.release()
