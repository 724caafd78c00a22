"""uvicorn's HTTP protocol with a ceiling for what the parser gathers."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BoundedProtocol"]

_GATHERED = 128 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Hang up on a head, a trailer or a chunk's extension without end.

    The parser keeps them in memory until they are whole, however long that takes, before anyone
    is asked for a token. Bodies pass through in pieces and are limited where they are read.
    """

    _gathered = 0

    def data_received(self, data: bytes) -> None:
        self._gathered += len(data)
        super().data_received(data)
        if self._gathered > _GATHERED:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._gathered = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._gathered = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._gathered = 0
        super().on_message_complete()
