"""A large file of another hub, sent on to whoever asks for it while it comes here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.concurrency import run_in_threadpool
from starlette.types import Send

from secondary_learners.server.api.sending import BrokenOff
from secondary_learners.server.store.objects import Incoming

__all__ = ["Arriving"]

_PIECE = 256 * 1024


class Arriving:
    """What has come of it so far. The last byte is withheld until all are known to be right.

    `total`: how many bytes it will have. All that is here is called on one event loop.
    """

    def __init__(self, total: int) -> None:
        self._total, self._here = total, 0
        self._whole = self._ended = False
        self._news = asyncio.Event()
        self._descriptor, self._readers = -1, 0

    def begin(self, incoming: Incoming) -> None:
        if hasattr(os, "pread"):  # elsewhere who asks waits for all of it
            self._descriptor = incoming.open_again()

    async def write(self, incoming: Incoming, piece: bytes) -> None:
        await run_in_threadpool(incoming.write_through, piece)
        self._here = incoming.size
        self._tell()

    def end(self, whole: bool) -> None:
        """`whole`: all of it came, and was right."""
        self._whole, self._ended = whole, True
        self._tell()
        self._close_if_unread()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What came of it can be read for as long as the block lasts."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._close_if_unread()

    async def has_begun(self) -> bool:
        """Whether any of it came, or all: nothing is promised before."""
        while not (self._ended or (self._here and self._descriptor >= 0)):
            await self._news.wait()
        return not self._ended

    async def has_ended(self) -> None:
        while not self._ended:
            await self._news.wait()

    async def send_to(self, send: Send) -> None:
        """The bytes as the body of an answer, no sooner than they come.

        Raises BrokenOff where not all come, or not the right ones.
        """
        async for piece in self._pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async def _pieces(self) -> AsyncIterator[bytes]:
        at = 0
        while at < self._total:
            news, ready = self._news, self._total - (not self._whole)
            ready = min(ready, self._here)
            if at < ready:
                count = min(_PIECE, ready - at)
                piece = await run_in_threadpool(os.pread, self._descriptor, count, at)
                at += len(piece)
                yield piece
            elif self._ended:
                raise BrokenOff("what the other hub sent is not whole, or not right")
            else:
                await news.wait()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _close_if_unread(self) -> None:
        if self._ended and not self._readers and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
