"""How often one sender may ask, and how often a token that nobody has may be tried."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from secondary_learners.server.errors import Refused
from secondary_learners.server.refusals import refusal

__all__ = ["Buckets", "RateGate", "RateLimit"]

_REMEMBERED = 10_000
_WRONG_TOKENS_A_MINUTE = 30


class Buckets:
    """A bucket for each sender that holds `per_minute` requests and fills as fast."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: dict[object, tuple[float, float]] = {}

    def take(self, sender: object) -> float:
        """Take one. Returns 0.0, or after how many seconds there will be one."""
        level = self.level(sender)
        if level >= 1:
            self._buckets[sender] = (level - 1, self._clock())
            return 0.0
        return (1 - level) * 60 / self._per_minute

    def level(self, sender: object) -> float:
        level, when = self._buckets.get(sender, (float(self._per_minute), self._clock()))
        filled = (self._clock() - when) * self._per_minute / 60
        if len(self._buckets) >= _REMEMBERED:
            self._forget_full()
        return min(float(self._per_minute), level + filled)

    def _forget_full(self) -> None:
        """Those that are full again are as good as new ones; if all are in use, the oldest goes."""
        now, full = self._clock(), []
        for sender, (level, when) in self._buckets.items():
            if level + (now - when) * self._per_minute / 60 >= self._per_minute:
                full.append(sender)
        for sender in full or list(self._buckets)[:100]:
            del self._buckets[sender]


class RateLimit:
    """A token, or an address that sends none, asks `per_minute` times at most.

    An address that sends wrong tokens is not listened to for a while, whatever token it sends.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests = Buckets(per_minute, clock)
        self._failures = Buckets(_WRONG_TOKENS_A_MINUTE, clock)

    def wait(self, tokens: Sequence[bytes], address: str) -> float:
        """Count a request. Returns 0.0, or for how many seconds its sender must wait."""
        if tokens and self._failures.level(address) < 1:
            return 60.0
        return self._requests.take(
            hashlib.sha256(b"\n".join(tokens)).digest() if tokens else address
        )

    def allows(self, tokens: Sequence[bytes], address: str) -> bool:
        return self.wait(tokens, address) == 0.0

    def count_failure(self, address: str) -> None:
        """A token that nobody has came from `address`."""
        self._failures.take(address)


class RateGate:
    """Middleware: who asks too often is refused."""

    def __init__(self, app: ASGIApp, rate: RateLimit) -> None:
        self._app, self._rate = app, rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = (scope.get("client") or ("",))[0]
        tokens = [value for name, value in scope["headers"] if name == b"authorization"]
        wait = self._rate.wait(tokens, address)
        if wait:
            message = "You ask too often. Wait as long as Retry-After says."
            headers = {"Retry-After": str(math.ceil(wait))}
            await refusal(Refused(429, message, headers=headers))(scope, receive, send)
            return

        async def sending(answer: Message) -> None:
            if tokens and answer["type"] == "http.response.start" and answer["status"] == 401:
                self._rate.count_failure(address)
            await send(answer)

        await self._app(scope, receive, sending)
