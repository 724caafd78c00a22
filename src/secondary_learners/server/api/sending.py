"""A part of a file as a response: one piece in memory at a time, whatever the size."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from secondary_learners.server.errors import Refused
from secondary_learners.server.store.objects import Objects, Stored

__all__ = ["BrokenOff", "Part", "Sending"]

_PIECE = 256 * 1024
_AT_FIRST = 64 * 2**20  # up to this size a file is hashed before its first byte is sent
_NO_WAIT: int = getattr(os, "RWF_NOWAIT", 0)  # Linux: fail rather than wait for the disk


class BrokenOff(Exception):
    """An answer that cannot end as it began: the connection is cut, so that the client knows."""


@dataclass(frozen=True)
class Part:
    """Bytes `start` to `stop` of a content of `size` bytes."""

    content: Stored
    start: int
    stop: int

    @property
    def is_all(self) -> bool:
        return (self.start, self.stop) == (0, self.content.size)


class Sending:
    """An ASGI application that sends a part of an object, and no byte that is not what it was.

    An object that was hashed lately goes as it is. Another is hashed first, or, a large one that is
    sent as a whole, while it is sent: then its last piece stays here until all were right. One that
    is not right is set aside, and refused with Refused 500: someone or something has touched the
    disk.
    """

    def __init__(self, objects: Objects, part: Part, status: int, headers: dict[str, str]) -> None:
        self._objects, self._part = objects, part
        self._path = str(objects.path(part.content.sha256))
        self._headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ]
        self._opening = {
            "type": "http.response.start",
            "status": status,
            "headers": self._headers,
        }

    @property
    def size(self) -> int:
        return self._part.stop - self._part.start

    def whole(self) -> bytes | None:
        """The answer to a GET from its first header on, where the object is right. Reads it all."""
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != self._part.content.sha256:
            return None
        lines = [name + b": " + value + b"\r\n" for name, value in self._headers]
        return b"".join((*lines, b"\r\n", data[self._part.start : self._part.stop]))

    def is_sound(self) -> bool:
        """Whether the object is there with the right size, and was hashed lately."""
        content = self._part.content
        try:
            status = os.stat(self._path)
        except OSError:
            return False
        return status.st_size == content.size and self._objects.soundness.knows(
            content.sha256, status
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # not checked: a client would ask again and again
            await send(self._opening)
            await send({"type": "http.response.body"})
            return
        digest = None
        if not self.is_sound():
            content = self._part.content
            if content.size > _AT_FIRST and self._part.is_all:
                digest = hashlib.sha256()
                sound = self._objects.has(content.sha256, content.size)
            else:
                sound = await run_in_threadpool(self._objects.is_sound, content.sha256)
            if not sound or not self._objects.has(content.sha256, content.size):
                self._objects.set_aside(content.sha256)
                raise _damaged(self._path)
        try:
            descriptor = os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:  # it went since
            raise _damaged(self._path) from None
        try:
            await self._send_from(descriptor, digest, receive, send)
        finally:
            os.close(descriptor)

    async def _send_from(self, descriptor: int, digest: Any, receive: Receive, send: Send) -> None:
        await send(self._opening)
        at, stop, gone = self._part.start, self._part.stop, None
        status = os.fstat(descriptor)
        try:
            while True:
                piece = await _read(descriptor, min(_PIECE, stop - at), at)
                at += len(piece)
                more = at < stop
                if digest is not None:
                    digest.update(piece)
                if more and not piece:  # cut short while it is sent: the client must notice
                    raise BrokenOff(f"{self._path} has become shorter")
                if digest is not None and not more:
                    self._conclude(digest.hexdigest(), status)
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

    def _conclude(self, digest: str, status: os.stat_result) -> None:
        """Raises BrokenOff where what was sent is not what it should have been."""
        sha256 = self._part.content.sha256
        if digest != sha256:
            self._objects.set_aside(sha256)
            raise BrokenOff(f"{self._path} is damaged: what was sent of it was broken off")
        self._objects.soundness.trust(sha256, status)


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
