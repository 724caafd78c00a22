"""One process at a time serves a root, or changes what a serving one relies on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.files import held_alone

__all__ = ["alone"]


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold ROOT/lock while the block runs. The system lets go of it even after a SIGKILL.

    Raises SecondaryLearnersError when another process holds it.
    """
    busy = SecondaryLearnersError(
        f"{root} is being served already. Stop that server first, or choose another root."
    )
    with held_alone(root / "lock", busy, mode=0o600):
        yield
