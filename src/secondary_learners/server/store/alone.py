"""One process at a time serves a root, or changes what a serving one relies on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["alone"]


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold ROOT/lock while the block runs. The system lets go of it even after a SIGKILL.

    Raises SecondaryLearnersError when another process holds it.
    """
    try:
        with FileLock(root / "lock", mode=0o600).acquire(blocking=False):
            yield
    except Timeout:
        raise SecondaryLearnersError(
            f"{root} is being served already. Stop that server first, or choose another root."
        ) from None
