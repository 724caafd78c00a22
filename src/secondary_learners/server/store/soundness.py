"""Which objects are known to be what their names say: hashed lately, and untouched since."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

__all__ = ["Soundness"]

_REMEMBERED = 65_536


class Soundness:
    """Remembers what was hashed, by size, inode and time of change, for `lifetime_s`.

    A bit that flips on the disk changes none of these: that is why it forgets.
    """

    def __init__(self, lifetime_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s, self._clock = lifetime_s, clock
        self._known: dict[str, tuple[tuple[int, int, int], float]] = {}

    def trust(self, sha256: str, status: os.stat_result) -> None:
        """`status` is that of a file whose bytes were just hashed and are right."""
        if len(self._known) >= _REMEMBERED:
            self._known.pop(next(iter(self._known)), None)
        self._known[sha256] = (_signature(status), self._clock())

    def knows(self, sha256: str, status: os.stat_result) -> bool:
        known = self._known.get(sha256)
        if known is None:
            return False
        signature, when = known
        return signature == _signature(status) and self._clock() - when < self._lifetime_s

    def forget(self, sha256: str) -> None:
        self._known.pop(sha256, None)


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_ino, status.st_mtime_ns
