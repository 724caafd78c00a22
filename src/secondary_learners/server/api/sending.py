"""A part of a file as a response: one piece in memory at a time, whatever the size."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from secondary_learners.server.errors import Refused

__all__ = ["Sending"]

_PIECE = 256 * 1024
_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)  # Linux: fail rather than wait for the disk


class Sending:
    """An ASGI application that sends bytes `start` to `stop` of the object at `path`.

    `size`: what the object must have. One that has not, or is not there, is refused with Refused
    500: someone has touched the disk.
    """

    def __init__(
        self, path: str, size: int, start: int, stop: int, status: int, headers: dict[str, str]
    ) -> None:
        self._path, self._size = path, size
        self._start, self._stop = start, stop
        encoded = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ]
        self._opening = {
            "type": "http.response.start",
            "status": status,
            "headers": encoded,
        }

    def is_whole(self) -> bool:
        """Whether the object is there with the right size."""
        try:
            return os.stat(self._path).st_size == self._size
        except OSError:
            return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # not checked: a client would ask again and again
            await send(self._opening)
            await send({"type": "http.response.body"})
            return
        if not self.is_whole():
            raise _damaged(self._path)
        try:
            descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:  # it went since
            raise _damaged(self._path) from None
        try:
            await self._send_from(descriptor, receive, send)
        finally:
            os.close(descriptor)

    async def _send_from(self, descriptor: int, receive: Receive, send: Send) -> None:
        await send(self._opening)
        at, gone = self._start, None
        try:
            while True:
                piece = await _read(descriptor, min(_PIECE, self._stop - at), at)
                at += len(piece)
                more = at < self._stop
                if more and not piece:  # cut short while it is sent: the client must notice
                    raise OSError(f"{self._path} has become shorter")
                await send({"type": "http.response.body", "body": piece, "more_body": more})
                if not more:
                    return
                gone = gone or asyncio.ensure_future(_gone(receive))
                await asyncio.sleep(0)  # others' turn, and only so is it known who has gone
                if gone.done():
                    return
        finally:
            if gone is not None:
                gone.cancel()


async def _gone(receive: Receive) -> None:
    """Until the client hangs up, which sending does not tell."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(descriptor: int, size: int, at: int) -> bytes | bytearray | memoryview:
    """From memory at once where the file is cached there; from the disk in a thread."""
    if _NO_WAIT and size:
        piece = bytearray(size)
        try:
            count = os.preadv(descriptor, [piece], at, _NO_WAIT)
        except OSError:  # not cached, or a file system that cannot say
            count = 0
        if count:
            return memoryview(piece)[:count] if count < size else piece
    return await run_in_threadpool(_read_from_disk, descriptor, size, at)


def _read_from_disk(descriptor: int, size: int, at: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, at)
    os.lseek(descriptor, at, os.SEEK_SET)  # Windows; the descriptor is this request's own
    return os.read(descriptor, size)


def _damaged(path: str) -> Refused:
    place = "/".join(Path(path).parts[-3:])
    return Refused(
        500,
        f"The server's copy is missing or damaged. Restore {place} there, or upload it again.",
    )
