"""uvicorn's HTTP protocol with ceilings and deadlines for what a client may make it wait for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from secondary_learners.server.quick import Quick

__all__ = ["BoundedProtocol", "Deadlines", "WatchedServer"]

_GATHERED = 128 * 1024
_TICKS_BETWEEN_LOOKS = 10  # uvicorn ticks ten times a second
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: 39\r\n\r\n"
    b'{"error":"Too many open connections."}\n'
)


@dataclass(frozen=True)
class Deadlines:
    """How long a client may take, in seconds; slower ones are hung up on.

    `head`: for a whole request line and headers. `body`: for every `body_bytes` of a body.
    `answer`: for making room for more of an answer. `rest`: for the rest of a body that was
    answered before its end.
    """

    head: float = 20.0
    body: float = 60.0
    body_bytes: int = 60 * 1024
    answer: float = 120.0
    rest: float = 60.0


class BoundedProtocol(HttpToolsProtocol):
    """Hang up on a head, a trailer or a chunk's extension without end, and on who is too slow.

    The parser keeps a head in memory until it is whole, before anyone is asked for a token. Bodies
    pass through in pieces and are limited where they are read.
    """

    deadlines = Deadlines()
    most_connections = 1000
    quick: Quick | None = None

    _gathered = 0
    _answered = False
    _received = 0
    _waited_for = ""
    _since = 0.0
    _received_then = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = time.monotonic()
        if len(self.connections) > self.most_connections and not self._make_room():
            transport.write(_BUSY)
            transport.close()

    def data_received(self, data: bytes) -> None:
        self._gathered += len(data)
        self._received += len(data)
        super().data_received(data)
        if self._gathered > _GATHERED:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._gathered = 0
        answer = self._quick_answer() if self.quick is not None else None
        if answer is None:
            super().on_headers_complete()
            return
        date = b"".join(
            name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers
        )
        self._answered = True
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + date + answer)

    def _quick_answer(self) -> bytes | None:
        """An answer without the application, where nothing is under way on this connection."""
        cycle, parser = self.cycle, self.parser
        if (
            (cycle is not None and (not cycle.response_complete or cycle.more_body))
            or self.pipeline
            or self.flow.write_paused
            or parser.get_method() != b"GET"
            or parser.get_http_version() != "1.1"
            or self.transport.is_closing()
        ):
            return None
        assert self.quick is not None
        return self.quick.find(self.url, self.headers, self.client)

    def on_body(self, body: bytes) -> None:
        self._gathered = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._gathered = 0
        if self._answered:
            self._answered = False
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        super().on_message_complete()

    def hang_up_if_late(self, now: float) -> None:
        """Called every second or so: what is waited for, and has it come in time?"""
        waited_for = self._waiting_for()
        received = self._received
        moved = waited_for == "body" and received - self._received_then >= self.deadlines.body_bytes
        if waited_for != self._waited_for or moved:
            self._waited_for, self._since, self._received_then = waited_for, now, received
        elif waited_for and now - self._since > getattr(self.deadlines, waited_for):
            self.transport.abort()

    def _waiting_for(self) -> str:
        """Which deadline runs: "" where the server itself is at work, or keep-alive counts."""
        cycle = self.cycle
        if self.flow is not None and self.flow.write_paused:
            return "answer"
        if cycle is not None and cycle.more_body:
            if cycle.response_complete:
                return "rest"
            return "" if self.flow.read_paused or cycle.body else "body"
        if cycle is None or cycle.response_complete:
            is_first = self._received == 0
            return "head" if self._gathered or is_first else ""
        return ""

    @property
    def _is_idle(self) -> bool:
        cycle = self.cycle
        if cycle is None:
            done = self._received > 0
        else:
            done = cycle.response_complete and not cycle.more_body
        return done and not self._gathered and not self.transport.is_closing()

    def _make_room(self) -> bool:
        """End a connection that only waits for a next request, where there is one."""
        for other in self.connections:
            if isinstance(other, BoundedProtocol) and other._is_idle:
                other.transport.close()
                self.connections.discard(other)
                return True
        return False


class WatchedServer(uvicorn.Server):
    """uvicorn's server, looking at its connections' deadlines every second."""

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_BETWEEN_LOOKS == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.hang_up_if_late(now)
        return await super().on_tick(counter)
