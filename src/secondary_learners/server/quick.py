"""Small files that are asked for again and again, answered before a request is even set up.

What it answers is what the application answered: the same bytes for the same path, sender and
state of the database. It passes the same gates: the host's name, the sender's rate, the figures and
the access log. Whatever is special about a request, it leaves to the application.
"""

from __future__ import annotations

from collections.abc import Sequence

from secondary_learners.server.api.downloads import Answers
from secondary_learners.server.hosts import KnownHosts
from secondary_learners.server.observing import AccessLog, Figures
from secondary_learners.server.rates import RateLimit

__all__ = ["Quick"]

_SPECIAL = frozenset(
    (
        *(b"range", b"if-range", b"if-none-match", b"expect", b"content-length"),
        *(b"transfer-encoding", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"),
    )
)

Headers = Sequence[tuple[bytes, bytes]]


class Quick:
    """Answers in one piece, or None for what the application must answer."""

    def __init__(
        self,
        answers: Answers,
        hosts: KnownHosts | None,
        rate: RateLimit | None,
        figures: Figures,
        log: AccessLog | None,
    ) -> None:
        self._answers, self._hosts, self._rate = answers, hosts, rate
        self._figures, self._log = figures, log

    def find(self, path: bytes, headers: Headers, client: tuple[str, int] | None) -> bytes | None:
        """What follows the status line and the date. `path`: as sent, with its query if it has one.

        Only for GET over HTTP 1.1.
        """
        senders, host = [], b""
        for name, value in headers:
            if name in _SPECIAL or (name == b"connection" and value.lower() != b"keep-alive"):
                return None
            if name == b"authorization":
                senders.append(value)
            elif name == b"host":
                host = value
        small = self._answers.find_small(path, b"\n".join(senders))
        if small is None or not (self._hosts is None or self._hosts.has_seen(host)):
            return None
        address = client[0] if client else ""
        if self._rate is not None and not self._rate.allows(senders, address):
            return None
        self._figures.count("GET", 200, small.size, 0.0)
        if self._log is not None:
            scope = {"sender": small.sender, "client": client, "method": "GET", "raw_path": path}
            self._log.write(scope, 200, small.size, 0.0)
        return small.answer
