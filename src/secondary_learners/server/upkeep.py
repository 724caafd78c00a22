"""What a server does beside answering: it reads its objects again, and drops what aged out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from secondary_learners.server.store.collection import collect_uploads
from secondary_learners.server.store.hub import Hub
from secondary_learners.server.store.xorbs import drop_old_xorbs

__all__ = ["Upkeep"]

_log = logging.getLogger(__name__)
_FIRST_AFTER_S = 60.0
_EVERY_S = 24 * 3600.0
_GRACE_S = 7 * 24 * 3600.0
_BYTES_PER_S = 32 * 2**20  # so that the disk stays free for others


class Upkeep:
    """A thread that looks after a hub once a day until it is stopped."""

    def __init__(self, hub: Hub, first: Callable[[], None] = lambda: None) -> None:
        """`first` is called once, when the thread starts."""
        self._hub, self._first, self._stopping = hub, first, threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._first()
        except Exception:
            _log.exception("The catalogue could not be read at the start")
        wait = _FIRST_AFTER_S
        while not self._stopping.wait(wait):
            begun = time.monotonic()
            try:
                self.once()
            except Exception:  # the server goes on without it, and tries again
                _log.exception("The daily upkeep broke off")
            wait = max(_EVERY_S - (time.monotonic() - begun), _FIRST_AFTER_S)

    def once(self, bytes_per_s: float = _BYTES_PER_S) -> int:
        """All of it once. Returns how many objects turned out damaged."""
        drop_old_xorbs(self._hub.root)
        collected = collect_uploads(self._hub, _GRACE_S)
        if collected.count:
            _log.warning(
                "Dropped %s uploads (%s bytes) that no commit named within a week",
                f"{collected.count:,}",
                f"{collected.bytes:,}",
            )
        return self._read_again(bytes_per_s)

    def _read_again(self, bytes_per_s: float) -> int:
        damaged = 0
        for sha256 in self._hub.objects.all():
            if self._stopping.is_set():
                break
            path = self._hub.objects.path(sha256)
            size = path.stat().st_size if path.exists() else 0
            sound = self._hub.objects.is_sound(sha256, again=True)
            damaged += not sound and size > 0
            self._stopping.wait(size / bytes_per_s)
        return damaged
