"""What the server did: an access log, and figures for Prometheus."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from logging.handlers import WatchedFileHandler
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from secondary_learners.server.store.clock import now

__all__ = ["AccessLog", "Figures", "Observed"]

_BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)


class Figures:
    """Counters of one process since it started."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.sent_bytes = self.received_bytes = 0
        self._seconds, self._within = 0.0, Counter[float]()
        self.under_way = 0

    def count(self, method: str, status: int, sent: int, seconds: float) -> None:
        self.requests[method, status] += 1
        self.sent_bytes += sent
        self._seconds += seconds
        for bound in _BOUNDS:
            if seconds <= bound:
                self._within[bound] += 1
                break

    def lines(self, gauges: dict[str, float]) -> Iterator[str]:
        """In the text format of Prometheus, `gauges` (name and value) included."""
        yield "# TYPE learners_requests_total counter"
        for (method, status), count in sorted(self.requests.items()):
            yield f'learners_requests_total{{method="{method}",status="{status}"}} {count}'
        yield "# TYPE learners_request_seconds histogram"
        below, total = 0, sum(self.requests.values())
        for bound in _BOUNDS:
            below += self._within[bound]
            yield f'learners_request_seconds_bucket{{le="{bound}"}} {below}'
        yield f'learners_request_seconds_bucket{{le="+Inf"}} {total}'
        yield f"learners_request_seconds_sum {self._seconds:.6f}"
        yield f"learners_request_seconds_count {total}"
        for name, value in (("sent", self.sent_bytes), ("received", self.received_bytes)):
            yield f"# TYPE learners_{name}_bytes_total counter"
            yield f"learners_{name}_bytes_total {value}"
        for name, gauge in {"requests_under_way": self.under_way, **gauges}.items():
            yield f"# TYPE learners_{name} gauge"
            yield f"learners_{name} {gauge:.15g}"


class AccessLog:
    """One line of JSON a request. No secret is in it: no token, no signature of a link."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = WatchedFileHandler(path)  # opened again when logrotate has moved it
        self._handler.setFormatter(logging.Formatter("%(message)s"))

    def write(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        line = {
            "date": now(),
            "address": (scope.get("client") or ("",))[0],
            "token": scope["sender"].get("token"),
            "method": scope["method"],
            "path": scope["raw_path"].decode("latin-1"),  # the query may hold a signature
            "status": status,
            "bytes": sent,
            "ms": round(seconds * 1000, 1),
        }
        record = logging.LogRecord("access", logging.INFO, "", 0, json.dumps(line), (), None)
        self._handler.handle(record)

    def close(self) -> None:
        self._handler.close()


class Observed:
    """Middleware: every request is counted, and logged where a log is kept."""

    def __init__(
        self,
        app: ASGIApp,
        figures: Figures,
        log: AccessLog | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app, self._figures, self._log, self._clock = app, figures, log, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, sent, begun = 499, 0, self._clock()  # 499: who asked has gone before the answer

        async def receiving() -> Message:
            message = await receive()
            self._figures.received_bytes += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        scope["sender"] = {}  # whose token it is, once that is known
        self._figures.under_way += 1
        try:
            await self._app(scope, receiving, sending)
        finally:
            self._figures.under_way -= 1
            seconds = self._clock() - begun
            self._figures.count(scope["method"], status, sent, seconds)
            if self._log is not None:
                self._log.write(scope, status, sent, seconds)
