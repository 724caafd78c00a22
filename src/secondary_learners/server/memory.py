"""How many bytes of requests are held in memory at once, all together."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from secondary_learners.server.errors import Refused

__all__ = ["Accounted", "Held", "Memory"]


class Memory:
    """A ceiling, and how much of it is used."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0


class Held:
    """What one request holds."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self._bytes = memory, 0

    def set(self, count: int) -> None:
        """From now on the request holds `count` bytes. Raises Refused 503 where that is too much.

        The first megabyte of each is free: else small requests would fail because of large ones.
        """
        more = max(0, count - _FREE) - self._bytes
        if more > 0 and self._memory.used + more > self._memory.most:
            raise Refused(
                503,
                "The server has too much to do at once: nothing was stored. Try again.",
                headers={"Retry-After": "5"},
            )
        self._memory.used += more
        self._bytes += more

    def release(self) -> None:
        self._memory.used -= self._bytes
        self._bytes = 0


_FREE = 2**20


class Accounted:
    """Middleware: a request's handlers say what they hold to scope["held"], until it has ended."""

    def __init__(self, app: ASGIApp, memory: Memory) -> None:
        self._app, self._memory = app, memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["held"] = held = Held(self._memory)
        try:
            await self._app(scope, receive, send)
        finally:
            held.release()
